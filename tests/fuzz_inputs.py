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
import struct
import subprocess
import sys
import tempfile
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import SimpleITK
import tifffile
from PIL import Image as Pillow

SECONDS = 30
MEMORY = 4 << 30
AFFINE = np.array([[0, 0, -2.0, 9], [0.8, 0, 0, -7], [0, 1.1, 0, 3], [0, 0, 0, 1]])


@dataclass(frozen=True)
class Valid:
    """A valid file: its name, how it is written, and how many of its bytes at the start are header.

    ``summed`` says whether a checksum covers all voxels.
    """

    name: str
    write: Callable[[Path, np.ndarray], Any]
    header: int
    dims: int = 3
    channels: int = 1
    dtype: str = "i2"
    summed: bool = False


def _nifti(path: Path, array: np.ndarray) -> None:
    kind = nibabel.Nifti1Pair if path.suffix == ".img" else nibabel.Nifti1Image
    nibabel.save(kind(array, AFFINE), path)


def _itk(compressed: bool) -> Callable[[Path, np.ndarray], None]:
    def write(path: Path, array: np.ndarray) -> None:
        image = SimpleITK.GetImageFromArray(array.T)
        image.SetSpacing([0.8, 1.1, 2.0])
        image.SetDirection([0, 1, 0, 0, 0, 1, 1, 0, 0])
        SimpleITK.WriteImage(image, str(path), useCompression=compressed)

    return write


def _pillow(path: Path, array: np.ndarray) -> None:
    plain = path.with_suffix("") if path.suffix == ".gz" else path
    picture = np.moveaxis(array, 0, -1) if array.ndim == 3 else array
    Pillow.fromarray(picture > 99 if ".pbm" in path.name else picture).save(plain)
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(plain.read_bytes()))
        plain.unlink()


def _tiff(compression: str | None) -> Callable[[Path, np.ndarray], None]:
    return lambda path, array: tifffile.imwrite(path, array, compression=compression)


def _palette(path: Path, array: np.ndarray) -> None:
    picture = Pillow.fromarray(array % 4)
    picture.putpalette(bytes(range(12)))
    picture.save(path)


VALID = [
    Valid("a.nii", _nifti, 352),
    Valid("a.nii.gz", _nifti, 20, summed=True),
    Valid("b.nii.gz", _nifti, 20, dtype="f4", summed=True),
    Valid("a.img", _nifti, 0),
    Valid("a.nrrd", _itk(True), 380, summed=True),
    Valid("b.nrrd", _itk(False), 380),
    Valid("a.mha", _itk(True), 380, summed=True),
    Valid("b.mha", _itk(False), 340, dtype="f4"),
    Valid("a.mhd", _itk(True), 380, summed=True),
    Valid("b.mhd", _itk(False), 340),
    Valid("a.png", _pillow, 60, 2, 1, "u1", summed=True),
    Valid("b.png", _pillow, 60, 2, 3, "u1", summed=True),
    Valid("c.png", _pillow, 60, 2, 1, "u2", summed=True),
    Valid("d.png", _palette, 90, 2, 3, "u1", summed=True),
    Valid("a.jpg", _pillow, 600, 2, 3, "u1"),
    Valid("a.tif", _tiff(None), 256, 2, 1, "u2"),
    Valid("b.tif", _tiff("zlib"), 256, 2, 1, "u1"),
    Valid("a.bmp", _pillow, 54, 2, 3, "u1"),
    Valid("a.gif", _pillow, 800, 2, 3, "u1"),
    Valid("a.ppm", _pillow, 13, 2, 3, "u1"),
    Valid("a.pgm", _pillow, 13, 2, 1, "u1"),
    Valid("a.pbm.gz", _pillow, 20, 2, 1, "u1", summed=True),
    Valid("b.pgm.gz", _pillow, 20, 2, 1, "u1", summed=True),
    Valid("a.npy", np.save, 128, 2, 1, "f4"),
    Valid("b.npy", np.save, 128, 2, 1, "i2"),
]


def voxels(valid: Valid, rng: np.random.Generator) -> np.ndarray:
    shape = ((valid.channels,) if valid.channels > 1 else ()) + ((9, 8, 7) if valid.dims == 3 else (21, 26))
    if valid.name in ("d.png", "a.gif"):
        shape = (21, 26)
    if valid.dtype == "f4":
        return rng.normal(0, 300, shape).astype("f4")
    return rng.integers(0, 250, shape).astype(valid.dtype)


# Damage: (file that holds the bytes, the valid file, its voxels, random numbers) -> whether the voxels must be those before.
# None: any right reading of the damaged file will do, for nothing in it could tell.
Damage = Callable[[Path, Valid, np.ndarray, np.random.Generator], bool | None]


def _changed(path: Path, change: Callable[[bytearray], Any]) -> None:
    content = bytearray(path.read_bytes())
    path.write_bytes(change(content) or content)


def _flip(content: bytearray, low: int, high: int, count: int, rng: np.random.Generator) -> None:
    for position in rng.integers(low, max(high, low + 1), count):
        content[min(int(position), len(content) - 1)] ^= int(rng.integers(1, 256))


