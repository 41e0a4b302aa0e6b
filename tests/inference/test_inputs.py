"""Arrays and the images of other libraries give exactly the label map that their file gives."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK
import torch
from image_files import affine_of, oblique
from monai.data import MetaTensor
from monai.transforms import EnsureChannelFirst, LoadImage
from PIL import Image as Picture
from tiny import settings
from torch import nn

from r2seg.config import Config
from r2seg.data.images import ImageError, read_image
from r2seg.errors import UserError
from r2seg.inference.segmenter import Segmenter

SHAPE = (13, 11, 7)
AXES = np.array([[0, 0, 1.0], [-1, 0, 0], [0, 1, 0]])  # the file's axes are P, S, R


class Sided(nn.Module):
    """Depends on the direction of every axis: a flipped or turned image gives another label map."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = torch.randn(2, channels, 3, 3, generator=torch.Generator().manual_seed(0))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return nn.functional.conv2d(image, self.weight, padding=1)


def segmenter(in_channels: int = 1, image_dims: int = 3, **changes) -> Segmenter:
    window = {"size": [8, 8], "plane": "axial" if image_dims == 3 else None, "batch_size": 3}
    config = Config.model_validate(settings(Path("unused"), **{"window": window, **changes}))
    device = torch.device("cpu")
    return Segmenter(Sided(in_channels), config, in_channels=in_channels, image_dims=image_dims, device=device)


@pytest.fixture
def scan(tmp_path: Path) -> Path:
    voxels = np.random.default_rng(0).integers(-1000, 200, SHAPE).astype(np.int16)
    image = nib.Nifti1Image(voxels, affine_of(AXES @ oblique(), zooms=(0.8, 1.1, 2.5)))
    image.header.set_slope_inter(0.5, 3)
    nib.save(image, tmp_path / "scan.nii.gz")
    return tmp_path / "scan.nii.gz"


def in_memory(path: Path) -> dict[str, tuple]:
    """The same volume as each library holds it: (image, affine argument)."""
    read = read_image(path)
    nibabel_image = nib.load(path)
    itk = SimpleITK.ReadImage(str(path))
    tensor = torch.from_numpy(np.ascontiguousarray(read.array))
    lps = np.diag([-1.0, -1, 1, 1]) @ read.affine
    return {
        "Image": (read, None),
        "numpy": (read.array, read.affine),
        "numpy without channel": (read.array[0], read.affine),
        "numpy, foreign byte order": (read.array.astype(">f4"), read.affine),
        "torch": (tensor, read.affine),
        "torch, gradient": (tensor.clone().requires_grad_(), torch.from_numpy(read.affine)),
        "MetaTensor": (MetaTensor(tensor, affine=torch.from_numpy(read.affine)), None),
        "MetaTensor, LPS": (MetaTensor(tensor, affine=torch.from_numpy(lps), meta={"space": "LPS"}), None),
        "MONAI's LoadImage": (EnsureChannelFirst()(LoadImage(image_only=True)(path)), None),
        "nibabel, file": (nibabel_image, None),
        "nibabel, memory": (nib.Nifti1Image(nibabel_image.get_fdata(dtype=np.float32), nibabel_image.affine), None),
        "SimpleITK": (itk, None),
    }


NAMES = [
    "Image", "numpy", "numpy without channel", "numpy, foreign byte order", "torch", "torch, gradient", "MetaTensor",
    "MetaTensor, LPS", "MONAI's LoadImage", "nibabel, file", "nibabel, memory", "SimpleITK",
]  # fmt: skip


@pytest.mark.parametrize("spacing", [None, [1.3, 1.0, 1.7]])
@pytest.mark.parametrize("name", NAMES)
def test_a_volume_in_memory_is_segmented_as_its_file(scan: Path, tmp_path: Path, name: str, spacing) -> None:
    preprocessing = {"spacing_mm": spacing, "intensity": {"kind": "zscore"}}
    segment = segmenter(preprocessing=preprocessing).segment
    from_file = segment(scan)
    image, affine = in_memory(scan)[name]
    found = segment(image, affine=affine)
    assert 0.1 < (from_file.indices == 1).mean() < 0.9
    differing = int((found.indices != from_file.indices).sum())
    assert differing == 0
    assert found.found["ball"].millilitres == pytest.approx(from_file.found["ball"].millilitres)
    assert found.warnings == from_file.warnings == ()
    from_file.write(tmp_path / "a.nii.gz")
    found.write(tmp_path / "b.nii.gz")
    first, second = nib.load(tmp_path / "a.nii.gz"), nib.load(tmp_path / "b.nii.gz")
    np.testing.assert_array_equal(first.dataobj, second.dataobj)
    np.testing.assert_allclose(first.affine, second.affine, atol=1e-4)


