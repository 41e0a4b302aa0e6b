"""What libraries warn of while they read a file names the file."""

import logging
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK
from image_files import VOLUME, save_nifti

from r2seg.data.formats.base import errors_of
from r2seg.data.images import ImageError, read_grid, read_image


def odd_files(folder: Path) -> list[Path]:
    """Files that nibabel, tifffile and MetaImage's reader complain about."""
    import tifffile

    odd = save_nifti(folder / "odd.nii", pixdim=[1, -1, 1, 1, 1, 1, 1, 1], sform_code=0, qform_code=0)
    tifffile.imwrite(folder / "odd.tif", np.zeros((9, 9), np.uint8), extratags=[(65000, "s", 0, "x", True)])
    whole = (folder / "odd.tif").read_bytes()
    (folder / "odd.tif").write_bytes(
        whole.replace((65000).to_bytes(2, "little") + b"\x02", (65000).to_bytes(2, "little") + b"\x63")
    )
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(VOLUME), str(folder / "odd.mha"))
    whole = (folder / "odd.mha").read_bytes()
    (folder / "odd.mha").write_bytes(whole.replace(b"DimSize = 7 6 5", b"DimSize = 7 6"))
    return [odd, folder / "odd.tif", folder / "odd.mha"]


def test_every_line_on_standard_error_names_its_file(tmp_path):
    paths = odd_files(tmp_path)
    code = """
import logging, sys
from r2seg.data.images import ImageError, read_image
logging.basicConfig(format="%(message)s")
for path in sys.argv[1:]:
    try:
        read_image(path)
    except ImageError as error:
        print(error)
"""
    done = subprocess.run([sys.executable, "-c", code, *map(str, paths)], capture_output=True, text=True, check=True)
    lines = done.stderr.splitlines()
    assert lines and all(line.startswith(f"{tmp_path}/odd.") for line in lines), done.stderr
    assert len(lines) == len(set(lines)), "once each"
    assert any(line.startswith(f"{paths[0]}: pixdim") for line in lines)
    assert any(line.startswith(f"{paths[1]}: ") for line in lines)
    assert f"{paths[2]}: cannot be read: ElementType required and not defined." in done.stdout


def test_warnings_of_python_name_the_file_every_time(tmp_path):
    """In a process of its own: other libraries, loaded by other tests, change how Python shows warnings."""
    code = """
import logging, sys, warnings
from pathlib import Path
from r2seg.data.formats.base import errors_of
logging.basicConfig(format="%(message)s")
warnings.simplefilter("always")
for name in sys.argv[1:]:
    with errors_of(Path(name), "read"):
        warnings.warn("the header is odd", stacklevel=1)
        warnings.warn("the header is odd", stacklevel=1)
"""
    paths = [str(tmp_path / name) for name in "ab"]
    done = subprocess.run([sys.executable, "-c", code, *paths], capture_output=True, text=True, check=True)
    assert done.stderr.splitlines() == [f"{path}: the header is odd" for path in paths]


def test_threads_do_not_mix_up_their_files(tmp_path, caplog):
    log = logging.getLogger("nibabel.global")

    def complain(number: int) -> None:
        with errors_of(tmp_path / str(number), "read"):
            log.warning("number %d", number)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(complain, range(200)))
    messages = {record.getMessage() for record in caplog.records}
    assert messages == {f"{tmp_path}/{number}: number {number}" for number in range(200)}
    log.warning("outside")
    assert caplog.records[-1].getMessage() == "outside"


@pytest.mark.parametrize("name", ["a.nii", "a.mha", "a.nrrd"])
def test_bytes_behind_the_voxels_of_a_file_without_checksum_are_warned_of(tmp_path, caplog, name):
    path = tmp_path / name
    if name == "a.nii":
        nibabel.save(nibabel.Nifti1Image(VOLUME, np.eye(4)), path)
    else:
        SimpleITK.WriteImage(SimpleITK.GetImageFromArray(VOLUME), str(path))
    read_image(path)
    assert not caplog.records
    path.write_bytes(path.read_bytes() + b"1234567")
    read_image(path)
    (record,) = caplog.records
    assert (
        record.getMessage()
        == f"{path}: holds 7 bytes more than the voxels that its header states: is the header right?"
    )


def test_standard_error_comes_back_after_a_failure(tmp_path, capfd):
    path = odd_files(tmp_path)[2]
    with pytest.raises(ImageError, match="ElementType required"):
        read_grid(path)
    print("still here", file=sys.stderr)
    assert "still here" in capfd.readouterr().err
