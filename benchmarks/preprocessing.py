"""How long the preprocessing of a training's cases takes with one core and with two, and the memory it needs.

Makes 8 CT-like volumes of 512 x 512 x 130 with two labels (gzipped NIfTI) and measures ``cache_cases``, which reads each case, resamples
image and label, and writes the cache. Each measurement is a fresh process, limited to its cores as ``taskset`` would; the contenders take
turns, so that other work on the machine affects both. What the workers waited for a core while other programs had it (Linux's schedstat, mean
over the workers) is subtracted in ``undisturbed_seconds``. The memory is that of the process and its children.

Run: ``python benchmarks/preprocessing.py [--cases 8] [--cores 1 2] [--spacing 1 1 2] [--repeats 3] [--json result.json]``.
The bar: two cores at least 1.7 times as fast as one, and 3 GB at most.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

import nibabel
import numpy as np
import torch

SHAPE = (512, 512, 130)
AFFINE = np.diag([-0.7, -0.7, 2.5, 1.0])

PREPARE = """
import json, os, sys, time
from pathlib import Path
os.sched_setaffinity(0, list(os.sched_getaffinity(0))[: int(sys.argv[1])])
from r2seg.config import Config
from r2seg.data.cache import cache_cases
from r2seg.data.layouts import find_cases
import r2seg.training.train  # as in a training, which has loaded its libraries before
config = Config.model_validate(json.loads(sys.argv[2]))
cases = find_cases(config.data)
waited = {}
def note(case=None):
    for task in Path("/proc/self/task").iterdir():
        waited[task.name] = int((task / "schedstat").read_text().split()[1]) / 1e9
note()
before = dict(waited)
start, used = time.perf_counter(), time.process_time()
cache_cases(cases, config, Path(sys.argv[3]), note)
seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - used
waiting = sum(waited[name] - before.get(name, 0) for name in waited) / int(sys.argv[1])
print(json.dumps({"seconds": seconds, "cpu_seconds": cpu_seconds, "waiting": waiting}))
"""


def make(folder: Path, num_cases: int) -> None:
    """Writes the cases that are not there yet: noise, with two ellipsoids of lung density and their labels."""
    for kind in ("images", "labels"):
        (folder / kind).mkdir(parents=True, exist_ok=True)
    x, y, z = np.ogrid[: SHAPE[0], : SHAPE[1], : SHAPE[2]]
    for index in range(num_cases):
        image, label = (folder / kind / f"case_{index}.nii.gz" for kind in ("images", "labels"))
        if image.exists() and label.exists():
            continue
        indices = np.zeros(SHAPE, np.uint8)
        for value, centre in ((1, 160 + 3 * index), (2, 350 - 3 * index)):
            indices[((x - centre) / 80) ** 2 + ((y - 256) / 120) ** 2 + ((z - 65) / 55) ** 2 < 1] = value
        noise = np.random.default_rng(index).normal(0, 30, SHAPE).astype(np.int16)
        nibabel.save(nibabel.Nifti1Image(noise + np.where(indices, -850, 40).astype(np.int16), AFFINE), image)
        nibabel.save(nibabel.Nifti1Image(indices, AFFINE), label)


def tree_gib(pid: int) -> float:
    """Memory of a process and its children, pages that they share counted once."""
    total = 0
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                total += int(line.split()[1])
        for task in Path(f"/proc/{pid}/task").iterdir():
            total += sum(int(tree_gib(int(child)) * 2**20) for child in (task / "children").read_text().split())
    except OSError:  # it has ended meanwhile
        pass
    return total / 2**20


def prepare(folder: Path, cores: int, config: dict) -> dict:
    """Seconds, CPU seconds and peak memory of one fresh process, and a checksum of what it wrote."""
    cache = folder / "cache"
    shutil.rmtree(cache, ignore_errors=True)
    command = [sys.executable, "-c", PREPARE, str(cores), json.dumps(config), str(cache)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    peak = 0.0
    while process.poll() is None:
        peak = max(peak, tree_gib(process.pid))
        time.sleep(0.1)
    if process.returncode:
        raise SystemExit(process.returncode)
    written = hashlib.sha256()
    for path in sorted(cache.rglob("*.npy")):
        written.update(path.read_bytes())
    return {**json.loads(process.stdout.read()), "peak_gib": peak, "sha256": written.hexdigest()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=8)
    parser.add_argument("--cores", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--spacing", type=float, nargs=3, default=[1.0, 1.0, 2.0])
    parser.add_argument("--folder", type=Path, default=Path("/tmp/preprocessing_speed"))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()

    make(arguments.folder / "set", arguments.cases)
    config = {
        "name": "preprocessing",
        "data": {"root": str(arguments.folder / "set"), "labels": {"left": 1, "right": 2}},
        "preprocessing": {"intensity": {"kind": "zscore"}, "spacing_mm": arguments.spacing},
        "window": {"size": [64, 64], "plane": "axial"},
    }
    runs: dict[int, list[dict]] = {cores: [] for cores in arguments.cores}
    for _ in range(arguments.repeats):
        for cores, found in runs.items():
            found.append(prepare(arguments.folder, cores, config))
    shutil.rmtree(arguments.folder / "cache", ignore_errors=True)
    sums = {run["sha256"] for found in runs.values() for run in found}
    medians = {cores: statistics.median(run["seconds"] for run in found) for cores, found in runs.items()}
    undisturbed = {
        cores: statistics.median(run["seconds"] - run["waiting"] for run in found) for cores, found in runs.items()
    }
    first = medians[arguments.cores[0]]
    result = {
        "cases": arguments.cases,
        "shape": SHAPE,
        "spacing_mm": {"files": [0.7, 0.7, 2.5], "working": arguments.spacing},
        "cores": {
            cores: {
                "median_seconds": medians[cores],
                "speed": first / medians[cores],
                "median_undisturbed_seconds": undisturbed[cores],
                "undisturbed_speed": undisturbed[arguments.cores[0]] / undisturbed[cores],
                "median_cpu_seconds": statistics.median(run["cpu_seconds"] for run in found),
                "peak_gib": max(run["peak_gib"] for run in found),
                "all_seconds": [run["seconds"] for run in found],
            }
            for cores, found in runs.items()
        },
        "all_wrote_the_same": len(sums) == 1,
        "sha256": sorted(sums),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "torch": torch.__version__,
        "load_before": os.getloadavg()[2],
    }
    text = json.dumps(result, indent=1)
    print(text)
    if arguments.json:
        arguments.json.write_text(text + "\n", "utf-8")


if __name__ == "__main__":
    main()
