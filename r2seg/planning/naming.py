"""The names of files in their parts: which folders differ from case to case, what a name begins or ends with, what its id can be.

One ``Kind`` for files that differ only from case to case. Which kinds belong together is found in inventory.py.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

from r2seg.data.formats import split_suffix
from r2seg.planning.words import IMAGE, MODALITIES, affix_of, part_of_folders, role_of_folder, words_of

# More images than this with one beginning and _0000, _0001, ... are slices, not channels.
_MOST_CHANNELS = 8
_CHANNEL = re.compile(r"_\d{4}$")
# At most so many words are cut from the beginning and the end of a name.
_MOST_FIRST, _MOST_LAST = 2, 3


@dataclass(frozen=True)
class File:
    """A file's name in its parts.

    Attributes:
        path: Relative to the data's folder, with forward slashes.
        place: Its folders, with * for those that differ from case to case.
        varying: The folders that * stands for.
        stem: Name without suffix.
        suffix: Suffix of its format.
        role: What words say it is, or None.
        affix: The words that say so, as they stand in the name; "" if a folder does.
    """

    path: str
    place: tuple[str, ...]
    varying: tuple[str, ...]
    stem: str
    suffix: str
    role: str | None
    affix: str


@dataclass(frozen=True)
class Cut:
    """One way to read ids from the files of a kind.

    Attributes:
        head: Beginning of the names that is not part of the id.
        tail: End of the names that is not part of the id.
        with_folders: Whether the folders that differ are part of the id.
        ids: Id -> its file.
    """

    head: str
    tail: str
    with_folders: bool
    ids: dict[str, File]

    @property
    def cost(self) -> tuple[int, int]:
        """Orders the cuts: less is cut off first."""
        return int(not self.with_folders), len(words_of(self.head)) + len(words_of(self.tail))

    def own(self, file: File) -> str:
        """The part of a file's name that is not cut off."""
        return file.stem[len(self.head) : len(file.stem) - len(self.tail)]


class Kind:
    """Files that differ only from case to case: the same place and the same words, told apart from others by these."""

    def __init__(self, files: Sequence[File]) -> None:
        self.files = files
        self.role, self.affix, self.place = files[0].role, files[0].affix, files[0].place
        self.part = part_of_folders(self.place)
        self.cuts = list(_cuts(files))

    def __str__(self) -> str:
        first, folder = self.files[0], "".join(f"{name}/" for name in self.place)
        if self.affix and self.affix == first.stem:
            return f"{folder}{first.stem}{first.suffix}"
        if self.affix and not first.stem.endswith(self.affix):
            return f"{folder}{self.affix}*{first.suffix}"
        return f"{folder}*{self.affix}{first.suffix}"

    @property
    def is_channel(self) -> bool:
        """Whether its files are named as one channel of several: _0000, or a modality such as _t1."""
        return bool(_CHANNEL.fullmatch(self.affix)) or self.affix.strip("_-. ").lower() in MODALITIES

    @property
    def order(self) -> tuple[int, str]:
        """Orders the channels: by number, or as MODALITIES lists them."""
        word = self.affix.strip("_-. ").lower()
        return (MODALITIES.index(word) if word in MODALITIES else -1), self.affix

    @property
    def reason(self) -> str:
        """What told the role of the files, in words."""
        if self.affix and self.role:
            return f"by {self.affix!r} in their names"
        folder = next((name for name in reversed(self.place) if role_of_folder(name)), None)
        return f"by the folder {folder}" if folder and self.role else "by what the others are"


def _split_name(name: str) -> tuple[str, str]:
    """Stem and suffix; the "seg" of .seg.nrrd is a word that tells label maps."""
    stem, suffix = split_suffix(name)
    return (f"{stem}{suffix.removesuffix('.nrrd')}", ".nrrd") if suffix == ".seg.nrrd" else (stem, suffix)


def read_names(names: Sequence[str], constant: frozenset[str] = frozenset()) -> list[File]:
    """The names in their parts.

    Args:
        names: Relative paths with forward slashes.
        constant: Folders at the top that do not stand for cases although their names differ.
    """
    paths = [PurePosixPath(name) for name in names]
    shared = 0
    while (
        paths
        and all(len(path.parts) > shared + 1 for path in paths)
        and len({path.parts[shared] for path in paths}) == 1
    ):
        shared += 1
    places = _places({path.parts[shared:-1] for path in paths}, constant)
    repeated = Counter((places[path.parts[shared:-1]], _split_name(path.name)[0]) for path in paths)
    files = []
    for path in paths:
        folders = path.parts[shared:-1]
        place = places[folders]
        stem, suffix = _split_name(path.name)
        role, affix = affix_of(stem)
        # The same name in every patient's folder: the folder is the id.
        if "*" in place and repeated[place, stem] > 1 and not re.search(r"\d{2}|^\d+$", stem):
            affix = stem
        nearest = next((role for role in map(role_of_folder, reversed(place)) if role), None)
        # A folder of label maps may hold "img_01.png", and one of images "x_seg.png".
        if role in (None, IMAGE) and nearest not in (None, IMAGE):
            role, affix = nearest, ""
        elif role is None and nearest:
            role = nearest
        varying = tuple(name for name, part in zip(folders, place, strict=True) if part == "*")
        files.append(File(str(path), (*path.parts[:shared], *place), varying, stem, suffix, role, affix))
    return files


