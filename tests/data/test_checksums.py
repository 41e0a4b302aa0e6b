"""Damage to compressed voxels is an error or changes nothing: checksums and lengths are verified before the voxels are used."""

import gzip
import time
from pathlib import Path

import numpy as np
import pytest
import SimpleITK
from image_files import save_nifti
from PIL import Image as Pillow

from r2seg.data.images import ImageError, read_image

VOXELS = np.random.default_rng(1).integers(-20, 20, (11, 12, 13)).astype(np.int16)


def save(path: Path, array: np.ndarray = VOXELS, compressed: bool = True) -> Path:
    """Writes the image and returns the file that holds its voxels."""
    if ".nii" in path.name:
        return save_nifti(path, array.T)
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(array), str(path), useCompression=compressed)
    return path.with_suffix(".zraw" if compressed else ".raw") if path.suffix == ".mhd" else path


def start_of_data(path: Path) -> int:
    whole = path.read_bytes()
    for mark in (b"ElementDataFile = LOCAL\n", b"\n\n"):
        if mark in whole[:2000] and path.suffix in (".mha", ".nrrd"):
            return whole.index(mark) + len(mark)
    return 0


@pytest.mark.parametrize("name", ["a.mha", "a.mhd", "a.nrrd", "a.nii.gz"])
def test_a_flipped_byte_in_compressed_voxels_is_an_error_or_changes_nothing(tmp_path, name):
    data = save(tmp_path / name)
    whole = data.read_bytes()
    rng = np.random.default_rng(0)
    positions = {*rng.integers(start_of_data(data), len(whole), 150).tolist(), *range(len(whole) - 8, len(whole))}
    errors = 0
    for position in sorted(positions):
        changed = bytearray(whole)
        changed[position] ^= int(rng.integers(1, 256))
        data.write_bytes(changed)
        try:
            np.testing.assert_array_equal(read_image(tmp_path / name).array[0], VOXELS.T, err_msg=str(position))
        except ImageError as error:
            assert str(error).startswith(f"{tmp_path / name}: ") and "\n" not in str(error)
            errors += 1
    assert errors > 0.9 * len(positions)  # a few bytes of gzip's own header mean nothing


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_a_flipped_byte_in_a_png_is_an_error(tmp_path, kind):
    """Pillow and ITK skip the checksums of the pixels."""
    pixels = np.random.default_rng(0).integers(0, 250, (21, 26)).astype(kind)
    Pillow.fromarray(pixels).save(tmp_path / "a.png")
    whole = (tmp_path / "a.png").read_bytes()
    rng = np.random.default_rng(0)
    for position in range(0, len(whole), 3):
        changed = bytearray(whole)
        changed[position] ^= int(rng.integers(1, 256))
        (tmp_path / "a.png").write_bytes(changed)
        with pytest.raises(ImageError, match=r"a\.png: "):
            read_image(tmp_path / "a.png")


@pytest.mark.parametrize("compressed", [True, False])
@pytest.mark.parametrize("name", ["a.mha", "a.mhd", "a.nrrd"])
def test_voxels_that_are_cut_short_are_named_as_such(tmp_path, name, compressed):
    data = save(tmp_path / name, compressed=compressed)
    whole = data.read_bytes()
    for lost in (1, 4, 200):
        data.write_bytes(whole[:-lost])
        with pytest.raises(ImageError, match=rf"{name}: .*truncated"):
            read_image(tmp_path / name)
    if name == "a.mhd":
        data.unlink()
        with pytest.raises(ImageError, match=rf"a\.mhd: its voxel data {data.name} are missing"):
            read_image(tmp_path / name)


