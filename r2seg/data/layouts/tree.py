"""The files of a data set's folder, paired by name into cases, and everything that is wrong with them, collected and told at once.

What all layouts share lives here. Which names a data set uses is in the module of its layout.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from r2seg.data.cases import Case, find_images, group_of, no_image_in
from r2seg.data.images import split_suffix
from r2seg.errors import UserError, counted, some

if TYPE_CHECKING:
    from r2seg.config import Data

_LOG = logging.getLogger(__name__)
_MOST_LINES = 20  # of one kind of mistake


class LayoutError(UserError):
    """Everything that is wrong with the files of a data set, one line each.

    Attributes:
        problems: Every line, sorted; the text of the exception shows at most 20 of a kind.
        cases: The cases in which nothing is wrong.
    """

    def __init__(self, problems: Iterable[tuple[str, str]], cases: Sequence[Case] = (), hint: str = "") -> None:
        by_kind: dict[str, list[str]] = {}
        for kind, text in sorted(set(problems), key=lambda problem: problem[1]):
            by_kind.setdefault(kind, []).append(f"{text}{hint}".replace("\n", "\\n"))
        lines = []
        for kind, texts in by_kind.items():
            lines += texts[:_MOST_LINES]
            if rest := len(texts) - _MOST_LINES:
                lines += [f"... and {counted(rest, 'more mistake')} of this kind: {kind}"] if rest > 0 else []
        super().__init__("\n".join(lines))
        self.problems = tuple(text for texts in by_kind.values() for text in texts)
        self.by_kind = by_kind
        self.cases = tuple(cases)

    def with_hint(self, hint: str) -> LayoutError:
        """The same mistakes, each followed by a hint."""
        return LayoutError(((kind, text) for kind, texts in self.by_kind.items() for text in texts), self.cases, hint)


@dataclass(frozen=True)
class Partners:
    """Files that belong to images, such as their labels.

    Attributes:
        files: Key of the image -> file.
        place: Key -> where its file is expected below the root, such as ``"labels/{}.*".format``.
    """

    files: Mapping[str, Path]
    place: Callable[[str], str]


class Tree:
    """The files below a data set's root, and what is wrong with them.

    Args:
        data: The config's section; ``root`` is the folder of the data set itself.
    """

    def __init__(self, data: Data) -> None:
        self.root = data.root
        self._group = data.group
        self._problems: list[tuple[str, str]] = []
        self._warnings: list[str] = []

    def wrong(self, kind: str, text: str) -> None:
        """Notes a mistake: its kind, and one line that names the file and the remedy."""
        self._problems.append((kind, text))

    def warn(self, text: str) -> None:
        """Notes what a person should know, in one line."""
        self._warnings.append(text)

    def images_in(self, *folders: Path, remedy: str) -> list[Path]:
        """The images below folders; a missing, unreadable or empty folder is a mistake."""
        files: list[Path] = []
        for folder in folders:
            if not folder.is_dir():
                self.wrong("missing folder", f"{folder}: there is no such folder: {remedy}")
                continue
            try:
                found = [path for path in find_images(folder) if "__MACOSX" not in path.relative_to(folder).parts]
            except UserError as error:
                self.wrong("folder that cannot be read", str(error))
                continue
            if not found:
                self.wrong("empty folder", f"{no_image_in(folder)}; {remedy}")
            files += found
        return files

    def named(self, files: Iterable[Path], pattern: str, like: str) -> dict[str, Path]:
        """Files by the key in their name: what the pattern's groups find; other names and doubled keys are mistakes.

        Args:
            files: Image files.
            pattern: Regular expression of a name without suffix, whose first group is the key; capitals do not matter.
            like: An example of a right name.
        """
        found: dict[str, Path] = {}
        for path in files:
            match = re.fullmatch(pattern, split_suffix(path)[0], re.IGNORECASE)
            if match is None:
                self.wrong("other name", f"{path}: its name is not like {like}: rename it or move it away")
            else:
                self.add(found, match[1], path)
        return found

    def add(self, found: dict[str, Path], key: str, path: Path) -> None:
        """Adds a file under its key; a second one is a mistake."""
        if key in found:
            self.wrong("doubled name", f"{found[key]} and {path} have the same name: rename or remove one")
        else:
            found[key] = path

    def pair(
        self,
        images: Mapping[str, Path | tuple[Path, ...]],
        labels: Partners | Sequence[Partners],
        *,
        mask: Partners | None = None,
        observers: Sequence[Partners] = (),
        id_of: Callable[[str], str] = str,
        groups: Mapping[str, str] | None = None,
        split: str | None = None,
    ) -> list[Case]:
        """The cases of images with their partners of the same key; missing partners are mistakes, partners without image warnings.

        Args:
            images: Key -> file, or one file for each channel.
            labels: The reference labels; several where labels overlap.
            mask: Fields of view. Without any file there is none; with some, every image needs one.
            observers: Labels that other people drew; they may be missing.
            id_of: The case's id from its key; default: the key.
            groups: Key -> patient, where the names tell without ``data.group``.
            split: The part of all these cases, if the data set fixes it.
        """
        labels = [labels] if isinstance(labels, Partners) else labels
        mask = mask if mask and mask.files else None
        unlabelled = [partners for partners in labels if images and not any(key in partners.files for key in images)]
        for partners in unlabelled:
            example = min(images)
            self.wrong(
                "no label at all",
                f"{self.root / partners.place('*')}: this is no label of any of the {counted(len(images), 'image')}: "
                f"the label of {_first(images[example])} is expected in {partners.place(example)}; add the labels",
            )
        cases = []
        for key in sorted(images):
            image = _first(images[key])
            missing = [p for p in labels if p not in unlabelled and key not in p.files]
            for partners in missing:
                place = self.root / partners.place(key)
                self.wrong("missing label", f"{image}: has no label: add {place}, or move the image away")
            if mask and key not in mask.files:
                missing.append(mask)
                self.wrong(
                    "missing field of view",
                    f"{image}: has no field of view: add {self.root / mask.place(key)}, or move all fields of view away",
                )
            group = self.group_of(id_of(key)) if groups is None or self._group else groups[key]
            if group is None or missing or unlabelled:
                continue
            cases.append(
                Case(
                    id=id_of(key),
                    images=files if isinstance(files := images[key], tuple) else (files,),
                    labels=tuple(partners.files[key] for partners in labels),
                    mask=mask.files[key] if mask else None,
                    observers=self._observers(key, observers),
                    group=group,
                    split=split,
                )
            )
        for partners in labels:
            self.warn_of_orphans(partners, images, "label")
        for partners in observers:
            self.warn_of_orphans(partners, images, "observer's label")
        if mask:
            self.warn_of_orphans(mask, images, "field of view file")
        for number, partners in enumerate(observers, start=1):
            without = [key for key in sorted(images) if key not in partners.files]
            if partners.files and without:
                self.warn(
                    f"{self.root}: observer {number} did not draw {counted(len(without), 'case')}: {some(without)}"
                )
        return cases

    def warn_of_orphans(self, partners: Partners, images: Iterable[str], what: str) -> None:
        """Warns of files whose image is not there."""
        if orphans := sorted(str(partners.files[key]) for key in set(partners.files).difference(images)):
            self.warn(f"{self.root}: {counted(len(orphans), what)} without an image, ignored: {some(orphans)}")

    def group_of(self, case_id: str) -> str | None:
        """The patient of a case, or None if ``data.group`` does not find one, which is a mistake."""
        try:
            return group_of(case_id, self._group)
        except UserError as error:
            self.wrong("data.group", str(error))
            return None

    @staticmethod
    def _observers(key: str, observers: Sequence[Partners]) -> tuple[Path, ...]:
        """The observers' files, up to the first who did not draw this image: the second stays the second."""
        found = []
        for partners in observers:
            if key not in partners.files:
                break
            found.append(partners.files[key])
        return tuple(found)

    def finish(self, cases: Iterable[Case]) -> list[Case]:
        """The cases, sorted by id; warnings are logged.

        Raises:
            LayoutError: Something is wrong.
        """
        cases = sorted(cases, key=lambda case: case.id)
        by_id: dict[str, Case] = {}
        for case in cases:
            other = by_id.setdefault(case.id, case)
            if other is not case:
                self.wrong(
                    "doubled case",
                    f"{other.images[0]} and {case.images[0]} are both case {case.id!r}: rename or remove one",
                )
        for text in self._warnings:
            _LOG.warning("%s", text)
        if self._problems:
            raise LayoutError(self._problems, cases)
        return cases