def flip_anywhere(path: Path, valid: Valid, _: np.ndarray, rng: np.random.Generator) -> bool | None:
    """One byte of the voxels."""
    low = 0 if ".z" in path.suffix or path.suffix == ".raw" else min(valid.header, path.stat().st_size - 1)
    _changed(path, lambda content: _flip(content, low, len(content), 1, rng))
    return True if valid.summed else None


def flip_header(path: Path, valid: Valid, _: np.ndarray, rng: np.random.Generator) -> None:
    _changed(
        path, lambda content: _flip(content, 0, min(valid.header or 348, len(content)), int(rng.integers(1, 4)), rng)
    )


def truncate(path: Path, *rest: Any) -> bool:
    _changed(path, lambda content: content[: int(rest[-1].integers(1, len(content)))])
    return True


def append(path: Path, *rest: Any) -> bool:
    _changed(path, lambda content: content + rest[-1].bytes(int(rest[-1].integers(1, 900))))
    return True


def zero_block(path: Path, valid: Valid, _: np.ndarray, rng: np.random.Generator) -> bool | None:
    def change(content: bytearray) -> None:
        start = int(rng.integers(0, len(content)))
        stop = min(len(content), start + 60)
        content[start:stop] = bytes(stop - start)

    _changed(path, change)
    return None


def empty(path: Path, *_: Any) -> bool:
    path.write_bytes(b"")
    return True


def random_bytes(path: Path, *rest: Any) -> None:
    path.write_bytes(rest[-1].bytes(2000))


def text(path: Path, *_: Any) -> None:
    path.write_text("<html><body>404 Not Found</body></html>\n" * 9)


def foreign_header(path: Path, valid: Valid, array: np.ndarray, rng: np.random.Generator) -> None:
    """The beginning of another format's file, then this one's."""
    other = VALID[int(rng.integers(len(VALID)))]
    with tempfile.TemporaryDirectory() as folder:
        other.write(Path(folder) / other.name, voxels(other, rng))
        begin = (Path(folder) / other.name).read_bytes()[:100]
    _changed(path, lambda content: begin + content[100:])


def missing(path: Path, *_: Any) -> bool:
    path.unlink()
    path.symlink_to("nowhere")
    return True


def folder(path: Path, *_: Any) -> bool:
    path.unlink()
    path.mkdir()
    return True


def huge(path: Path, valid: Valid, array: np.ndarray, rng: np.random.Generator) -> None:
    """Sizes far beyond the file in its header."""
    big = int(rng.choice([20_000, 30_000]))
    header = path.with_suffix(".hdr") if path.suffix == ".img" else path

    def change(content: bytearray) -> bytearray | None:
        if path.name.endswith(".nii.gz"):
            inner = bytearray(gzip.decompress(content))
            inner[42:48] = struct.pack("<3h", big, big, big)
            return bytearray(gzip.compress(inner))
        if path.suffix in (".nii", ".img"):
            content[42:48] = struct.pack("<3h", big, big, big)
        elif path.suffix in (".nrrd", ".mha", ".mhd"):
            return bytearray(content.replace(b"9 8 7", b"%d %d %d" % (big, big, big)))
        elif path.suffix == ".png":
            content[16:24] = struct.pack(">2I", big, big)
            content[29:33] = struct.pack(">I", zlib.crc32(bytes(content[12:29])))
        elif path.suffix == ".bmp":
            content[18:26] = struct.pack("<2i", big, big)
        elif path.suffix == ".gif":
            content[6:10] = struct.pack("<2H", big, big)
        elif path.suffix in (".ppm", ".pgm"):
            return bytearray(content.replace(b"26 21", b"%d %d" % (big, big)))
        elif path.suffix == ".npy":
            return bytearray(content.replace(b"(21, 26), }" + b" " * 10, b"(%d, %d), }" % (big, big) + b" " * 4))
        elif path.suffix == ".tif":
            return bytearray(content.replace(struct.pack("<HHI", 256, 4, 1), struct.pack("<HHI", 256, 4, big), 1))
        return None

    _changed(header, change)


def not_finite(path: Path, valid: Valid, array: np.ndarray, rng: np.random.Generator) -> bool | None:
    if valid.dtype != "f4":
        return flip_header(path, valid, array, rng)
    broken = array.copy()
    broken.flat[int(rng.integers(broken.size))] = rng.choice([np.nan, np.inf, -np.inf])
    valid.write(path.with_name(valid.name), broken)
    return True


