"""A folder with a DICOM series is an image: voxels are those of SimpleITK, the affine is that of the standard's formula."""

from __future__ import annotations

import logging
import shutil
import sys
from io import BytesIO
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
import SimpleITK
from dicom_files import OBLIQUE, slice_of, stored_values, write_enhanced, write_series
from PIL import Image as Pillow
from pydicom.encaps import encapsulate
from pydicom.uid import JPEG2000Lossless, JPEGBaseline8Bit, JPEGLSLossless, RLELossless, generate_uid

from r2seg.data.images import ImageError, read_grid, read_image, write_label_map

TILT = (0.0, 0.625, 2.5)  # 14 degrees: 2.5 mm along the normal, 0.625 mm within the slices
VALUES = stored_values()
FEW = VALUES[:6]


def by_simpleitk(folder: Path) -> np.ndarray:
    reader = SimpleITK.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    return SimpleITK.GetArrayFromImage(reader.Execute())


def affine_by_hand(first: Path, second: Path) -> np.ndarray:
    """From the headers of the two lowest slices; signs of x and y turned from LPS+ to RAS+."""
    one, two = pydicom.dcmread(first), pydicom.dcmread(second)
    position = [float(v) for v in one.ImagePositionPatient]
    step = [float(b) - float(a) for a, b in zip(one.ImagePositionPatient, two.ImagePositionPatient, strict=True)]
    rows_mm, columns_mm = (float(v) for v in one.PixelSpacing)
    row, column = one.ImageOrientationPatient[:3], one.ImageOrientationPatient[3:]
    return np.array(
        [
            [sign * row[i] * columns_mm, sign * column[i] * rows_mm, sign * step[i], sign * position[i]]
            for i, sign in enumerate((-1, -1, 1))
        ]
        + [[0, 0, 0, 1]],
        float,
    )


@pytest.mark.parametrize(
    ("options", "shift", "reverse"),
    [
        ({"RescaleIntercept": -1024}, -1024, False),
        ({"RescaleIntercept": -1024}, -1024, True),
        ({"orientation": OBLIQUE}, 0, True),
        ({"step": TILT}, 0, False),
        ({"transfer_syntax": RLELossless}, 0, False),
        ({"transfer_syntax": JPEGLSLossless}, 0, True),
    ],
    ids=["ascending", "descending", "oblique", "tilted", "RLE", "JPEG-LS"],
)
def test_120_slices_have_simpleitks_voxels_and_the_affine_of_the_headers(tmp_path, caplog, options, shift, reverse):
    folder = write_series(tmp_path / "series", VALUES, reverse=reverse, **options)
    image = read_image(folder)
    assert image.shape == (20, 24, 120) and image.array.dtype == np.int16
    np.testing.assert_array_equal(image.array[0].T, VALUES + shift)
    np.testing.assert_array_equal(image.array[0].T, by_simpleitk(folder))
    lowest = [folder / f"IM{number:04d}" for number in ((120, 119) if reverse else (1, 2))]
    np.testing.assert_allclose(image.affine, affine_by_hand(*lowest), atol=1e-5)
    tilted = [record.message for record in caplog.records if "gantry tilt of 14 degrees" in record.message]
    assert len(tilted) == ("step" in options), caplog.text


@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("syntax", [RLELossless, JPEGLSLossless, JPEG2000Lossless])
def test_compressed_values_are_exact(tmp_path, syntax, signed):
    values = stored_values((2, 40, 36), signed=signed)
    folder = write_series(tmp_path / "series", values, transfer_syntax=syntax)
    np.testing.assert_array_equal(read_image(folder).array[0].T, values)


def test_jpeg_lossless_is_exact(tmp_path):
    folder = write_series(tmp_path / "series", FEW)
    for path in folder.iterdir():  # SimpleITK's compressor "JPEG" is JPEG lossless, process 14
        writer = SimpleITK.ImageFileWriter()
        writer.SetImageIO("GDCMImageIO")
        writer.SetFileName(str(tmp_path / "packed.dcm"))
        writer.SetUseCompression(True)
        writer.SetCompressor("JPEG")
        original = pydicom.dcmread(path)
        writer.Execute(SimpleITK.GetImageFromArray(original.pixel_array))
        packed = pydicom.dcmread(tmp_path / "packed.dcm")
        original.PixelData, original["PixelData"].VR = packed.PixelData, "OB"
        original.file_meta.TransferSyntaxUID = packed.file_meta.TransferSyntaxUID
        original.save_as(path)
    assert original.file_meta.TransferSyntaxUID.name.startswith("JPEG Lossless")
    np.testing.assert_array_equal(read_image(folder).array[0].T, FEW)