def _places(folders: set[tuple[str, ...]], constant: frozenset[str]) -> dict[tuple[str, ...], tuple[str, ...]]:
    """Folders -> the same with * for each name that differs from case to case."""
    places: dict[tuple[str, ...], tuple[str, ...]] = {parts: () for parts in folders}
    for depth in range(max(map(len, folders), default=0)):
        siblings: dict[tuple[str, ...], set[str]] = defaultdict(set)
        for parts, place in places.items():
            if len(parts) > depth:
                siblings[place].add(parts[depth])
        of_cases = {place: _names_of_cases(names) for place, names in siblings.items()}
        for parts, place in places.items():
            if len(parts) > depth:
                name = parts[depth]
                fixed = name not in of_cases[place] or (depth == 0 and name in constant)
                places[parts] = (*place, name if fixed else "*")
    return places


def _names_of_cases(names: set[str]) -> set[str]:
    """The folders beside one another that stand for cases: numbered ones, and those whose names say nothing else."""
    alike = Counter(re.sub(r"\d+", "#", name) for name in names)
    numbered = {name for name in names if re.search(r"\d", name) and alike[re.sub(r"\d+", "#", name)] >= 3}
    silent = {name for name in names if role_of_folder(name) is None and part_of_folders((name,)) is None}
    return numbered | (silent if len(silent) > 1 else set())


def kinds_of(files: Sequence[File]) -> list[Kind]:
    """Files of the same place and words; derived names, channels and suffixes that tell files apart count as words."""
    by_place: dict[tuple[str, ...], list[File]] = defaultdict(list)
    for file in files:
        by_place[file.place].append(file)
    groups: dict[tuple[str | None, tuple[str, ...], str, str], list[File]] = defaultdict(list)
    for place, members in by_place.items():
        others = {file.stem for other, found in by_place.items() if other != place for file in found}
        twins = Counter((file.varying, file.stem) for file in members)
        for file in _with_channels(_with_derived(members), others):
            twin = file.suffix if max(twins.values()) > 1 else ""
            groups[file.role, place, file.affix, twin].append(file)
    return [Kind(found) for found in groups.values()]


def _with_derived(members: list[File]) -> list[File]:
    """Names that begin with another image's id get the rest as their affix: "_lobes" of x_lobes beside x_ct or x."""
    bases = {(file.varying, file.stem) for file in members if file.role in (None, IMAGE)}
    bases |= {
        (file.varying, file.stem.removesuffix(file.affix).removeprefix(file.affix))
        for file in members
        if file.role == IMAGE and file.affix
    }
    done = []
    for file in members:
        # Another image's name says nothing; of two kinds of label maps, _lung_label and _liver_label, the whole end counts.
        telling = file.affix and (file.role in (None, IMAGE) or not file.stem.endswith(file.affix))
        words = [] if telling or file.affix == file.stem or file.role == IMAGE else words_of(file.stem)
        for index in range(len(words) - 1, 0, -1):
            start = words[index - 1].end()
            if (file.varying, file.stem[:start]) in bases and re.search(r"[^\W\d_]", file.stem[start:]):
                file = replace(file, affix=file.stem[start:])
                break
        done.append(file)
    return done


def _with_channels(members: list[File], others: set[str]) -> list[File]:
    """Complete sets of _0000, _0001, ... get that as their affix, unless files elsewhere have these very names."""
    sets: dict[tuple[tuple[str, ...], str], list[File]] = defaultdict(list)
    for file in members:
        if file.role in (None, IMAGE) and _CHANNEL.search(file.stem) and file.stem not in others:
            sets[file.varying, file.stem[:-5]].append(file)
    complete = [
        found
        for found in sets.values()
        if sorted(file.stem[-5:] for file in found) == [f"_{index:04d}" for index in range(len(found))]
    ]
    if not complete or max(map(len, complete)) > _MOST_CHANNELS:
        return members
    channels = {file.path for found in complete for file in found}
    return [replace(file, affix=file.stem[-5:]) if file.path in channels else file for file in members]


def _cuts(files: Sequence[File]) -> Iterator[Cut]:
    """Every way to read ids from the files that cuts off the same from all of them."""
    words = [words_of(file.stem) for file in files]
    folder_is_id = bool(files[0].varying) and len(files) > 1 and len({file.stem for file in files}) == 1
    for first in range(_MOST_FIRST + 1):
        for last in range(_MOST_LAST + 1):
            ends = {_ends(file.stem, found, first, last) for file, found in zip(files, words, strict=True)}
            (head, tail), *others = ends
            if others or head is None or tail is None:
                continue
            for with_folders in (True, False) if files[0].varying else (True,):
                cut = Cut(head, tail, with_folders, {})
                for file in files:
                    own, folders = cut.own(file), file.varying if with_folders else ()
                    parts = folders if folders and own in ("", folders[-1]) else (*folders, own)
                    cut.ids.setdefault("/".join(parts), file)
                if len(cut.ids) == len(files) and "" not in cut.ids and not (folder_is_id and cut.own(files[0])):
                    yield cut


def _ends(stem: str, words: Sequence[re.Match[str]], first: int, last: int) -> tuple[str | None, str | None]:
    """What is cut off with so many words at both ends; None if the name has fewer."""
    if first + last > len(words):
        return None, None
    if first + last == len(words):
        return ("", stem) if last else (stem, "")
    return stem[: words[first].start()] if first else "", stem[words[-last - 1].end() :] if last else ""