def odd_type(path: Path, valid: Valid, array: np.ndarray, rng: np.random.Generator) -> bool | None:
    """Another type or byte order, with the same voxels where it can hold them."""
    types = ["u1", "i4", "u8", "i8", "f8", ">i2", ">f4", ">f8", "c8", "?", "f2", "g", "U3", "O"]
    kind = np.dtype(types[int(rng.integers(len(types)))])
    other = array.astype(kind)
    target = path.with_name(valid.name)
    try:
        if path.suffix == ".npy":
            np.save(target, other, allow_pickle=True)
        elif path.name.endswith((".nii", ".nii.gz")):
            nibabel.save(nibabel.Nifti1Image(other, AFFINE), target)
        elif path.suffix == ".tif":
            tifffile.imwrite(target, other)
        elif path.suffix in (".nrrd", ".mha"):
            valid.write(target, other.astype(kind.newbyteorder("=")))
        else:
            return flip_header(path, valid, array, rng)
    except Exception:  # the format cannot hold it
        valid.write(target, array)
    return None


def odd_shape(path: Path, valid: Valid, array: np.ndarray, rng: np.random.Generator) -> None:
    """More or fewer axes, or none."""
    other = [array[None], array[..., None, None], array[:0], array[0], array.ravel()][int(rng.integers(5))]
    try:
        valid.write(path.with_name(valid.name), other)
    except Exception:  # the format cannot hold it
        valid.write(path.with_name(valid.name), array)


def wrong_suffix(path: Path, valid: Valid, array: np.ndarray, rng: np.random.Generator) -> None:
    """The content of another format under this name."""
    other = VALID[int(rng.integers(len(VALID)))]
    with tempfile.TemporaryDirectory() as folder:
        other.write(Path(folder) / other.name, voxels(other, rng))
        shutil.copy(Path(folder) / other.name, path)


def odd_name(path: Path, valid: Valid, array: np.ndarray, rng: np.random.Generator) -> bool:
    """Suffix in capitals, or a name that is not UTF-8."""
    stem, dot, suffix = valid.name.partition(".")
    name = rng.choice(
        [stem + dot + suffix.upper(), os.fsdecode(b"sc\xff\xfe.") + suffix, f"lunge [ü] {{0}} %s.{suffix}"]
    )
    path.with_name(valid.name).rename(path.with_name(str(name)))
    header = path.with_suffix(".hdr")
    if header.exists():
        header.rename(path.with_name(str(name)).with_suffix(".HDR" if str(name).isupper() else ".hdr"))
    return True


DAMAGES: list[Damage] = [
    flip_anywhere, flip_anywhere, flip_anywhere, flip_header, flip_header, flip_header, truncate, truncate, append, zero_block,
    empty, random_bytes, text, foreign_header, missing, folder, huge, huge, not_finite, odd_type, odd_type, odd_shape,
    wrong_suffix, odd_name,
]  # fmt: skip


@dataclass
class Result:
    """What became of an input: "error", "right", or "failure" with the reason."""

    index: int
    what: str
    outcome: str
    reason: str = ""
    seconds: float = 0.0
    notes: list[str] = field(default_factory=list)


def make_input(index: int, seed: int, place: Path) -> tuple[Path, Valid, np.ndarray, bool | None, str]:
    """The damaged file of an index, its valid file, voxels, whether these must be found, and what was done."""
    rng = np.random.default_rng([seed, index])
    valid = VALID[index % len(VALID)]
    damage = DAMAGES[int(rng.integers(len(DAMAGES)))]
    array = voxels(valid, rng)
    place.mkdir(parents=True)
    valid.write(place / valid.name, array)
    from r2seg.data.images import read_image

    before = read_image(place / valid.name).array.copy()
    data = next((path for path in place.iterdir() if "raw" in path.suffix.lower()), None)
    target = data if data and rng.random() < 0.5 and damage is not odd_name else place / valid.name
    must = damage(target, valid, array, rng)
    path = next(
        (p for p in sorted(place.iterdir()) if "raw" not in p.suffix.lower() and p.suffix.lower() != ".hdr"),
        place / valid.name,
    )
    return path, valid, before, must, f"{damage.__name__} of {target.name}"


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


def check(index: int, seed: int, place: Path, stderr: Path) -> Result:
    """One input through reading and a batch of two, in this process."""
    import torch
    from tiny import settings
    from torch import device, nn

    from r2seg.config import Config
    from r2seg.data.images import read_grid, read_image, read_label_map
    from r2seg.errors import UserError
    from r2seg.inference.batch import infer, plan_jobs
    from r2seg.inference.segmenter import Segmenter

    path, valid, before, must, what = make_input(index, seed, place / "in")
    result = Result(index, what, "error")
    begun = time.monotonic()
    stderr_from = stderr.stat().st_size

    good = place / "good" / valid.name
    good.parent.mkdir()
    valid.write(good, voxels(valid, np.random.default_rng(0)))

    class Threshold(nn.Module):
        def forward(self, image: Any) -> Any:
            return torch.cat([0.5 - image[:, :1], image[:, :1] - 0.5], 1)

    window = {"size": [16, 16], "plane": "axial" if valid.dims == 3 else None, "batch_size": 4}
    config = Config.model_validate(
        settings(Path("unused"), window=window, preprocessing={"intensity": {"kind": "percentile"}})
    )
    segmenter = Segmenter(Threshold(), config, in_channels=valid.channels, image_dims=valid.dims, device=device("cpu"))

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