def test_a_fractional_slope_gives_float32(tmp_path):
    folder = write_series(tmp_path / "series", FEW, RescaleSlope=1.37, RescaleIntercept=-3.5)
    image = read_image(folder)
    assert image.array.dtype == np.float32
    np.testing.assert_allclose(image.array[0].T, FEW * 1.37 - 3.5, rtol=1e-6, atol=1e-4)


def test_each_slice_has_its_own_scale_as_in_pet(tmp_path):
    def scaled(k, dataset):
        dataset.RescaleSlope = k + 1

    folder = write_series(tmp_path / "series", FEW, change=scaled)
    np.testing.assert_array_equal(read_image(folder).array[0].T, FEW * np.arange(1, 7, dtype=np.int16)[:, None, None])


def test_values_that_do_not_fit_int16_are_not_cut(tmp_path):
    values = np.full((3, 8, 8), 65000, np.uint16)
    plain = read_image(write_series(tmp_path / "plain", values))
    assert plain.array.dtype == np.uint16 and (plain.array == 65000).all()
    shifted = read_image(write_series(tmp_path / "shifted", values, RescaleIntercept=-1024))
    assert shifted.array.dtype == np.float32 and (shifted.array == 63976).all()


def test_a_multi_frame_ct_is_one_volume(tmp_path):
    path = write_enhanced(tmp_path / "volume.dcm", FEW, order=[3, 0, 5, 1, 4, 2])
    image = read_image(path)
    np.testing.assert_array_equal(image.array[0].T, FEW - 1000)
    np.testing.assert_allclose(image.affine, [[-0.7, 0, 0, 10], [0, -0.8, 0, 20], [0, 0, 2.5, 30], [0, 0, 0, 1]])


def test_a_label_map_of_a_tilted_series_is_placed_where_the_series_is(tmp_path):
    image = read_image(write_series(tmp_path / "series", FEW, step=TILT))
    write_label_map(tmp_path / "label.nii.gz", np.zeros(image.shape, np.uint8), image, {"lung": 1})
    written = nibabel.load(tmp_path / "label.nii.gz")
    np.testing.assert_allclose(written.affine, image.affine, atol=1e-4)
    # A quaternion cannot be sheared: no reader may prefer it.
    assert (int(written.header["qform_code"]), int(written.header["sform_code"])) == (0, 1)
    straight = read_image(write_series(tmp_path / "straight", FEW, orientation=OBLIQUE))
    write_label_map(tmp_path / "straight.nii.gz", np.zeros(image.shape, np.uint8), straight, {"lung": 1})
    np.testing.assert_allclose(nibabel.load(tmp_path / "straight.nii.gz").get_qform(), straight.affine, atol=1e-3)


def test_positions_rounded_to_a_tenth_of_a_millimetre_are_equal_distances(tmp_path):
    def rounded(k, dataset):
        dataset.ImagePositionPatient[2] = f"{k * 0.75:.1f}"  # 0.0, 0.8, 1.5, 2.2, 3.0, 3.8: gaps of 0.7 and 0.8 mm

    folder = write_series(tmp_path / "series", FEW, change=rounded)
    assert read_grid(folder).affine[2, 2] == pytest.approx(3.8 / 5)


def _shift(amount, at=3, axis=2):
    def change(k, dataset):
        if k >= at:
            dataset.ImagePositionPatient[axis] += amount

    return change


def _only(at, **tags):
    def change(k, dataset):
        if k == at:
            for name, value in tags.items():
                setattr(dataset, name, value)

    return change


def _without(*names):
    def change(k, dataset):
        for name in names:
            del dataset[name]

    return change