def _first(files: Path | tuple[Path, ...]) -> Path:
    return files[0] if isinstance(files, tuple) else files


def names_in(folder: Path) -> list[str]:
    """Names of the files and folders in a folder, sorted, without hidden ones; none where it cannot be read."""
    try:
        return sorted(name for name in os.listdir(folder) if not name.startswith(".") and name != "__MACOSX")
    except OSError:
        return []


def has_name(folder: Path, pattern: str) -> bool:
    """Whether a folder holds a file or folder whose whole name matches a regular expression; capitals do not matter."""
    return any(re.fullmatch(pattern, name, re.IGNORECASE) for name in names_in(folder))


def located(root: Path, recognise: Callable[[Path], bool], layout: str) -> Path:
    """The data set's folder: the root itself, or the only folder up to two levels below it that looks like it.

    Where it looks like nothing that is known the root is given back, so that the layout says what is missing.

    Raises:
        LayoutError: There are several, or the root does not exist.
    """
    if not root.is_dir():
        raise LayoutError(
            [("missing folder", f"data.root {root}: there is no such folder; name the data set's folder")]
        )
    if recognise(root):
        return root
    level = [root]
    for _ in range(2):
        level = [folder / name for folder in level for name in names_in(folder) if (folder / name).is_dir()]
        found = [folder for folder in level if recognise(folder)]
        if len(found) > 1:
            raise LayoutError(
                [
                    (
                        "several data sets",
                        f"data.root {root} holds {len(found)} folders in the layout {layout}: "
                        f"{some([str(path) for path in found])}; name one of them",
                    )
                ]
            )
        if found:
            _LOG.warning("data.root %s: the data set is taken from %s", root, found[0])
            return found[0]
    return root
