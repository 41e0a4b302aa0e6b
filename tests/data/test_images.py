"""Images as files hold them: names, several files as channels, one grid or two, and real files."""

import gzip
import subprocess
import sys
import time

import numpy as np
import pytest
from image_files import (
    LUNG,
    ORIENTATIONS,
    REAL,
    VOLUME,
    affine_of,
    oblique,
    save_nifti,
)
from PIL import Image as Pillow

from r2seg.data.images import (
    ImageError,
    check_same_grid,
    output_name,
    read_grid,
    read_image,
    read_label_map,
    split_suffix,
    write_label_map,
)


def test_a_suffix_is_split_off_whole_and_only_where_it_is_an_images():
    assert split_suffix("/a/ct.001.nii.gz") == ("ct.001", ".nii.gz")
    assert split_suffix("A.NII.GZ") == ("A", ".nii.gz")
    assert split_suffix("x.json") == ("x", "")
    assert split_suffix(".png")[1] == ""
    assert split_suffix("im0001.ppm.gz") == ("im0001", ".ppm.gz")


def test_outputs_keep_the_inputs_name_where_the_format_can_hold_labels():
    expected = {
        "a/ct.nii.gz": "ct.nii.gz",
        "CT.NII": "CT.NII",
        "x.mha": "x.mha",
        "scan_0000.nii.gz": "scan.nii.gz",
        "ID_0000_Z_0142.tif": "ID_0000_Z_0142.tif",
        "photo.JPG": "photo.png",
        "im0001.ppm.gz": "im0001.png",
        "a.gif": "a.png",
        "a.bmp": "a.png",
        "a.npy": "a.npy",
    }
    assert {name: output_name(name) for name in expected} == expected
    with pytest.raises(ImageError, match=r"x\.docx: no image format .* known: \.nii\.gz \.nii"):
        output_name("x.docx")


def test_importing_loads_neither_torch_nor_the_image_libraries():
    code = "import sys, r2seg.data.images; print(sorted({'torch', 'monai', 'nibabel', 'SimpleITK', 'PIL', 'tifffile'} & {*sys.modules}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_files_of_one_case_become_channels(tmp_path):
    first = save_nifti(tmp_path / "a_0000.nii.gz")
    second = save_nifti(tmp_path / "a_0001.nii.gz", VOLUME + 1)
    image = read_image([first, second])
    assert image.num_channels == 2
    np.testing.assert_array_equal(image.array, [VOLUME, VOLUME + 1])
    assert image.path == first


@pytest.mark.parametrize(
    ("array", "affine", "message"),
    [
        (VOLUME[:-1], None, r"b\.nii: grid \(4, 6, 7\) differs from grid \(5, 6, 7\) of .*a\.nii"),
        (
            VOLUME,
            affine_of(np.eye(3), origin=(0, 0, 0)),
            r"b\.nii: grid differs from that of .*a\.nii by up to 1209 mm",
        ),
        (VOLUME, affine_of(ORIENTATIONS[1]), r"b\.nii: grid differs"),
        (
            VOLUME,
            affine_of(np.eye(3), zooms=(0.8, 1.3, 2.9)),
            r"spacing \(0\.8, 1\.3, 2\.9\) against \(0\.7, 1\.3, 2\.9\) mm",
        ),
    ],
)
def test_grids_that_differ_are_named(tmp_path, array, affine, message):
    first, second = save_nifti(tmp_path / "a.nii"), save_nifti(tmp_path / "b.nii", array, affine)
    with pytest.raises(ImageError, match=message):
        read_image([first, second])


def test_rounding_in_a_header_is_not_another_grid(tmp_path):
    first = save_nifti(tmp_path / "a.nii", affine=affine_of(oblique()))
    second = save_nifti(tmp_path / "b.nii", affine=affine_of(oblique(), origin=(-101.35, 55.5, -1203.25)))
    check_same_grid(read_grid(first), read_grid(second))


@pytest.mark.real
@pytest.mark.skipif(not REAL.is_dir(), reason=f"needs {REAL}")
def test_real_masks_read_as_their_threshold_and_come_back(tmp_path):
    masks = [
        *sorted((REAL / "chase_db1").glob("*HO.png"))[:2],
        *sorted((REAL / "chase_db1/fov_mask").glob("*.gif"))[:2],
        *sorted((REAL / "isic2018").rglob("*_segmentation.png"))[:2],
    ]
    assert len(masks) == 6
    for path in masks:
        read = read_label_map(path, LUNG)
        np.testing.assert_array_equal(read.array[0], np.asarray(Pillow.open(path).convert("L")) > 127)
        write_label_map(tmp_path / "a.png", read.array[0], read_image(path), LUNG)
        np.testing.assert_array_equal(read_label_map(tmp_path / "a.png", LUNG).array, read.array)


@pytest.mark.real
@pytest.mark.skipif(not REAL.is_dir(), reason=f"needs {REAL}")
def test_reading_a_ct_costs_little_more_than_inflating_it():
    path = REAL / "lctsc/images/LCTSC-104.nii.gz"

    def seconds(task) -> float:
        times = []
        for _ in range(3):
            start = time.process_time()
            task()
            times.append(time.process_time() - start)
        return min(times)

    inflate = seconds(lambda: gzip.decompress(path.read_bytes()))
    assert seconds(lambda: read_image(path)) < 1.4 * inflate + 0.02
    assert read_image(path).array.dtype == np.int16
    assert seconds(lambda: read_grid(path)) < 0.02
