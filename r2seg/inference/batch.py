"""Many inputs through one Segmenter: which files are one case, where each output goes, and what is reported when a case fails."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from r2seg.data.cases import Case, find_images, join_channels, no_image_in
from r2seg.data.formats.dicom_files import holds_slices, is_dicom_label
from r2seg.data.images import SeriesChoice, files_of, output_name, probabilities_path, split_suffix
from r2seg.errors import UserError, counted, some
from r2seg.files import why_not_writable
from r2seg.inference.segmenter import Found, Segmenter

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Job:
    """One case to segment.

    Attributes:
        images: One file (or folder with a DICOM series), or one per channel.
        output: Label map to write.
        probabilities: Probability map to write if requested.
        mask: File of the field of view, if the case has one.
        series: Numbers or UIDs of DICOM series, which choose in folders that hold several.
    """

    images: tuple[Path, ...]
    output: Path
    probabilities: Path
    mask: Path | None = None
    series: SeriesChoice = ()


@dataclass(frozen=True)
class Outcome:
    """A finished job: its label map has been written, or ``error`` says why not.

    Attributes:
        job: What was to be done.
        error: Why there is no label map.
        found: How much of each label was found.
        warnings: What may make the label map wrong.
    """

    job: Job
    error: str | None = None
    found: Mapping[str, Found] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


def plan_jobs(
    inputs: Sequence[str | os.PathLike[str]],
    output: str | os.PathLike[str],
    in_channels: int,
    *,
    probabilities: bool = False,
    protected: Sequence[Path] = (),
    series: SeriesChoice = (),
) -> list[Job]:
    """The jobs for files and folders of images.

    Folders are searched with their subfolders, and relative paths are kept. A folder with the slices of a DICOM series is one image. Files in
    an output folder inside an input folder are not inputs, and a case that is named twice is one. Files that differ only in ``_0000``,
    ``_0001`` … are one case if there are as many as the run has channels.

    Args:
        inputs: Files and folders.
        output: A folder, or, for a single case, a file with an image suffix.
        in_channels: Channels the run was trained on.
        probabilities: Whether probability maps are written too.
        protected: Folders that no output may be written to, such as that of the reference labels.
        series: Numbers or UIDs of DICOM series, which choose in folders that hold several.

    Raises:
        UserError: An input is missing or not an image, an output would overwrite an input, two cases have the same output, or
            the output cannot be written.
    """
    output = Path(output)
    single = bool(split_suffix(output)[1]) and not output.is_dir()
    jobs: list[Job] = []
    for given in map(Path, inputs):
        if not given.exists():
            raise UserError(f"{given}: no such file or folder")
        if given.is_dir():
            # An output folder that contains the inputs, such as ".", does not hold earlier outputs alone.
            earlier = output.resolve() if given.resolve() in output.resolve().parents else None
            inside = [path for path in find_images(given) if not (earlier and path.resolve().is_relative_to(earlier))]
            root = given
            if holds_slices(given):
                inside, root = [given, *inside], given.parent
            inside = _without_labels(inside)
            if not inside:
                raise UserError(no_image_in(given))
        else:
            inside, root = [given], given.parent
        for images in _cases_of(inside, root, in_channels):
            name = output_name(images[0])
            target = output if single else output / images[0].parent.relative_to(root) / name
            below = target.relative_to(output.parent if single else output)
            probable = probabilities_path((output.parent if single else output) / "probabilities" / below)
            jobs.append(Job(images, target, probable, series=tuple(series)))
    jobs = _without_parts_of_sets(list(dict.fromkeys(jobs)), in_channels, output if single else None)
    if single and len(jobs) > 1:
        raise UserError(f"-o {output} is one file, but there are {len(jobs)} cases: name a folder")
    if output.exists() and not single and not output.is_dir():
        raise UserError(f"-o {output} is a file without an image suffix: name a folder")
    _refuse_collisions(jobs, probabilities=probabilities, protected=protected)
    return jobs


def plan_case_jobs(
    cases: Sequence[Case],
    output: str | os.PathLike[str],
    *,
    probabilities: bool = False,
    protected: Sequence[Path] = (),
    series: SeriesChoice = (),
) -> list[Job]:
    """The jobs for the cases of a data set: label maps are named by case id, so that they pair with their references."""
    output = Path(output)
    if output.exists() and not output.is_dir():
        raise UserError(f"-o {output} is a file: name a folder")
    jobs = []
    for case in cases:
        suffix = split_suffix(output_name(case.images[0]))[1]
        probable = probabilities_path(output / "probabilities" / f"{case.id}{suffix}")
        jobs.append(Job(case.images, output / f"{case.id}{suffix}", probable, case.mask, tuple(series)))
    _refuse_collisions(jobs, probabilities=probabilities, protected=protected)
    return jobs


def _without_labels(paths: Sequence[Path]) -> list[Path]:
    """The paths that may be images: exports of a patient hold RTSTRUCT and DICOM-SEG next to the series."""
    labels = [path for path in paths if is_dicom_label(path)]
    if labels:
        logger.warning(
            "%s left out, which hold labels (RTSTRUCT, DICOM-SEG): %s", counted(len(labels), "input"), some(labels)
        )
    return [path for path in paths if path not in labels]


def _cases_of(files: Iterable[Path], root: Path, in_channels: int) -> list[tuple[Path, ...]]:
    files = list(files)
    sets = [channels for channels in join_channels(files, root).values() if len(channels) == in_channels > 1]
    taken = {path for channels in sets for path in channels}
    return sorted([*sets, *((path,) for path in files if path not in taken)])


def _without_parts_of_sets(jobs: list[Job], in_channels: int, single: Path | None) -> list[Job]:
    """The jobs, with channels of one case that were named one by one joined into one job."""
    loose = {job.images[0]: job for job in jobs if len(job.images) == 1}
    for folder in {path.parent for path in loose}:
        members = [path for path in loose if path.parent == folder]
        for channels in join_channels(members, folder).values():
            if len(channels) == in_channels > 1:
                first = loose[channels[0]]
                jobs = [job for job in jobs if job.images[0] not in channels]
                jobs.append(replace(first, images=channels, output=single or first.output))
    return jobs


def _refuse_collisions(jobs: Sequence[Job], *, probabilities: bool, protected: Sequence[Path]) -> None:
    """Fails before the first case is segmented if an output could not be written, or would overwrite something."""
    sources = {path.resolve() for job in jobs for path in job.images}
    kept_free = [folder.resolve() for folder in protected]
    targets: dict[Path, Job] = {}
    places: set[Path] = set()
    for job in jobs:
        wanted = (job.output, job.probabilities) if probabilities else (job.output,)
        for path in (file for one in wanted for file in files_of(one)):
            key = path.resolve()
            if key in sources:
                raise UserError(f"{path} is an input and would be overwritten: name another folder with -o")
            if any(key.is_relative_to(folder) for folder in kept_free):
                raise UserError(f"{path} is in the folder of the run's reference labels: name another folder with -o")
            other = targets.setdefault(key, job)
            if other is not job:
                raise UserError(
                    f"{other.images[0]} and {job.images[0]} would both be written to {path}: "
                    "name their common folder as the input, or run them one by one"
                )
            if (
                path not in wanted
                and path.exists()
                and not any(one.exists() for one in wanted if path in files_of(one))
            ):
                raise UserError(
                    f"{path} exists, belongs to another file and would be overwritten: name another folder with -o"
                )
            if key.is_dir():
                raise UserError(f"{path} is a folder: name another folder with -o, or remove it")
            places.add(next(folder for folder in key.parents if folder.exists()))
    for place in sorted(places):
        reason = why_not_writable(place) if place.is_dir() else "it is not a folder"
        if reason is not None:
            path = next(path for path in targets if place in path.parents)
            raise UserError(f"{path} cannot be written to {place}: {reason}; name another folder with -o")


def infer(
    segmenter: Segmenter,
    jobs: Sequence[Job],
    *,
    probabilities: bool = False,
    on_progress: Callable[[Job, float], None] | None = None,
    on_outcome: Callable[[Outcome], None] | None = None,
) -> list[Outcome]:
    """Segments every case and writes it; a case that fails is reported, and the others continue.

    Args:
        segmenter: The run's segmenter.
        jobs: From ``plan_jobs`` or ``plan_case_jobs``.
        probabilities: Also write probability maps.
        on_progress: Called with a job and the fraction of it that is done.
        on_outcome: Called after each case.
    """
    outcomes = []
    for job in jobs:
        try:
            segmentation = segmenter.segment(
                job.images,
                series=job.series,
                mask=job.mask,
                probabilities=probabilities,
                on_slab=(lambda share, job=job: on_progress(job, share)) if on_progress else None,
            )
            job.output.parent.mkdir(parents=True, exist_ok=True)
            segmentation.write(job.output)
            if probabilities:
                segmentation.write_probabilities(job.probabilities)
            outcome = Outcome(job, None, segmentation.found, segmentation.warnings)
        except (UserError, OSError, MemoryError) as error:
            outcome = Outcome(job, " ".join(str(error).split()) or type(error).__name__)
        except Exception as error:  # nothing but an interruption ends a batch
            # torch's RuntimeErrors (out of device memory, an unsupported size) say what happened in their first line.
            reason = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
            known = isinstance(error, RuntimeError) and reason
            outcome = Outcome(job, reason if known else f"unexpected {type(error).__name__}: {reason}")
            logger.debug("%s", job.images[0], exc_info=error)
        outcomes.append(outcome)
        if on_outcome:
            on_outcome(outcome)
    return outcomes
