"""Damaged and odd image files of all formats, seeded: each gives a clear line that names it, or a right answer.

    python tests/fuzz_inputs.py --count 500 --seed 0

makes small valid files, damages each copy in one way, and segments it in a batch together with a valid file, in a process of its own
with 4 GB of memory and a time limit per input. What is a right answer comes from outside: the voxels before the damage, or what another
reader makes of the damaged file where the format has no checksum that could tell. `test_fuzz_inputs.py` runs 50 of them.
"""

from __future__ import annotations

import argparse
import collections
import gzip
import json
import logging
import os
import queue
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import SimpleITK
import tifffile
from fuzz_files import Valid, make_input, voxels
from PIL import Image as Pillow

SECONDS = 30
MEMORY = 4 << 30


@dataclass
class Result:
    """What became of an input: "error", "right", or "failure" with the reason."""

    index: int
    what: str
    outcome: str
    reason: str = ""
    seconds: float = 0.0
    notes: list[str] = field(default_factory=list)


@contextmanager
def silent() -> Iterator[None]:
    """What the other reader says is not of interest."""
    logging.disable(logging.CRITICAL)
    kept = os.dup(2)
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        logging.disable(logging.NOTSET)


def other_reading(path: Path) -> np.ndarray | None:
    """What another reader makes of a damaged file, (C, *S); None if it cannot."""
    with silent():
        return _other_reading(path)


def _other_reading(path: Path) -> np.ndarray | None:
    name = path.name.lower()
    try:
        if name.endswith((".nii", ".nii.gz", ".img")):
            array = np.asarray(nibabel.load(path).dataobj)
            if array.dtype.names:
                return np.stack([array[channel] for channel in array.dtype.names])
            return np.moveaxis(array, -1, 0) if array.ndim == 4 else array[None]
        if name.endswith((".nrrd", ".mha", ".mhd")):
            reader = SimpleITK.ImageFileReader()
            reader.SetFileName(str(path))
            reader.SetImageIO("NrrdImageIO" if name.endswith(".nrrd") else "MetaImageIO")
            image = reader.Execute()
            array = SimpleITK.GetArrayFromImage(image)
            if image.GetNumberOfComponentsPerPixel() > 1:
                return np.moveaxis(array, -1, 0).swapaxes(1, -1)
            return np.moveaxis(array.T, -1, 0) if array.ndim == 4 else array.T[None]
        if name.endswith(".npy"):
            array = np.load(path)
        elif name.endswith(".dcm"):
            array = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(path), imageIO="GDCMImageIO"))[0]
        elif name.endswith(".tif"):
            with tifffile.TiffFile(path) as file:
                array = file.asarray()
                array = ~array if file.pages[0].photometric == 0 and array.dtype.kind in "bu" else array  # white is 0
        else:
            content = path.read_bytes()
            with Pillow.open(BytesIO(gzip.decompress(content) if name.endswith(".gz") else content)) as picture:
                array = np.asarray(picture.convert("RGB") if picture.mode in ("P", "PA") else picture)
        return array[None] if array.ndim == 2 else np.moveaxis(array, -1, 0)
    except Exception:
        return None


def same(first: np.ndarray, second: np.ndarray | None) -> bool:
    return (
        second is not None
        and first.shape == second.shape
        and np.array_equal(np.asarray(first, np.float64), np.asarray(second, np.float64).astype(first.dtype))
    )


def tiny_segmenter(valid: Valid) -> Any:
    """A segmenter for images of a valid file's kind, without training."""
    import torch
    from tiny import settings

    from r2seg.config import Config
    from r2seg.inference.segmenter import Segmenter

    class Threshold(torch.nn.Module):
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return torch.cat([0.5 - image[:, :1], image[:, :1] - 0.5], 1)

    window = {"size": [16, 16], "plane": "axial" if valid.dims == 3 else None, "batch_size": 4}
    changes = {"window": window, "preprocessing": {"intensity": {"kind": "percentile"}}}
    config = Config.model_validate(settings(Path("unused"), **changes))
    device = torch.device("cpu")
    return Segmenter(Threshold(), config, in_channels=valid.channels, image_dims=valid.dims, device=device)


