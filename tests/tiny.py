"""A data set and a config so small that a whole training takes seconds: a bright ball in noise, in volumes or pictures."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import yaml
from PIL import Image

SHAPE = (22, 18, 7)
AFFINES = {
    "RAS": np.diag([2.0, 2.5, 5.0, 1.0]),
    "LPS": np.array([[-2.0, 0, 0, 44], [0, -2.5, 0, 45], [0, 0, 5.0, 0], [0, 0, 0, 1]]),
}


def ball(shape: tuple[int, ...], rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Voxels in -1000..0 with a ball of 0 HU at a random place, and the ball's label."""
    centre = [rng.uniform(0.35, 0.65) * size for size in shape]
    axes = np.ogrid[tuple(slice(size) for size in shape)]
    radius = sum(((axis - middle) / (0.3 * size)) ** 2 for axis, middle, size in zip(axes, centre, shape, strict=True))
    label = (radius <= 1).astype(np.uint8)
    voxels = np.where(label, 0, -900) + rng.normal(0, 40, shape)
    return voxels.round().astype(np.int16), label


def write_volumes(root: Path, count: int = 4) -> Path:
    """images/ and labels/ of NIfTI volumes, in two orientations."""
    rng = np.random.default_rng(0)
    for folder in ("images", "labels"):
        (root / folder).mkdir(parents=True)
    for index in range(count):
        voxels, label = ball(SHAPE, rng)
        affine = list(AFFINES.values())[index % 2]
        nib.save(nib.Nifti1Image(voxels, affine), root / f"images/case_{index}.nii.gz")
        nib.save(nib.Nifti1Image(label, affine), root / f"labels/case_{index}.nii.gz")
    return root


def write_pictures(root: Path, count: int = 4) -> Path:
    """images/ and labels/ of RGB pictures with 0/255 masks."""
    rng = np.random.default_rng(0)
    for folder in ("images", "labels"):
        (root / folder).mkdir(parents=True)
    for index in range(count):
        voxels, label = ball((21, 26), rng)
        grey = ((voxels.astype(float) + 1100) / 1300 * 255).clip(0, 255).astype(np.uint8)
        Image.fromarray(np.stack([grey, grey // 2, 255 - grey], axis=-1)).save(root / f"images/case_{index}.png")
        Image.fromarray(label * 255).save(root / f"labels/case_{index}.png")
    return root


def settings(root: Path, **changes: dict) -> dict:
    """A config of a tiny network on a tiny data set; ``changes`` update its sections."""
    config = {
        "name": "tiny",
        "data": {
            "root": str(root),
            "labels": {"ball": 1},
            "split": {"train": ["case_0", "case_1"], "validation": ["case_2"], "test": ["case_3"]},
        },
        "preprocessing": {"intensity": {"kind": "hu_window", "low": -1000, "high": 200}},
        "window": {"size": [16, 16], "plane": "axial", "batch_size": 4},
        "network": {"name": "R2UNet", "channels": [4, 8], "steps": 1, "dropout": 0.1},
        "sampling": {"windows_per_epoch": 12},
        "training": {"max_epochs": 3, "learning_rate": 0.01, "precision": "float32"},
        "infer": {"precision": "float32"},
    }
    for section, values in changes.items():
        if section == "network" and "name" in values:
            config[section] = {}  # another class has other options
        config[section] = {**config[section], **values} if isinstance(config.get(section), dict) else values
    return config


def write_config(path: Path, root: Path, **changes: dict) -> Path:
    """The config as a YAML file."""
    path.write_text(yaml.safe_dump(settings(root, **changes)))
    return path
