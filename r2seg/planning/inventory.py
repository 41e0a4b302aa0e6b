"""Which files of a folder are images, label maps, fields of view and second observers' labels, and which belong together.

By their names alone, whatever these are: words say what a file is (words.py), and files belong together if their names agree once a
beginning or an end that all files of a kind share is cut off. Nothing is read here; known data sets have layouts of their own.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

from r2seg.errors import UserError, counted, some
from r2seg.planning.naming import Cut, File, Kind, kinds_of, read_names
from r2seg.planning.words import IMAGE, LABEL, LEFT_OUT, MASK, MASK_OR_LABEL, OBSERVER, words_of

Peek = Callable[[str], bool]
# Images, labels, fields of view, a second observer.
_MOST_KINDS_OF_FOLDERS = 4


@dataclass(frozen=True)
class FoundCase:
    """The files of one case; paths are relative to the folder, with forward slashes.

    Attributes:
        id: Unique name.
        images: One file for each channel.
        label: Its label map.
        mask: Its field of view, or None.
        observers: Other people's label maps.
        group: The folder that stands for its patient, or None if no folder does.
        part: "train", "validation" or "test" if its folders say so, else None.
    """

    id: str
    images: tuple[str, ...]
    label: str
    mask: str | None = None
    observers: tuple[str, ...] = ()
    group: str | None = None
    part: str | None = None


@dataclass(frozen=True)
class Inventory:
    """What the names of files tell.

    Attributes:
        cases: The labelled cases, sorted by id.
        patterns: "image" (a list where there are several channels), "label", "mask" and "observers" (a list) as patterns with {id} and {group};
            None if one pattern for each does not describe the files.
        label_word: The word that told the label maps, such as "lungmask"; "" if a folder or the files' values did.
        evidence: How the files were told apart, one line each.
        doubts: What could be meant otherwise, one line each.
    """

    cases: tuple[FoundCase, ...]
    patterns: dict[str, str | list[str]] | None
    label_word: str
    evidence: tuple[str, ...]
    doubts: tuple[str, ...]


def take_inventory(names: Iterable[str], is_label_map: Peek | None = None) -> Inventory:
    """The cases among files, by their names.

    Args:
        names: Paths of image files relative to the folder, with forward slashes.
        is_label_map: Asked about one file of each kind if the names do not tell images from label maps.

    Raises:
        UserError: No images, no label maps, or none that belong together; the message lists what was found.
    """
    names = sorted(names)
    if not names:
        raise UserError("it holds no image in a known format")
    files = read_names(names)
    try:
        return _Inventory(kinds_of(files), is_label_map).result()
    except UserError as error:
        # Two folders with the same names in them, a/ and b/: not patients, but images and label maps.
        tops = frozenset(PurePosixPath(file.path).parts[0] for file in files if "/" in file.path)
        if 2 <= len(tops) <= _MOST_KINDS_OF_FOLDERS:
            with suppress(UserError):
                return _Inventory(kinds_of(read_names(names, constant=tops)), is_label_map).result()
        raise error


class _Inventory:
    """The kinds of files of a folder, matched to each other; what is noted on the way becomes evidence and doubts."""

    def __init__(self, kinds: Sequence[Kind], is_label_map: Peek | None) -> None:
        self.kinds = kinds
        self.is_label_map = is_label_map
        self.evidence: list[str] = []
        self.doubts: list[str] = []
        self.used: set[Kind] = set()
        self.cuts: dict[Kind, Cut] = {}

    def _of(self, *roles: str | None) -> list[Kind]:
        return [kind for kind in self.kinds if kind.role in roles]

    def result(self) -> Inventory:
        """The cases.

        Raises:
            UserError: There are none.
        """
        images, labels = self._images_and_labels()
        masks = [kind for kind in self._of(MASK, MASK_OR_LABEL) if kind not in labels]
        observers = self._of(OBSERVER)
        cases: list[FoundCase] = []
        # Images and labels of one part of the split belong together: train/ and test/ may both hold a 0.png.
        parts = sorted({kind.part or "" for kind in images})
        for part in parts if len(parts) > 1 else [""]:
            of_part = [kind for kind in images if len(parts) == 1 or (kind.part or "") == part]
            others = [
                [kind for kind in found if not part or kind.part in (None, part)]
                for found in (labels, masks, observers)
            ]
            found = self._cases_of(of_part, *others)
            cases += [replace(case, part=part or None) for case in found]
        times = Counter(case.id for case in cases)
        cases = [replace(case, id=f"{case.part}/{case.id}") if times[case.id] > 1 else case for case in cases]
        if not cases:
            raise UserError(
                f"no image and label map have the same name: images {some([str(kind) for kind in images], 3)}, label maps "
                f"{some([str(kind) for kind in labels], 3)}; rename them, or pair them in a table (data.files.table)"
            )
        for what, kinds in (
            ("images", images),
            ("label maps", labels),
            ("fields of view", masks),
            ("observers", observers),
        ):
            if taken := [kind for kind in kinds if kind in self.used]:
                reasons = some(sorted({kind.reason for kind in taken}), 3)
                self.evidence.append(f"{what}: {some([str(kind) for kind in taken], 4)}, {reasons}")
        for kind in self.kinds:
            text = f"{kind} ({counted(len(kind.files), 'file')}, such as {kind.files[0].path})"
            if kind.role == LEFT_OUT:
                self.evidence.append(f"left out by name: {text}")
            elif kind not in self.used:
                self.doubts.append(f"not used: {text}")
        words = [words_of(kind.affix) for kind in labels if kind in self.used]
        return Inventory(
            cases=tuple(sorted(cases, key=lambda case: case.id)),
            patterns=self._patterns(cases, images),
            label_word=next((found[-1][0] for found in words if found), ""),
            evidence=tuple(dict.fromkeys(self.evidence)),
            doubts=tuple(dict.fromkeys(self.doubts)),
        )

    def _images_and_labels(self) -> tuple[list[Kind], list[Kind]]:
        """The kinds that are images, and those that can be label maps."""
        unnamed, images, labels = self._of(None), self._of(IMAGE), self._of(LABEL)
        either = self._of(MASK_OR_LABEL)
        if labels and either:
            self.doubts.append(
                f"{some([str(kind) for kind in either], 3)}: taken as fields of view, because {labels[0]} are label maps; "
                "if they are labels, name them in data.files"
            )
        labels = labels or either
        if labels and not images:
            images = [kind for kind in unnamed if not kind.affix] or unnamed
        if labels and images:
            return images, labels
        if labels:
            raise UserError(
                f"all files are label maps by their names: {some([str(kind) for kind in labels], 3)}; give the folder that also "
                "holds the images"
            )
        if images and len(unnamed) == 1 and self.is_label_map is None:
            self.doubts.append(f"{unnamed[0]}: taken as label maps, because nothing else can be")
            return images, unnamed
        told = {kind for kind in [*images, *unnamed] if self.is_label_map and self.is_label_map(kind.files[0].path)}
        labels = [kind for kind in unnamed if kind in told] or [kind for kind in images if kind in told]
        images = [kind for kind in (images or unnamed) if kind not in told]
        shown = some([str(kind) for kind in labels], 4)
        if labels and images:
            self.evidence.append(f"{shown}: label maps by the values in their files, not by name")
            if len(labels) > 1:
                self.doubts.append(f"the names do not say which files are the label maps: {shown}")
            return images, labels
        raise UserError(
            f"the names do not say which files are label maps: {some([str(kind) for kind in self.kinds], 4)}; name them in "
            "data.files of a config, such as {image: '{id}.png', label: '{id}_mask.png'}"
        )

    def _match(self, images: list[Kind], others: list[Kind]) -> list[Kind]:
        """Chooses the cut of each kind with which most files find their partners; returns the images that find some."""
        matched = []
        for kind in images:
            scored = [
                (
                    sum(
                        max((len(cut.ids.keys() & each.ids.keys()) for each in other.cuts), default=0)
                        for other in others
                    ),
                    cut,
                )
                for cut in kind.cuts
            ]
            if found := [entry for entry in scored if entry[0] > 0]:
                self.cuts[kind] = min(found, key=lambda entry: (-entry[0], entry[1].cost))[1]
                matched.append(kind)
        ids = {key for kind in matched for key in self.cuts[kind].ids}
        for kind in others:
            best = min(kind.cuts, key=lambda cut: (-len(cut.ids.keys() & ids), cut.cost), default=None)
            if best is not None and best.ids.keys() & ids:
                self.cuts[kind] = best
        return matched

    def _cases_of(
        self, images: list[Kind], labels: list[Kind], masks: list[Kind], observers: list[Kind]
    ) -> list[FoundCase]:
        """The cases of these images."""
        images = self._match(images, [*labels, *masks, *observers])
        channels = self._channels(images)
        most = max(map(len, channels.values()), default=0)
        if partial := sorted(key for key, found in channels.items() if len(found) < most):
            self.doubts.append(f"left out, because they have fewer than {most} channels: {some(partial)}")
        complete = {key for key, found in channels.items() if len(found) == most}
        label_of = self._one_each(labels, complete, "label map")
        mask_of = self._one_each(masks, complete, "field of view")
        if mask_of and (lost := sorted(set(label_of) - set(mask_of))):
            self.doubts.append(f"without a field of view, so that the whole image counts: {some(lost)}")
        if lost := sorted(complete - set(label_of)):
            first = some([channels[key][0].path for key in lost])
            self.doubts.append(f"{counted(len(lost), 'image')} without a label map, not used: {first}")
        drawn: dict[str, list[str]] = defaultdict(list)
        for kind in observers:
            for key, file in self.cuts[kind].ids.items() if kind in self.cuts else ():
                drawn[key].append(file.path)
                self.used.add(kind)
        cases = []
        for key in sorted(label_of):
            first_file = channels[key][0]
            group = first_file.varying[0] if first_file.varying and first_file.varying[0] != key else None
            mask = mask_of[key].path if key in mask_of else None
            paths = tuple(file.path for file in channels[key])
            cases.append(FoundCase(key, paths, label_of[key].path, mask, tuple(drawn[key]), group))
        return cases

    def _channels(self, images: list[Kind]) -> dict[str, list[File]]:
        """Id -> the files of its channels, in order; one file where it has one."""
        channels: dict[str, list[File]] = defaultdict(list)
        first_kind: dict[str, Kind] = {}
        for kind in sorted(images, key=lambda kind: kind.order):
            for key, file in self.cuts[kind].ids.items():
                first = first_kind.setdefault(key, kind)
                if first is not kind and not (kind.is_channel and first.is_channel and kind.place == first.place):
                    self.doubts.append(f"two candidates for the image: {first}, which is taken, and {kind}")
                    continue
                channels[key].append(file)
                self.used.add(kind)
        return channels

    def _one_each(self, kinds: list[Kind], wanted: set[str], what: str) -> dict[str, File]:
        """Id -> its file; where two kinds have one, the first is taken, and both are told."""
        found: dict[str, File] = {}
        taken: dict[str, Kind] = {}
        ranked = [kind for kind in kinds if kind in self.cuts]
        for kind in sorted(ranked, key=lambda kind: -len(self.cuts[kind].ids.keys() & wanted)):
            for key in sorted(self.cuts[kind].ids.keys() & wanted):
                if key in found:
                    self.doubts.append(f"two candidates for the {what}: {taken[key]}, which is taken, and {kind}")
                    continue
                found[key], taken[key] = self.cuts[kind].ids[key], kind
                self.used.add(kind)
        return found

    def _patterns(self, cases: Sequence[FoundCase], images: list[Kind]) -> dict[str, str | list[str]] | None:
        """One pattern for each role, if that describes exactly these cases."""
        label_files = {case.label for case in cases}
        mask_files = {case.mask for case in cases}
        found: dict[str, list[str]] = {"image": [], "label": [], "mask": [], "observers": []}
        for kind in sorted(self.used, key=lambda kind: kind.order):
            files = {file.path for file in kind.files}
            role = "label" if files & label_files else "mask" if files & mask_files else "observers"
            pattern = _pattern(kind, self.cuts[kind])
            if pattern is None:
                return None
            found["image" if kind in images else role].append(pattern)
        alike = len(found["label"]) == 1 and len(found["mask"]) <= 1 and len(found["image"]) == len(cases[0].images)
        if not alike or any(case.part for case in cases):
            return None
        return {
            role: texts[0] if len(texts) == 1 and role != "observers" else texts
            for role, texts in found.items()
            if texts
        }


def _pattern(kind: Kind, cut: Cut) -> str | None:
    """The kind's files as a pattern with {id} and {group}, or None if one cannot describe them."""
    suffixes = {PurePosixPath(file.path).name[len(file.stem) :] for file in kind.files}
    stars = kind.place.count("*")
    own = {cut.own(file) for file in kind.files}
    folder_is_id = stars > 0 and all(cut.own(file) in ("", file.varying[-1]) for file in kind.files)
    placeholders = (
        (["{id}"] if folder_is_id else [])
        if stars <= folder_is_id
        else ["{group}", *(["{id}"] if folder_is_id else [])]
    )
    if (
        len(suffixes) != 1
        or len(placeholders) != stars
        or any(set("{}") & set(text) for text in (*kind.place, cut.head, cut.tail))
    ):
        return None
    folders = [placeholders.pop(0) if name == "*" else name for name in kind.place]
    return "/".join([*folders, f"{cut.head}{'' if own == {''} else '{id}'}{cut.tail}{suffixes.pop()}"])