@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize("size", [(19, 31), (24, 24)])
def test_a_picture_in_memory_is_segmented_as_its_file(tmp_path: Path, mode: str, size: tuple[int, int]) -> None:
    channels = len(mode)
    pixels = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    pixels = pixels[..., 0] if mode == "L" else pixels
    path = tmp_path / "a.png"
    Picture.fromarray(pixels).save(path)
    segment = segmenter(channels, 2, preprocessing={"intensity": {"kind": "unit"}}).segment
    expected = segment(path)
    first = pixels[None] if mode == "L" else np.moveaxis(pixels, -1, 0)
    for image in (first, torch.from_numpy(first.copy()), SimpleITK.ReadImage(str(path))):
        np.testing.assert_array_equal(segment(image).indices, expected.indices)
    loaded = EnsureChannelFirst()(LoadImage(image_only=True)(path))  # (C, columns, rows), float32
    found = segment(loaded, probabilities=True)
    np.testing.assert_array_equal(found.indices, expected.indices.T)
    assert found.indices.shape == found.probabilities.shape[1:] == tuple(loaded.shape[1:])
    found.write(tmp_path / "b.png")
    np.testing.assert_array_equal(np.asarray(Picture.open(tmp_path / "b.png")), expected.indices)
    if mode == "L":
        np.testing.assert_array_equal(segment(pixels).indices, expected.indices)


def test_a_picture_of_a_medical_format_keeps_its_axes(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(-1000, 200, (19, 31)).astype(np.int16)
    for name in ("a.mha", "a.nrrd", "a.nii"):
        SimpleITK.WriteImage(SimpleITK.GetImageFromArray(pixels), str(tmp_path / name))
        segment = segmenter(1, 2).segment
        expected = segment(tmp_path / name).indices
        np.testing.assert_array_equal(segment(SimpleITK.ReadImage(str(tmp_path / name))).indices, expected)


def test_an_array_without_affine_is_taken_as_it_is_and_says_so(tmp_path: Path) -> None:
    voxels = np.random.default_rng(0).integers(-1000, 200, SHAPE).astype(np.int16)
    found = segmenter().segment(voxels)
    assert any(
        "it has no affine: its axes are taken to run to the right, anterior and superior" in w for w in found.warnings
    )
    nib.save(nib.Nifti1Image(voxels, np.eye(4)), tmp_path / "ras.nii")
    np.testing.assert_array_equal(found.indices, segmenter().segment(tmp_path / "ras.nii").indices)
    assert found.found["ball"].millilitres is None
    with pytest.raises(ImageError, match=r"the volume has no affine, which \.nii\.gz needs: segment it with affine="):
        found.write(tmp_path / "out.nii.gz")


@pytest.mark.parametrize(
    ("image", "affine", "message"),
    [
        (np.zeros((2, *SHAPE)), None, "the numpy array has 2 channels, but the run was trained on 1; arrays have their channels first"),
        (np.zeros((9, 9)), None, r"the numpy array has 2 axes \(9, 9\); expected \(X, Y, Z\), or channels first"),
        (np.full(SHAPE, np.nan), None, r"the numpy array: 1001 voxels are NaN or infinite, the first \(nan\) at index \(0, 0, 0\)"),
        (torch.full(SHAPE, torch.inf), None, "the torch tensor: 1001 voxels are NaN or infinite"),
        (np.zeros((0, 4, 5)), None, "the numpy array: has no pixels"),
        (np.zeros(SHAPE, complex), None, "the numpy array: holds values of type complex128"),
        (np.full(SHAPE, "a"), None, "the numpy array: holds values of type <U1"),
        (np.zeros(SHAPE), np.zeros((4, 4)), "singular or not finite"),
        (np.zeros(SHAPE), np.eye(3), r"its affine has the shape \(3, 3\); expected \(4, 4\)"),
        (np.ma.masked_array(np.zeros(SHAPE)), None, "is masked"),
        (nib.Nifti1Image(np.full(SHAPE, np.inf), np.eye(4)), None, "voxels are NaN or infinite"),
        (nib.Nifti1Image(np.zeros((*SHAPE, 2)), np.eye(4)), None, "has 2 channels"),
        (nib.AnalyzeImage(np.zeros(SHAPE, np.int16), np.eye(4)), None, "which states no orientation"),
        (SimpleITK.Image(SHAPE, SimpleITK.sitkComplexFloat32), None, "the SimpleITK image: holds complex numbers"),
        (MetaTensor(torch.full(SHAPE, torch.nan)), None, "the MetaTensor: 1001 voxels are NaN"),
        ("scan.nii.gz", np.eye(4), "affine is for arrays and tensors without geometry; a str states its own"),
        (3, None, "a int cannot be segmented: give a file"),
        ([], None, "a list cannot be segmented"),
        (b"scan.nii.gz", None, "a bytes cannot be segmented"),
        ([np.zeros(SHAPE)], None, "a list cannot be segmented"),
    ],
)  # fmt: skip
def test_images_in_memory_pass_the_checks_of_files(image, affine, message: str) -> None:
    with pytest.raises(UserError, match=message):
        segmenter().segment(image, affine=affine)


def test_the_bytes_of_a_picture_as_real_numbers_are_refused_where_they_would_be_clipped() -> None:
    segment = segmenter(1, 2, preprocessing={"intensity": {"kind": "unit"}}).segment
    with pytest.raises(UserError, match=r"holds real numbers up to 255, but the run expects them from 0 to 1"):
        segment(np.full((9, 9), 255.0))
    assert segment(np.full((9, 9), 0.5)).indices.shape == (9, 9)


def test_a_batch_of_no_windows_is_refused(tiny_run: Path) -> None:
    for size in (0, -1):
        with pytest.raises(ValueError, match=f"window batch_size is {size}: give 1 or more"):
            Segmenter.from_run(tiny_run, "cpu", batch_size=size)
