"""Small image files of every kind for the tests of reading and writing."""

import itertools
from pathlib import Path

import nibabel
import numpy as np
import SimpleITK

REAL = Path(__file__).parents[2] / "shared/data"
LUNG = {"lung": 1}
RNG = np.random.default_rng(0)
VOLUME = RNG.integers(-1000, 1000, (5, 6, 7)).astype(np.int16)
MASK = (RNG.random((20, 30)) < 0.3).astype(np.uint8)
PICTURE = RNG.integers(0, 256, (20, 30, 3), dtype=np.uint8)

ORIENTATIONS = [
    np.array([[sign if column == axes[row] else 0 for column in range(3)] for row, sign in enumerate(signs)], float)
    for axes in itertools.permutations(range(3))
    for signs in itertools.product((1, -1), repeat=3)
]


def affine_of(rotation: np.ndarray, zooms=(0.7, 1.3, 2.9), origin=(-101.3, 55.5, -1203.25)) -> np.ndarray:
    affine = np.eye(4)
    affine[:3, :3] = rotation * np.array(zooms)
    affine[:3, 3] = origin
    return affine


def oblique() -> np.ndarray:
    a, b = 0.3, -0.2
    turn = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]])
    tilt = np.array([[1, 0, 0], [0, np.cos(b), -np.sin(b)], [0, np.sin(b), np.cos(b)]])
    return turn @ tilt


def save_nifti(path: Path, array=VOLUME, affine=None, kind=nibabel.Nifti1Image, **fields) -> Path:
    image = kind(array, affine_of(np.eye(3)) if affine is None else affine)
    image.header.set_xyzt_units("mm", "sec")
    nibabel.save(image, path)
    if fields:  # nibabel would fix them while saving
        whole = path.read_bytes()
        header = nibabel.Nifti1Header(whole[:348], check=False)
        for name, value in fields.items():
            header[name] = value
        path.write_bytes(header.binaryblock + whole[348:])
    return path


def indices_for(image) -> np.ndarray:
    return RNG.integers(0, 2, image.shape).astype(np.uint8)


def differing_fields(path: Path, other: Path) -> set[str]:
    first, second = nibabel.load(path).header, nibabel.load(other).header
    assert first.keys() == second.keys()
    return {name for name in first if first[name].tobytes() != second[name].tobytes()}


def save_itk(path: Path, array=VOLUME, components=False) -> Path:
    image = SimpleITK.GetImageFromArray(array, isVector=components)
    dims = image.GetDimension()
    image.SetSpacing([0.123456789012, 1.3, 2.9, 1.0][:dims])
    image.SetOrigin([-101.3, 1 / 3, 12.0, 0.0][:dims])
    direction = np.eye(dims)
    direction[: min(dims, 3), : min(dims, 3)] = oblique()[: min(dims, 3), : min(dims, 3)] if dims > 2 else np.eye(2)
    image.SetDirection(direction.ravel().tolist())
    SimpleITK.WriteImage(image, str(path))
    return path


def slicer(path: Path, array: np.ndarray, segments: list[dict[str, object]]) -> Path:
    """A segmentation as Slicer writes it: layers, if there are several, as components."""
    image = SimpleITK.GetImageFromArray(array, isVector=array.ndim == 4)
    for number, fields in enumerate(segments):
        for name, value in fields.items():
            image.SetMetaData(f"Segment{number}_{name}", str(value))
    SimpleITK.WriteImage(image, str(path), useCompression=True, imageIO="NrrdImageIO")
    return path
