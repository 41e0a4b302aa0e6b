"""The layout of any names: patterns in the config, ``data.files``, say which file is the image, the label, … of a case.

A list of cases in a table is read in table.py.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from r2seg.data.cases import Case
from r2seg.data.layouts.patterns import Match, Pattern, paths_below
from r2seg.data.layouts.table import table_cases
from r2seg.data.layouts.tree import Partners, Tree
from r2seg.errors import UserError, some

if TYPE_CHECKING:
    from r2seg.config import Data

_KEY = "\0"  # between group and id: no path holds it


@dataclass(frozen=True)
class Role:
    """What files are: the key of the config that names them, and their pattern."""

    key: str
    pattern: Pattern


def is_files(root: Path) -> bool:
    """Never: patterns are of the config and not of a folder."""
    return False


def files_cases(data: Data) -> list[Case]:
    """The cases that ``data.files`` describes.

    The image's pattern says which cases there are. With {group} in it, the case is named GROUP/ID and the group is its patient.
    A file that several patterns match belongs to the one with the most literal characters: beside '{id}_seg.png', '{id}.png' is not
    the label.

    Raises:
        LayoutError: No file matches, a case lacks a file, or two files are one case's.
    """
    if data.files is None:
        raise UserError("data.layout is files: give data.files with the patterns of image and label, or with a table")
    tree = Tree(data)
    if data.files.table is not None:
        return tree.finish(table_cases(tree, data.files.table, list(data.labels)))
    images, labels, mask, observers = _roles(data)
    roles = [*images, *labels, *([mask] if mask else []), *observers]
    try:
        paths = paths_below(data.root)
    except OSError as error:
        tree.wrong("folder that cannot be read", f"{error.filename}: cannot be read: {error.strerror}")
        return tree.finish([])
    matches = _assigned(tree, roles, paths)
    found = {role.key: _by_key(tree, role, matches[role.key]) for role in roles}
    for role in (*images, *labels):
        if not matches[role.key]:
            tree.wrong("no match", _no_match(data.root, role, paths))
    if any(not matches[role.key] for role in (*images, *labels)):
        return tree.finish([])
    groups = {key: key.partition(_KEY)[0] for key in found[images[0].key]}
    grouped = "{group}" in images[0].pattern.text
    partners = {role.key: _partners(tree, role, found[role.key], groups) for role in roles}
    return tree.finish(
        tree.pair(
            _channels(tree, images, partners),
            [partners[role.key] for role in labels],
            mask=partners[mask.key] if mask else None,
            observers=[partners[role.key] for role in observers],
            id_of=lambda key: key.replace(_KEY, "/") if grouped else key.partition(_KEY)[2],
            groups=groups if grouped else None,
        )
    )


def _roles(data: Data) -> tuple[list[Role], list[Role], Role | None, list[Role]]:
    files = data.files
    assert files is not None and files.image is not None and files.label is not None  # the schema's
    many = len(files.image) > 1
    images = [
        Role(f"data.files.image[{number}]" if many else "data.files.image", Pattern(text))
        for number, text in enumerate(files.image)
    ]
    if isinstance(files.label, Mapping):
        labels = [Role(f"data.files.label.{name}", Pattern(files.label[name])) for name in data.labels]
    else:
        labels = [Role("data.files.label", Pattern(files.label))]
    mask = Role("data.files.mask", Pattern(files.mask)) if files.mask else None
    observers = [Role(f"data.files.observers[{n}]", Pattern(text)) for n, text in enumerate(files.observers)]
    return images, labels, mask, observers


def _assigned(tree: Tree, roles: list[Role], paths: list[str]) -> dict[str, list[Match]]:
    """Key of the role -> its files. A file belongs to the most literal of the patterns that match it."""
    claimed: dict[Path, list[tuple[Role, Match]]] = {}
    for role in roles:
        for match in role.pattern.matches(tree.root, paths):
            claimed.setdefault(match.path, []).append((role, match))
    assigned: dict[str, list[Match]] = {role.key: [] for role in roles}
    for path, claims in claimed.items():
        most = max(role.pattern.num_literal for role, _ in claims)
        best = [(role, match) for role, match in claims if role.pattern.num_literal == most]
        if len(best) > 1:
            keys = " and ".join(role.key for role, _ in best)
            tree.wrong("file of two patterns", f"{path}: matches both {keys}: make one of the patterns say more")
        else:
            assigned[best[0][0].key].append(best[0][1])
    return assigned


def _by_key(tree: Tree, role: Role, matches: list[Match]) -> dict[str, Path]:
    """ "GROUP\\0ID" -> file; without {group} in the pattern "\\0ID"."""
    found: dict[str, Path] = {}
    for match in matches:
        key = f"{match.group or ''}{_KEY}{match.id}"
        if key in found:
            shown = key.replace(_KEY, "/") if match.group else match.id
            tree.wrong(
                "doubled name",
                f"{found[key]} and {match.path} are both {role.key} of the case {shown!r}: remove one, or make the pattern say more",
            )
        found.setdefault(key, match.path)
    return found


def _partners(tree: Tree, role: Role, found: Mapping[str, Path], groups: Mapping[str, str]) -> Partners:
    """The role's files by the cases' keys. A file of a pattern without {group} goes to the case of its id, which must be one."""

    def place(key: str) -> str:
        group, separator, case_id = key.partition(_KEY)
        return role.pattern.place(case_id if separator else key, group)

    if "{group}" in role.pattern.text or not any(groups.values()):
        return Partners(found, place)
    by_id: dict[str, list[str]] = {}
    for key in groups:
        by_id.setdefault(key.partition(_KEY)[2], []).append(key)
    matched: dict[str, Path] = {}
    for key, path in found.items():
        cases = by_id.get(key.partition(_KEY)[2], [key])
        if len(cases) > 1:
            names = " and ".join(case.replace(_KEY, "/") for case in sorted(cases))
            tree.wrong("ambiguous file", f"{path}: may belong to {names}: put {{group}} into {role.key}")
        matched.update(dict.fromkeys(cases, path))
    return Partners(matched, place)


def _channels(tree: Tree, roles: list[Role], partners: Mapping[str, Partners]) -> dict[str, tuple[Path, ...]]:
    """Key -> one file for each channel; a missing one is a mistake."""
    first, *others = (partners[role.key] for role in roles)
    images: dict[str, tuple[Path, ...]] = {}
    for key, path in first.files.items():
        missing = [other for other in others if key not in other.files]
        for other in missing:
            place = tree.root / other.place(key)
            tree.wrong("missing channel", f"{path}: the channel {place} is missing: add it, or move the image away")
        if not missing:
            images[key] = (path, *(other.files[key] for other in others))
    for other in others:
        tree.warn_of_orphans(other, first.files, "image")
    return images


def _no_match(root: Path, role: Role, paths: list[str]) -> str:
    text = f"{role.key} {role.pattern.text!r}: no file below {root} matches"
    similar = [path for path in paths if role.pattern.regex(re.IGNORECASE).fullmatch(path)]
    if similar:
        return f"{text}; with other capitals it would match {some(similar, 3)}: correct the pattern"
    name = role.pattern.text.rpartition("/")[2]
    deeper = [path for path in paths if Pattern(f"**/{name}").regex().fullmatch(path)]
    if deeper:
        return f"{text}; in other folders it would match {some(deeper, 3)}: correct the folders of the pattern"
    there = f"there are {some(paths, 3)}" if paths else "there is no image at all"
    return f"{text}; {there}: correct the pattern, or data.root"