FAULTS = {
    "missing": (_shift(2.5), r"slices are missing, the usual distance being 2\.5 mm: 1 between IM0003 and IM0004"),
    "two missing": (_shift(5.0), r"2 between IM0003 and IM0004 \(-295\.75 and -288\.25 mm along the slice normal\)"),
    "doubled": (
        _only(3, ImagePositionPatient=[-100.25, 40.5, -295.75]),
        r"IM0003 and IM0004 at ImagePositionPatient \(-100\.25, 40\.5, -295\.75\); remove the copies",
    ),
    "uneven": (
        _only(3, ImagePositionPatient=[-100.25, 40.5, -292.65]),
        r"distances .* vary from 1\.9 mm .* to 3\.1 mm",
    ),
    "shifted": (_only(3, ImagePositionPatient=[-90.25, 40.5, -293.25]), r"shifted unevenly .* IM0004 by 10 mm"),
    "sizes": (_only(3, Rows=12, PixelData=b"\0" * 480), r"2 different sizes .*20 x 24 of 5 slices.*20 x 12 .*IM0004"),
    "spacings": (_only(3, PixelSpacing=[0.8, 0.8]), r"different pixel spacings .*0\.8 x 0\.8 of 1 slice \(IM0004\)"),
    "orientations": (
        _only(3, ImageOrientationPatient=[1, 0, 0, 0, 0, 1]),
        r"different orientations.*\(1, 0, 0, 0, 0, 1\)",
    ),
    "no position": (_without("ImagePositionPatient"), r"IM0001: its header has no ImagePositionPatient"),
    "skewed": (
        lambda k, dataset: setattr(dataset, "ImageOrientationPatient", [1, 0, 0, 0.7, 0.7, 0]),
        r"IM0001: its geometry is not that of a slice: orientation \(1, 0, 0, 0\.7, 0\.7, 0\)",
    ),
    "slope 0": (_only(2, RescaleSlope=0), r"IM0003: its rescale slope is 0"),
    "colour": (_only(2, SamplesPerPixel=3, PhotometricInterpretation="RGB"), r"IM0003: is in colour \(RGB\)"),
    "several times": (
        lambda k, dataset: dataset.ImagePositionPatient.__setitem__(2, float(k // 2)),
        r"holds 2 slices at each position, as of several times or echoes",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_is_not_one_grid_of_voxels_is_one_clear_line(tmp_path, fault):
    change, message = FAULTS[fault]
    folder = write_series(tmp_path / "series", FEW, change=change)
    with pytest.raises(ImageError, match=message) as caught:
        read_grid(folder)
    assert str(caught.value).startswith(str(folder)) and "\n" not in str(caught.value)


def test_several_series_are_listed_and_chosen_by_number_or_uid(tmp_path):
    uid = generate_uid()
    folder = write_series(tmp_path / "both", FEW, name="a{}".format)
    write_series(
        folder, FEW[:2] + 1, name="b{}".format, SeriesNumber=7, SeriesDescription="Late", SeriesInstanceUID=uid
    )
    with pytest.raises(ImageError) as caught:
        read_grid(folder)
    assert "holds 2 series: number 3 'Thorax' (CT, 24x20, 6 slices, UID " in str(caught.value)
    assert f"number 7 'Late' (CT, 24x20, 2 slices, UID {uid})" in str(caught.value)
    assert "data.series in the config or --series of r2seg-infer" in str(caught.value)
    for choice in ((7,), (uid,), (7, 99)):
        np.testing.assert_array_equal(read_image(folder, series=choice).array[0].T, FEW[:2] + 1)
    with pytest.raises(ImageError, match=r"holds no series that 4 chooses; it holds number 3 'Thorax'"):
        read_grid(folder, series=(4,))
    with pytest.raises(ImageError, match=r"holds 2 series that 3, 7 chooses"):
        read_grid(folder, series=(3, 7))


def test_patients_are_never_mixed(tmp_path):
    uid = generate_uid()
    folder = write_series(tmp_path / "both", FEW[:3], name="a{}".format, SeriesInstanceUID=uid)
    write_series(
        folder, FEW[3:], name="b{}".format, SeriesInstanceUID=uid, PatientID="P2", origin=(-100.25, 40.5, -293.25)
    )
    with pytest.raises(ImageError, match=r"holds 2 series of 2 patients: "):
        read_grid(folder)


def test_localizers_and_other_files_are_left_out_with_a_warning(tmp_path, caplog):
    def scout(k, dataset):
        if k == 5:
            dataset.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
            dataset.ImageOrientationPatient = [1, 0, 0, 0, 0, -1]

    folder = write_series(tmp_path / "series", FEW, change=scout)
    (folder / "LICENSE").write_text("no DICOM")
    (folder / ".hidden.dcm").write_bytes(b"")
    capture = pydicom.dcmread(folder / "IM0001")
    capture.SOPClassUID = capture.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.7"
    capture.save_as(folder / "screenshot")
    with caplog.at_level(logging.WARNING):
        assert read_grid(folder).shape == (20, 24, 5)
    assert "1 localizer in the series left out: IM0006" in caplog.text
    assert "files that are not slices are left out: secondary capture" in caplog.text


def test_damaged_files_are_named(tmp_path):
    folder = write_series(tmp_path / "series", FEW, name="{}.dcm".format)
    path = folder / "3.dcm"
    whole = path.read_bytes()
    for share, message in ((0.8, r"3\.dcm: "), (0.2, r"3\.dcm: its header has no SeriesInstanceUID")):
        path.write_bytes(whole[: int(len(whole) * share)])
        with pytest.raises(ImageError, match=message) as caught:
            read_image(folder)
        assert "\n" not in str(caught.value)
    for content in (b"", b"<html>404</html>" * 20):
        path.write_bytes(content)
        with pytest.raises(ImageError, match=r"1 file named as DICOM but not DICOM, or damaged: 3\.dcm"):
            read_image(folder)
    shutil.rmtree(folder)
    folder.mkdir()
    with pytest.raises(ImageError, match="is a folder, expected an image file or a folder with a DICOM series"):
        read_image(folder)


def test_a_single_slice_states_its_thickness(tmp_path, caplog):
    assert read_grid(write_series(tmp_path / "one", FEW[:1])).affine[2, 2] == 2.5
    folder = write_series(tmp_path / "two", FEW[:1], change=_without("SliceThickness"))
    assert read_grid(folder).affine[2, 2] == 1
    assert "holds one slice, which does not state its thickness: 1 mm is assumed" in caplog.text


def test_a_file_alone_is_a_picture_in_rows_and_columns(tmp_path):
    folder = write_series(tmp_path / "series", FEW[:1], name="x-ray{}.dcm".format)
    dataset = pydicom.dcmread(folder / "x-ray1.dcm")
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.1"
    dataset.save_as(folder / "x-ray1.dcm")
    image = read_image(folder / "x-ray1.dcm")
    assert image.affine is None
    np.testing.assert_array_equal(image.array[0], FEW[0])
    dataset.PhotometricInterpretation, dataset.PixelRepresentation, dataset.BitsStored = "MONOCHROME1", 0, 12
    dataset.HighBit, dataset.PixelData = 11, (FEW[0] + 1024).astype(np.uint16).tobytes()
    dataset.save_as(folder / "x-ray1.dcm")
    np.testing.assert_array_equal(read_image(folder / "x-ray1.dcm").array[0], 4095 - (FEW[0].astype(int) + 1024))


@pytest.mark.parametrize(
    ("kind", "message"),
    [("7", "is of the kind secondary capture, which is not read as an image"), ("6.1", "is of the kind ultrasound")],
)
def test_other_kinds_are_refused_by_name(tmp_path, kind, message):
    folder = write_series(tmp_path / "series", FEW[:1], name="{}.dcm".format)
    dataset = pydicom.dcmread(folder / "1.dcm")
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = f"1.2.840.10008.5.1.4.1.1.{kind}"
    dataset.save_as(folder / "1.dcm")
    with pytest.raises(ImageError, match=message):
        read_image(folder / "1.dcm")
    with pytest.raises(ImageError, match=r"holds no slices of a CT, MR or PET series, but 1 DICOM file: "):
        read_image(folder)


def test_without_pydicom_the_message_has_the_command(tmp_path, monkeypatch):
    folder = write_series(tmp_path / "series", FEW)
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(ImageError, match=r"needs pydicom: pip install 'r2seg\[dicom\]'"):
        read_grid(folder)


def test_a_jpeg_photograph_has_the_colours_that_pillow_reads(tmp_path):
    picture = np.zeros((32, 48, 3), np.uint8)
    picture[:, :24], picture[:, 24:] = (200, 30, 40), (20, 160, 220)
    packed = BytesIO()
    Pillow.fromarray(picture).save(packed, "JPEG", quality=95)
    dataset = slice_of(np.zeros((32, 48), np.int16), (0, 0, 0), series=generate_uid(), number=1)
    dataset.SOPClassUID = "1.2.840.10008.5.1.4.1.1.77.1.4"
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation, dataset.PlanarConfiguration = 3, "YBR_FULL_422", 0
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 8, 8, 7, 0
    dataset.PixelData, dataset["PixelData"].VR = encapsulate([packed.getvalue()]), "OB"
    dataset.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    pydicom.dcmwrite(tmp_path / "skin.dcm", dataset, enforce_file_format=True)
    found = np.moveaxis(read_image(tmp_path / "skin.dcm").array, 0, -1).astype(int)
    assert np.abs(found - np.asarray(Pillow.open(packed))).max() <= 2  # two ways of rounding YCbCr to RGB