@pytest.mark.parametrize(
    ("name", "before", "after", "message"),
    [
        ("a.mha", b"DimSize = 13", b"DimSize = 12", "holds more than the 3168 bytes of voxels that its header states"),
        ("a.mha", b"DimSize = 13", b"DimSize = 23", "truncated: holds 3432 of the 6072 bytes of voxels"),
        ("a.mha", b"DimSize = 13", b"DimSize = 99999999", "truncated: holds 3432 of"),
        (
            "a.mha",
            b"CompressedDataSize = ",
            b"CompressedDataSize = 9",
            "truncated: holds .* bytes of compressed voxels",
        ),
        ("a.mha", b"CompressedDataSize", b"CompressedDataSiz2", "does not state its CompressedDataSize"),
        ("a.mha", b"CompressedData = True", b"CompressedData = Nope", "truncated"),
        ("a.nrrd", b"sizes: 13", b"sizes: 12", "holds more than the 3168 bytes of voxels"),
        ("a.nrrd", b"sizes: 13", b"sizes: 99999999", "truncated: holds 3432 of"),
    ],
)
def test_a_header_that_states_other_lengths_is_an_error(tmp_path, name, before, after, message):
    path = save(tmp_path / name)
    whole = path.read_bytes()
    assert before in whole
    path.write_bytes(whole.replace(before, after))
    with pytest.raises(ImageError, match=rf"{name}: .*{message}"):
        read_image(path)


def test_fewer_stated_compressed_bytes_than_there_are_is_an_error(tmp_path):
    path = save(tmp_path / "a.mha")
    head, _, rest = path.read_bytes().partition(b"CompressedDataSize = ")
    number, _, rest = rest.partition(b"\n")
    path.write_bytes(head + b"CompressedDataSize = " + str(int(number) - 900).encode() + b"\n" + rest)
    with pytest.raises(ImageError, match=rf"holds {int(number)} bytes .*, but its header states {int(number) - 900}"):
        read_image(path)


def test_concatenated_gzip_members_and_data_files_of_nrrd_are_read(tmp_path):
    raw = np.ascontiguousarray(VOXELS).tobytes()
    header = b"NRRD0004\ntype: short\ndimension: 3\nsizes: 13 12 11\nendian: little\nencoding: gzip\n"
    (tmp_path / "a.nrrd").write_bytes(header + b"\n" + gzip.compress(raw[:1000]) + gzip.compress(raw[1000:]))
    (tmp_path / "b.raw.gz").write_bytes(gzip.compress(raw))
    (tmp_path / "b.nrrd").write_bytes(header + b"data file: b.raw.gz\n\n")
    for name in ("a.nrrd", "b.nrrd"):
        np.testing.assert_array_equal(read_image(tmp_path / name).array[0], VOXELS.T)
    (tmp_path / "b.raw.gz").unlink()
    with pytest.raises(ImageError, match=r"b\.nrrd: .*couldn't open"):
        read_image(tmp_path / "b.nrrd")


def test_verifying_costs_little_more_than_itk_alone(tmp_path):
    voxels = np.random.default_rng(0).integers(-50, 50, (60, 256, 256)).astype(np.int16)
    save(tmp_path / "a.mha", voxels)

    def seconds(task) -> float:
        times = []
        for _ in range(3):
            start = time.process_time()
            task()
            times.append(time.process_time() - start)
        return min(times)

    alone = seconds(lambda: SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(tmp_path / "a.mha"))))
    assert seconds(lambda: read_image(tmp_path / "a.mha")) < 3 * alone + 0.05


def test_a_huge_npy_is_refused_before_anything_is_allocated(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((21, 26), np.float32))
    whole = (tmp_path / "a.npy").read_bytes()
    (tmp_path / "a.npy").write_bytes(whole.replace(b"(21, 26), }        ", b"(30000, 30000), }  "))
    with pytest.raises(ImageError, match=r"a\.npy: is truncated: holds 2184 of the 3600000000 bytes"):
        read_image(tmp_path / "a.npy")


def test_a_huge_gzip_is_refused_before_anything_is_allocated(tmp_path):
    path = save_nifti(tmp_path / "a.nii", dim=[3, 30000, 30000, 30000, 1, 1, 1, 1])
    (tmp_path / "b.nii.gz").write_bytes(gzip.compress(path.read_bytes()))
    with pytest.raises(ImageError, match=r"b\.nii\.gz: is truncated: holds \d+ of the 54000000000000 bytes"):
        read_image(tmp_path / "b.nii.gz")
