"""Files appear whole or not at all, and what cannot be written is told in one line."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pytest

from r2seg.errors import UserError
from r2seg.files import write_atomically, write_json, write_text


def litter(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if path.name.startswith(".")}


def told(function, *arguments) -> str:
    with pytest.raises(UserError) as caught:
        function(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("error", [ValueError("bad"), KeyboardInterrupt(), RuntimeError("odd")])
def test_a_writer_that_fails_leaves_the_old_file_and_no_litter(tmp_path: Path, error: BaseException) -> None:
    path = tmp_path / "file.txt"
    write_text(path, "old")

    def fail(file: io.BufferedWriter) -> None:
        file.write(b"half of the ne")
        raise error

    with pytest.raises(type(error)):
        write_atomically(path, fail)
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["file.txt"]


def test_nothing_appears_before_the_file_is_whole(tmp_path: Path) -> None:
    def look(file: io.BufferedWriter) -> None:
        file.write(b"new")
        assert not (tmp_path / "file.txt").exists()

    write_atomically(tmp_path / "file.txt", look)
    assert (tmp_path / "file.txt").read_bytes() == b"new"


def test_written_files_have_the_permissions_of_any_file(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write_text(tmp_path / "file.txt", "x")
    finally:
        os.umask(before)
    assert (tmp_path / "file.txt").stat().st_mode & 0o777 == 0o640


def test_text_is_utf_8_and_json_ends_with_a_line(tmp_path: Path) -> None:
    write_text(tmp_path / "a" / "b.txt", "Lunge ü 肺")
    assert (tmp_path / "a" / "b.txt").read_bytes() == "Lunge ü 肺".encode()
    write_json(tmp_path / "c.json", {"a": [1]})
    assert (tmp_path / "c.json").read_text().endswith("}\n")


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert told(write_text, tmp_path / "file" / "x.txt", "x").startswith(f"{tmp_path}/file/x.txt: cannot be written: ")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "x").touch()
    assert "folder: cannot be written: Is a directory" in told(write_text, tmp_path / "folder", "x")
    assert not litter(tmp_path)