def check(index: int, seed: int, place: Path, stderr: Path) -> Result:
    """One input through reading and a batch of two, in this process."""
    from r2seg.data.images import read_grid, read_image, read_label_map
    from r2seg.errors import UserError
    from r2seg.inference.batch import infer, plan_jobs

    path, valid, before, must, what = make_input(index, seed, place / "in")
    result = Result(index, what, "error")
    begun = time.monotonic()
    stderr_from = stderr.stat().st_size

    good = place / "good" / valid.name
    good.parent.mkdir()
    valid.write(good, voxels(valid, np.random.default_rng(0)))

    segmenter = tiny_segmenter(valid)

    def fail(reason: str) -> None:
        result.outcome, result.reason = "failure", f"{result.reason}; {reason}".strip("; ")

    def is_clear(error: str) -> None:
        result.notes.append(error)
        if "\n" in error or path.name not in error or "does not fit into memory" in error or "unexpected" in error:
            fail(f"unclear: {error[:300]}")

    try:
        found = read_image(path)
    except UserError as error:
        is_clear(str(error))
        found = None
    if found is not None:
        result.outcome = "right"
        if not same(found.array, before) and (must or not same(found.array, other_reading(path))):
            fail(f"wrong voxels {found.array.shape} {found.array.dtype}")
    try:
        read_label_map(path, {"a": 1})
    except UserError as error:
        is_clear(str(error))

    try:
        jobs = plan_jobs([path, good], place / "out", valid.channels)
    except UserError as error:
        if "would both be written" not in str(error):
            is_clear(str(error))
        jobs = plan_jobs([path], place / "out/a", valid.channels) if path.is_file() else []
        jobs += plan_jobs([good], place / "out/b", valid.channels)
    outcomes = infer(segmenter, jobs)
    if outcomes[-1].error:
        fail(f"the good file failed: {outcomes[-1].error}")
    expected = {job.output for job, outcome in zip(jobs, outcomes, strict=True) if outcome.error is None}
    written = {
        p
        for p in (place / "out").rglob("*")
        if p.is_file() and "raw" not in p.suffix.lower() and p.suffix.lower() != ".hdr"
    }
    if written != expected:
        fail(f"written {sorted(map(str, written))}, reported {sorted(map(str, expected))}")
    for outcome in outcomes[:-1]:
        if outcome.error:
            message = outcome.error if path.name in outcome.error else f"{path.name}: {outcome.error}"
            is_clear(message)
        elif found is None:
            fail("segmented, but cannot be read")
        else:
            mask, grid = read_label_map(outcome.job.output, {"ball": 1}), read_grid(outcome.job.output)
            if mask.shape != found.shape or (
                found.affine is not None and not np.allclose(grid.affine, found.affine, atol=1e-3)
            ):
                fail("wrong grid")
            if not np.array_equal(mask.array[0] > 0, segmenter.segment(found).indices > 0):
                fail("another mask than that of the voxels in memory")
    result.seconds = time.monotonic() - begun
    for line in stderr.read_bytes()[stderr_from:].decode("utf-8", "replace").splitlines():
        if line.strip() and str(place).encode("utf-8", "replace").decode() not in line:
            fail(f"a line without the file's name on standard error: {line[:200]}")
    return result


def worker(seed: int, root: Path) -> None:
    """Reads indices from standard input and writes a line of JSON for each."""
    import resource
    import traceback

    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
    import torch

    torch.set_num_threads(1)
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    stderr = root / f"stderr-{os.getpid()}"
    out = os.fdopen(os.dup(1), "w")
    with open(stderr, "wb") as file:
        os.dup2(file.fileno(), 2)
        os.dup2(file.fileno(), 1)
    sys.stderr.reconfigure(errors="backslashreplace")  # type: ignore[attr-defined]
    for line in sys.stdin:
        index = int(line)
        place = root / f"input-{index}"
        try:
            result = check(index, seed, place, stderr)
        except BaseException:
            result = Result(index, "?", "failure", f"traceback: {traceback.format_exc()[-1500:]}")
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        if memory > MEMORY:
            result = Result(index, result.what, "failure", f"{memory >> 20} MB of memory")
        out.write(json.dumps(asdict(result)) + "\n")
        out.flush()
        if result.outcome != "failure":
            shutil.rmtree(place, ignore_errors=True)


def run(count: int, seed: int, root: Path, seconds: float = SECONDS) -> list[Result]:
    """The inputs 0 to ``count``, one after the other; a process that hangs or dies is replaced."""
    results: list[Result] = []
    process: subprocess.Popen[str] | None = None
    answers: queue.Queue[str] = queue.Queue()
    for index in range(count):
        fresh = process is None
        if process is None:
            process, answers = _start_worker(seed, root)
        assert process.stdin is not None
        process.stdin.write(f"{index}\n")
        process.stdin.flush()
        try:
            line = answers.get(timeout=seconds + (90 if fresh else 0))
            reason = "" if line else f"the process died with status {process.wait()}"
        except queue.Empty:
            line, reason = "", f"no answer in {seconds} s"
        if line:
            results.append(Result(**json.loads(line)))
        else:
            process.kill()
            process.wait()
            process = None
            results.append(Result(index, "?", "failure", reason))
    if process is not None and process.stdin is not None:
        process.stdin.close()
        process.wait()
    return results


def _start_worker(seed: int, root: Path) -> tuple[subprocess.Popen[str], queue.Queue[str]]:
    """A process that checks inputs, and its answers: lines, then an empty one when it has ended."""
    command = [sys.executable, __file__, "--worker", str(root), "--seed", str(seed)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    answers: queue.Queue[str] = queue.Queue()

    def listen() -> None:
        assert process.stdout is not None
        for line in process.stdout:
            answers.put(line)
        answers.put("")

    threading.Thread(target=listen, daemon=True).start()
    return process, answers


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--verbose", action="store_true", help="print what was said of each input")
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker:
        worker(given.seed, given.worker)
        return
    root = Path(tempfile.mkdtemp(prefix="fuzz-"))
    begun = time.monotonic()
    results = run(given.count, given.seed, root)
    for result in results:
        if result.outcome == "failure" or given.verbose:
            print(
                f"[{result.index}] {result.outcome}: {result.what}: {result.reason} {result.notes[:1] if given.verbose else ''}"
            )
    counts = collections.Counter(result.outcome for result in results)
    slowest = max(result.seconds for result in results)
    print(
        f"{len(results)} inputs (seed {given.seed}): {counts['error']} clear errors, {counts['right']} right answers, "
        f"{counts['failure']} failures; {time.monotonic() - begun:.0f} s, the slowest {slowest:.1f} s"
    )
    if counts["failure"]:
        print(f"the failing inputs are kept in {root}")
        sys.exit(1)
    shutil.rmtree(root)


if __name__ == "__main__":
    main()
