"""How long scoring takes against merely reading the files, and the memory it needs.

Makes 40 pairs of label maps of 512 x 512 x 130 with two labels (lungs with ragged borders, gzipped NIfTI) and measures

1. reading: every pair, one after another, with nibabel in one process, and nothing more;
2. scoring: ``r2seg.evaluate`` in a fresh process, all count-based measures and volumes, labels found in the references;
   the peak memory of that process.

Run: ``python benchmarks/evaluate_speed.py [--cases 40] [--folder /tmp/evaluate_speed] [--repeats 3] [-o result.json]``.
The bar: scoring takes at most 1.5 times the reading, and 1.5 GB.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path

import nibabel
import numpy as np
from scipy.ndimage import gaussian_filter, zoom

SHAPE = (512, 512, 130)
AFFINE = np.diag([-0.7, -0.7, 2.5, 1.0])

SCORE = """
import json, resource, sys, time
start = time.perf_counter()
from pathlib import Path
from r2seg.evaluation.evaluate import evaluate
from r2seg.evaluation.options import EvaluationOptions
from r2seg.evaluation.summary import summarize
imported = time.perf_counter() - start
options = EvaluationOptions(workers=int(sys.argv[2]), device="cpu")
report = evaluate(Path(sys.argv[1]) / "predictions", Path(sys.argv[1]) / "references", options)
summary = summarize(report)
json.dump({
    "seconds": time.perf_counter() - start,
    "import_seconds": imported,
    "peak_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
    "dice": {label: found["measures"]["dice"]["mean"] for label, found in summary["methods"]["predictions"]["labels"].items()},
    "measures": list(report.measures),
    "cases": summary["num_cases"],
}, sys.stdout)
"""


def lungs(seed: int) -> np.ndarray:
    """Two ragged ellipsoids, labels 1 and 2.

    Shape: (X, Y, Z) uint8.
    """
    generator = np.random.default_rng(seed)
    noise = zoom(gaussian_filter(generator.normal(size=(64, 64, 33)), 1), (8, 8, 4), order=1)[:, :, : SHAPE[2]]
    x, y, z = np.ogrid[: SHAPE[0], : SHAPE[1], : SHAPE[2]]
    label = np.zeros(SHAPE, np.uint8)
    for index, centre in ((1, 160), (2, 350)):
        radius = ((x - centre) / 80) ** 2 + ((y - 256) / 120) ** 2 + ((z - 65) / 55) ** 2
        label[radius + noise < 1] = index
    return label


def make(folder: Path, num_cases: int) -> None:
    """Writes the pairs that are not there yet; the prediction differs from the reference by another noise at its border."""
    for kind, offset in (("references", 0), ("predictions", 1)):
        (folder / kind).mkdir(parents=True, exist_ok=True)
        shapes: list[np.ndarray] = []
        for index in range(num_cases):
            path = folder / kind / f"case_{index:03d}.nii.gz"
            if path.exists():
                continue
            if len(shapes) < 4:
                shapes.append(lungs(2 * len(shapes) + offset))
            array = np.roll(shapes[index % len(shapes)], index, axis=(0, 1))
            nibabel.save(nibabel.Nifti1Image(array, AFFINE), path)


def read(folder: Path) -> float:
    """Seconds that nibabel takes to read every pair."""
    start = time.perf_counter()
    for path in sorted((folder / "references").iterdir()):
        for file in (path, folder / "predictions" / path.name):
            np.asarray(nibabel.load(file).dataobj)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=40)
    parser.add_argument("--folder", type=Path, default=Path("/tmp/evaluate_speed"))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("-o", "--output", type=Path)
    arguments = parser.parse_args()

    make(arguments.folder, arguments.cases)
    read(arguments.folder)  # warms the page cache for both
    reading, scoring = [], []
    for _ in range(arguments.repeats):  # in turn, so that other work on the machine hits both
        reading.append(read(arguments.folder))
        command = [sys.executable, "-c", SCORE, str(arguments.folder), str(arguments.workers)]
        scoring.append(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
    seconds = [run["seconds"] for run in scoring]
    result = {
        "cases": arguments.cases,
        "workers": arguments.workers,
        "read_seconds": {"median": statistics.median(reading), "all": reading},
        "score_seconds": {"median": statistics.median(seconds), "all": seconds},
        "ratio": statistics.median(seconds) / statistics.median(reading),
        "import_seconds": statistics.median(run["import_seconds"] for run in scoring),
        "peak_gib": max(run["peak_gib"] for run in scoring),
        "measures": scoring[0]["measures"],
        "dice": scoring[0]["dice"],
        "python": platform.python_version(),
        "nibabel": nibabel.__version__,
    }
    text = json.dumps(result, indent=1)
    print(text)
    if arguments.output:
        arguments.output.write_text(text + "\n", "utf-8")


if __name__ == "__main__":
    main()
