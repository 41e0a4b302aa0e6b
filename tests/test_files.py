"""Files appear whole or not at all, and what cannot be written is reported in one line."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from r2seg.errors import UserError
from r2seg.files import why_not_writable, write_atomically, write_json, write_text


def litter(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if path.name.startswith(".")}


def message_of(function, *arguments) -> str:
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


def test_a_folder_that_cannot_be_written_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert message_of(write_text, tmp_path / "file" / "x.txt", "x").startswith(
        f"{tmp_path}/file/x.txt: cannot be written: "
    )
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "x").touch()
    assert "folder: cannot be written: Is a directory" in message_of(write_text, tmp_path / "folder", "x")
    assert not litter(tmp_path)


WRITER = """
import sys, time
from pathlib import Path
from r2seg.files import why_not_writable, write_atomically
def slow(file):
    file.write(b"half")
    file.flush()
    print("writing", flush=True)
    time.sleep(100)
write_atomically(Path(sys.argv[1]), slow)
"""


def start_writing(path: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "writing\n"
    return process


def test_what_kill_left_behind_is_removed_by_the_next_write_of_the_same_file(tmp_path: Path) -> None:
    killed = start_writing(tmp_path / "a.txt")
    other = start_writing(tmp_path / "b.txt")
    for process in (killed, other):
        process.kill()
        process.wait()
    assert len(litter(tmp_path)) == 2
    write_text(tmp_path / "a.txt", "whole")
    assert [name[:7] for name in litter(tmp_path)] == [".b.txt."]
    write_text(tmp_path / "b.txt", "whole")
    assert sorted(os.listdir(tmp_path)) == ["a.txt", "b.txt"]


def test_what_a_living_process_writes_is_left_alone(tmp_path: Path) -> None:
    living = start_writing(tmp_path / "a.txt")
    try:
        before = litter(tmp_path)
        write_text(tmp_path / "a.txt", "whole")
        assert len(before) == 1 and litter(tmp_path) == before
    finally:
        living.kill()
        living.wait()


def test_only_our_own_old_folders_are_removed(tmp_path: Path) -> None:
    """Folders of earlier versions or other machines after a week; what merely looks alike, never."""
    old, new, elsewhere = ".a.txt.abcd1234.tmp", ".a.txt.efgh5678.tmp", ".a.txt.00000000-1-abcd1234.tmp"
    alike = (".a.txt.backup.of.mine.tmp", ".a.txt.tmp", ".a.txt.b.abcd1234.tmp")
    for name in (old, new, elsewhere, *alike):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x").touch()
    for name in (old, elsewhere, *alike):
        os.utime(tmp_path / name, (0, 0))
    (tmp_path / ".a.txt.qrst1234.tmp").write_text("a file")
    write_text(tmp_path / "a.txt", "whole")
    assert litter(tmp_path) == {new, *alike, ".a.txt.qrst1234.tmp"}


def test_a_long_name_leaves_room_for_the_hidden_folder(tmp_path: Path) -> None:
    write_text(tmp_path / ("ä" * 120), "x")
    assert os.listdir(tmp_path) == ["ä" * 120]


def test_whether_a_folder_can_be_written_is_tried(tmp_path: Path) -> None:
    assert why_not_writable(tmp_path) is None
    assert os.listdir(tmp_path) == []
    assert why_not_writable(Path("/proc")) is not None  # where permissions allow root everything
