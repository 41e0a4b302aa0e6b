"""Which prediction belongs to which reference: by name, never by order. No pixels are read here."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from r2seg.data.cases import Case, find_images, relative_stem
from r2seg.data.images import IMAGE_SUFFIXES
from r2seg.errors import UserError, some
from r2seg.evaluation.options import ID, EvaluationOptions
from r2seg.evaluation.results import Target

# Inference writes its probability maps into this subfolder of the output folder: they are not predictions themselves.
PROBABILITIES = "probabilities"


@dataclass(frozen=True)
class Pairing:
    """Predictions of one method, paired with targets.

    Attributes:
        folder: Where the predictions were looked for.
        files: Case id -> prediction.
        missing: Cases without a prediction.
        extra: Prediction files without a reference.
    """

    folder: Path
    files: Mapping[str, Path]
    missing: tuple[str, ...]
    extra: tuple[Path, ...]


def find_targets(
    references: Path | Sequence[Case], options: EvaluationOptions, *, without: Sequence[Path] = ()
) -> list[Target]:
    """The cases to score, sorted by id.

    Args:
        references: Folder of label maps, one label map, or the cases of a config.
        options: Name patterns, and folders of masks and images, which replace those that the cases know, as does ``group``.
        without: Folders that may lie inside and hold no references, such as the predictions'.

    Raises:
        UserError: Nothing is found, two files claim one case, or a case lacks its field of view or its patient.
    """
    if isinstance(references, Path):
        files = _by_id(references, options.reference_name, "reference", without)
        targets = [Target(case, case, path) for case, path in files.items()]
    else:
        unlabelled = [case.id for case in references if not case.labels]
        if unlabelled or not references:
            raise UserError(f"no reference for {some(unlabelled)}" if unlabelled else "no case to score")
        targets = [
            Target(
                case=case.id,
                group=case.group or case.id,
                reference=case.labels[0] if options.overlapping else case.reference,
                mask=case.mask,
                images=case.images,
                others=case.labels[1:] if options.overlapping else (),
            )
            for case in sorted(references, key=lambda case: case.id)
        ]
    first: dict[str, Target] = {}
    for target in targets:
        other = first.setdefault(target.case, target)
        if other is not target:
            raise UserError(f"{other.reference} and {target.reference} are both case {target.case!r}")

    masks: Mapping[str, Path | None] = {target.case: target.mask for target in targets}
    if options.masks is not None:
        masks = _by_id(options.masks, options.mask_name, "field of view")
        unmasked = [target.case for target in targets if target.case not in masks]
        if unmasked:
            held = some(sorted(masks), 2)
            raise UserError(
                f"{options.masks} has no field of view for {some(unmasked)}; it has {held}: see --mask-name"
            )
    images = {target.case: target.images for target in targets}
    if options.images is not None:
        found = _by_id(options.images, options.image_name, "image", without)
        images |= {case: (path,) for case, path in found.items()}
    return [
        Target(
            case=target.case,
            group=target.group if options.group is None else _patient(target.case, options.group),
            reference=target.reference,
            mask=masks[target.case],
            images=images[target.case],
            others=target.others,
        )
        for target in targets
    ]


def pair_predictions(predictions: Path, targets: Sequence[Target], *, prediction_name: str = ID) -> Pairing:
    """Pairs each target with the prediction of its name.

    A prediction belongs to the case whose id equals its path below the folder, without suffix; or, if the predictions were
    made from a folder further down, to the one case whose image ends with that path.

    Raises:
        UserError: There are no predictions, none has a partner, one could belong to two cases, or they are the references themselves.
    """
    files = _by_id(predictions, prediction_name, "prediction", skip=(PROBABILITIES,))
    if predictions.is_file():  # one file against one file: the names need not agree
        if len(targets) != 1:
            raise UserError(f"{predictions} is one file and there are {len(targets)} references: name one, or a folder")
        files = {targets[0].case: predictions}

    cases = {target.case for target in targets}
    tails = {stem: owners for stem in set(files) - cases if (owners := _owners(stem, targets))}
    paired: dict[str, Path] = {stem: path for stem, path in files.items() if stem in cases}
    for stem, owners in sorted(tails.items()):
        claimed = owners[0] in paired or any(owners == other for key, other in tails.items() if key != stem)
        if len(owners) > 1 or claimed:
            raise UserError(f"{files[stem]} could be the prediction of {some(owners)}: keep the images' subfolders")
        paired[owners[0]] = files[stem]

    if not paired:
        raise UserError(
            f"no prediction has the name of a reference: {predictions} holds {some(sorted(files), 2)}, "
            f"the references are {some(sorted(cases), 2)}; names must be equal up to the suffix, "
            "or describe how they differ with --reference-name '{id}_…'"
        )
    same = next((t for t in targets if t.case in paired and paired[t.case].resolve() == t.reference.resolve()), None)
    if same is not None:
        raise UserError(f"{same.reference} is given as prediction and as reference: a file always agrees with itself")
    used = set(paired.values())
    return Pairing(
        folder=predictions,
        files={target.case: paired[target.case] for target in targets if target.case in paired},
        missing=tuple(target.case for target in targets if target.case not in paired),
        extra=tuple(sorted(path for path in files.values() if path not in used)),
    )


def _by_id(
    folder: Path, name: str, what: str, without: Sequence[Path] = (), skip: Sequence[str] = ()
) -> dict[str, Path]:
    """Case id -> file, of every image below a folder whose name follows the pattern."""
    before, _, after = name.partition(ID)
    if folder.is_file():
        return {relative_stem(folder, folder.parent): folder}
    if not folder.is_dir():
        raise UserError(f"{folder}: there is no such folder of {what}s")
    others = [other.resolve() for other in without if other.resolve() != folder.resolve()]
    files = [
        path
        for path in find_images(folder)
        if path.relative_to(folder).parts[0] not in skip
        and not any(path.resolve().is_relative_to(other) for other in others)
    ]
    if not files:
        raise UserError(f"{folder} holds no {what}; known formats: {', '.join(IMAGE_SUFFIXES)}")
    pattern = re.compile(f"{re.escape(before)}(.+){re.escape(after)}")
    found: dict[str, Path] = {}
    for path in files:
        stem = PurePosixPath(relative_stem(path, folder))
        match = pattern.fullmatch(stem.name)
        if match is None:
            continue
        case = (stem.parent / match[1]).as_posix()
        if case in found:
            raise UserError(
                f"{found[case]} and {path} are both {what} of {case!r}: remove one or give the name pattern"
            )
        found[case] = path
    if not found:
        held = some([relative_stem(path, folder) for path in files], 2)
        raise UserError(f"no {what} in {folder} is named {name!r}: it holds {held}")
    return dict(sorted(found.items()))


def _owners(stem: str, targets: Sequence[Target]) -> list[str]:
    """Cases whose id or image ends with this path."""
    tail = PurePosixPath(stem).parts

    def ends(path: str) -> bool:
        return PurePosixPath(path).parts[-len(tail) :] == tail

    return [
        target.case
        for target in targets
        if ends(target.case) or any(ends(relative_stem(image, Path(image.anchor))) for image in target.images)
    ]


def _patient(case: str, pattern: str) -> str:
    match = re.search(pattern, case)
    if match is None or match[1] is None:
        raise UserError(f"--group {pattern!r} does not match the case {case!r}: fix the pattern, or omit the option")
    return match[1]
