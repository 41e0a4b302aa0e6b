"""The files that an image consists of beside the one that is named, and that the cache sees them change."""

from __future__ import annotations

import os
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK

from r2seg.config import Config
from r2seg.data.cache import cache_cases
from r2seg.data.formats.companions import companions
from r2seg.data.layouts import find_cases


def write_nrrd(path: Path, voxels: np.ndarray) -> Path:
    """A NRRD header whose voxels lie in another file; returns that file."""
    data = path.with_suffix(".bin")
    data.write_bytes(voxels.astype("<i2").tobytes(order="F"))
    path.write_text(
        "NRRD0004\ntype: short\ndimension: 3\nspace: left-posterior-superior\n"
        f"sizes: {' '.join(map(str, voxels.shape))}\nspace directions: (1,0,0) (0,1,0) (0,0,1)\n"
        f"space origin: (0,0,0)\nendian: little\nencoding: raw\ndata file: {data.name}\n\n"
    )
    return data


def write_mhd(path: Path, voxels: np.ndarray, *, compressed: bool) -> Path:
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(voxels.T), str(path), compressed)
    return path.with_suffix(".zraw" if compressed else ".raw")


def write_pair(path: Path, voxels: np.ndarray) -> Path:
    nib.save(nib.Nifti1Pair(voxels, np.eye(4)), path)
    return path.with_suffix(".hdr")


PAIRS = {
    "mhd with raw": ("a.mhd", lambda path, voxels: write_mhd(path, voxels, compressed=False)),
    "mhd with zraw": ("a.mhd", lambda path, voxels: write_mhd(path, voxels, compressed=True)),
    "img with hdr": ("a.img", write_pair),
    "detached nrrd": ("a.nrrd", write_nrrd),
}


@pytest.mark.parametrize("kind", PAIRS)
def test_the_cache_sees_that_the_other_file_of_an_image_changed(kind: str, tmp_path: Path) -> None:
    name, write = PAIRS[kind]
    rng = np.random.default_rng(0)
    first, second = rng.integers(-100, 100, (2, 6, 7, 5)).astype(np.int16)
    for folder in ("images", "labels"):
        (tmp_path / folder).mkdir()
    label = np.zeros((6, 7, 5), np.uint8)
    label[2:4, 2:4] = 1
    affine = np.eye(4) if kind == "img with hdr" else np.diag([-1.0, -1, 1, 1])
    nib.save(nib.Nifti1Image(label, affine), tmp_path / "labels/a.nii.gz")
    config = Config.model_validate(
        {
            "name": "x",
            "data": {"root": tmp_path, "labels": {"one": 1}},
            "preprocessing": {"intensity": {"kind": "zscore"}},
            "window": {"size": [4, 4], "plane": "axial"},
        }
    )
    path = tmp_path / "images" / name
    other = write(path, first)
    assert companions(path) == (other,)
    before = path.stat()
    (old,) = cache_cases(find_cases(config.data), config, tmp_path / "cache")
    write(path, second)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))  # the named file is as it was
    os.utime(other, ns=(before.st_atime_ns, before.st_mtime_ns + 1_000_000))
    (new,) = cache_cases(find_cases(config.data), config, tmp_path / "cache")
    assert not np.array_equal(np.asarray(old.voxels), np.asarray(new.voxels))


@pytest.mark.parametrize(
    ("name", "text", "found"),
    [
        ("a.mha", "NDims = 3\nElementDataFile = LOCAL\n", []),
        ("a.mhd", "NDims = 3\nelementdatafile = voxels/a b.raw\n", ["voxels/a b.raw"]),
        ("a.mhd", "NDims = 3\nElementDataFile = LIST 2D\nx.raw\ny.raw\n", ["x.raw", "y.raw"]),
        ("a.mhd", "NDims = 3\nElementDataFile = s%03d.raw 1 5 2\n", ["s001.raw", "s003.raw", "s005.raw"]),
        ("a.mhd", "NDims = 3\nElementDataFile = 100%.raw\n", ["100%.raw"]),
        ("a.nrrd", "NRRD0004\nencoding: raw\n\ndata file: these are voxels", []),
        ("a.nrrd", "NRRD0004\ndatafile: LIST\nx.raw\ny.raw\n", ["x.raw", "y.raw"]),
        ("a.nii", "", []),
    ],
)
def test_headers_name_their_data_in_several_ways(name: str, text: str, found: list[str], tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(text.encode() + b"\x00\xff")
    assert companions(tmp_path / name) == tuple(tmp_path / each for each in found)
