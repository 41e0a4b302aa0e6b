"""The commands as a user sees them: help, exit status, one line for a mistake, no traceback."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK
from commands import call
from tiny import write_config

BIN = Path(sys.executable).parent
COMMANDS = ("r2seg", "r2seg-train", "r2seg-infer", "r2seg-evaluate")


def run(*words: object, cwd: Path | None = None, **options) -> subprocess.CompletedProcess:
    command = [str(BIN / words[0]), *map(str, words[1:])]
    environment = {**os.environ, "COLUMNS": "200"}
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, env=environment, check=False, **options)


def assert_mistake(result: subprocess.CompletedProcess, *parts: str) -> None:
    """Exit status 2 and a message on stderr without a traceback."""
    assert result.returncode == 2, result.stderr + result.stdout
    assert "Traceback" not in result.stderr
    for part in parts:
        assert part in result.stderr


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_an_example_and_loads_neither_torch_nor_monai(command: str) -> None:
    result = run(command, "--help")
    assert result.returncode == 0
    assert "Usage:" in result.stdout
    if command != "r2seg":
        assert "Example:" in result.stdout
    loads = f"import sys, r2seg.cli; sys.argv = ['{command}', '--help']\ntry: r2seg.cli.{'main' if command == 'r2seg' else command[6:] + '_main'}()\nexcept SystemExit: pass\nprint('LOADED', [name for name in ('torch', 'monai', 'numpy', 'nibabel') if name in sys.modules])"
    printed = subprocess.run([sys.executable, "-c", loads], capture_output=True, text=True, check=True).stdout
    assert "LOADED []" in printed


@pytest.mark.parametrize("command", COMMANDS)
def test_help_takes_less_than_half_a_second_of_the_processor(command: str) -> None:
    """Its own time, which is as long on a busy machine; the least of three, as a busy machine's caches are cold."""
    seconds: list[float] = []
    while len(seconds) < 3 and min(seconds, default=1) >= 0.5:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        run(command, "--help")
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert min(seconds) < 0.5, seconds


def test_the_commands_are_also_subcommands() -> None:
    result = call("r2seg", "--help")
    for name in ("train", "infer", "evaluate"):
        assert name in result.stdout


def test_a_typo_in_the_config_ends_with_2_and_the_right_name(tiny_volumes: Path, tmp_path: Path) -> None:
    config = write_config(tmp_path / "config.yaml", tiny_volumes, training={"lerning_rate": 0.1})
    assert_mistake(
        call("r2seg-train", config, cwd=tmp_path), "training.lerning_rate", "did you mean training.learning_rate?"
    )
    assert not (tmp_path / "runs").exists()


def test_the_error_for_a_missing_config_names_similar_files(tiny_volumes: Path, tmp_path: Path) -> None:
    write_config(tmp_path / "lung.yaml", tiny_volumes)
    assert_mistake(run("r2seg-train", tmp_path / "lungs.yaml"), "did you mean", "lung.yaml")


def test_a_missing_device_is_reported(tiny_volumes: Path, tmp_path: Path) -> None:
    config = write_config(tmp_path / "config.yaml", tiny_volumes)
    assert_mistake(call("r2seg-train", config, "--device", "cuda:77", cwd=tmp_path), "--device cuda:77")
    assert_mistake(
        call("r2seg-train", config, "--device", "gpu", cwd=tmp_path), "valid are auto, cpu, cuda, cuda:N, mps"
    )


def test_init_says_what_it_found_and_what_to_type_next(tiny_volumes: Path, tmp_path: Path) -> None:
    made = call("r2seg", "init", tiny_volumes, "-o", "my.yaml", "--budget", "2min", "--name", "balls", cwd=tmp_path)
    assert made.returncode == 0, made.stderr
    assert "layout   folder" in made.stdout and "not sure: the labels have no names yet: label_1" in made.stdout
    assert "next: r2seg check my.yaml" in made.stdout and "next: r2seg-train my.yaml" in made.stdout
    assert (tmp_path / "my.yaml").read_text().startswith("# Written by r2seg init.")
    assert_mistake(
        call("r2seg", "init", tiny_volumes, "-o", "my.yaml", cwd=tmp_path), "my.yaml exists already", "--force"
    )


def test_mistakes_of_init_are_one_line(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for words, message in (
        (["nowhere"], "nowhere: there is no such folder"),
        (["empty", "--budget", "soon"], "--budget soon: give a time such as 15min"),
        (["empty", "-o", "my.json"], "a config is YAML: give a name such as my.yaml"),
    ):
        assert_mistake(call("r2seg", "init", *words, cwd=tmp_path), message)
    assert not list(tmp_path.glob("*.yaml"))


def test_train_infer_evaluate_in_a_path_with_spaces_from_another_folder(tiny_volumes: Path, tmp_path: Path) -> None:
    here = tmp_path / "a folder with spaces"
    here.mkdir()
    config = write_config(here / "my config.yaml", tiny_volumes)
    trained = call("r2seg-train", config, "--set", "training.max_epochs=4", "--threads", 1, cwd=here)
    assert trained.returncode == 0, trained.stderr
    lines = trained.stdout.splitlines()
    assert lines[0].startswith("device cpu")
    assert sum(line.startswith("epoch ") for line in lines) == 4  # no terminal: one plain line per epoch
    assert "\r" not in trained.stdout and "\x1b" not in trained.stdout
    assert "Dice" in trained.stdout and "run folder: runs/tiny" in trained.stdout
    (command,) = [line for line in lines if line.startswith("next: r2seg-infer")]
    assert command == "next: r2seg-infer runs/tiny --split test -o predictions"

    again = call("r2seg-train", config, cwd=here)
    assert_mistake(again, "--resume", "-o RUN")

    inferred = call("r2seg", "infer", "runs/tiny", tiny_volumes / "images", "-o", "out put", "--threads", 1, cwd=here)
    assert inferred.returncode == 0, inferred.stderr
    assert len(list((here / "out put").glob("*.nii.gz"))) == 4

    scored = call("r2seg-evaluate", "out put", tiny_volumes / "labels", "-o", "report", cwd=here)
    assert scored.returncode == 0, scored.stderr
    assert "Dice" in scored.stdout
    assert {"cases.csv", "summary.json"} <= {path.name for path in (here / "report").iterdir()}

    held_out = call("r2seg-evaluate", "out put", "runs/tiny", cwd=here)
    assert held_out.returncode == 0, held_out.stderr
    assert "the test cases of runs/tiny (1)" in held_out.stdout


def test_a_failing_case_gives_exit_1_and_the_others_are_written(
    tiny_run: Path, tiny_volumes: Path, tmp_path: Path
) -> None:
    (tmp_path / "scans").mkdir()
    nib.save(nib.load(tiny_volumes / "images/case_3.nii.gz"), tmp_path / "scans/good.nii.gz")
    (tmp_path / "scans/bad.nii.gz").write_bytes(b"")
    result = call("r2seg-infer", tiny_run, tmp_path / "scans", "-o", tmp_path / "out", "--threads", 1)
    assert result.returncode == 1
    assert "FAILED" in result.stdout and "bad.nii.gz" in result.stdout and "1 of 2 cases written" in result.stdout
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["good.nii.gz", "outcomes.json"]


def test_a_ct_stored_with_another_offset_and_an_empty_mask_are_warned_of_by_name(
    tiny_run: Path, tiny_volumes: Path, tmp_path: Path
) -> None:
    """Each case's line says what was found; the terminal and outcomes.json name the cases to look at."""
    good = nib.load(tiny_volumes / "images/case_3.nii.gz")
    voxels = np.asarray(good.dataobj)
    (tmp_path / "scans").mkdir()
    nib.save(good, tmp_path / "scans/good.nii.gz")
    nib.save(nib.Nifti1Image((voxels + 1024).astype(np.int16), good.affine), tmp_path / "scans/offset.nii.gz")
    nib.save(nib.Nifti1Image(np.full_like(voxels, -900), good.affine), tmp_path / "scans/air.nii.gz")
    result = call("r2seg-infer", tiny_run, tmp_path / "scans", "-o", tmp_path / "out", "--threads", 1)
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    (line,) = [line for line in lines if "good.nii.gz ->" in line]
    mask = np.asarray(nib.load(tmp_path / "out/good.nii.gz").dataobj)
    millilitres = mask.sum() * 2 * 2.5 * 5 / 1000  # the voxel size of tiny.py
    assert f"  ball {millilitres:.3g} mL  " in line
    assert not [line for line in lines if "WARNING" in line and "good" in line]
    (warning,) = [line for line in lines if line.startswith(f"WARNING {tmp_path}/scans/offset.nii.gz: its intensities")]
    assert "are unlike those of the training cases" in warning and "another offset or scale" in warning
    assert f"WARNING {tmp_path}/scans/air.nii.gz: nothing was found" in result.stdout
    assert "3 of 3 cases written" in result.stdout and "2 with warnings" in result.stdout
    cases = json.loads((tmp_path / "out/outcomes.json").read_text())["cases"]
    assert sorted(cases) == ["air.nii.gz", "good.nii.gz", "offset.nii.gz"]
    assert cases["good.nii.gz"]["found"] == {
        "ball": {"voxels": int(mask.sum()), "millilitres": pytest.approx(millilitres)}
    }
    assert cases["good.nii.gz"]["warnings"] == [] and cases["good.nii.gz"]["error"] is None
    assert "unlike" in cases["offset.nii.gz"]["warnings"][0]
    # A later command into the same folder adds to the list.
    call("r2seg-infer", tiny_run, tiny_volumes / "images/case_0.nii.gz", "-o", tmp_path / "out", "--threads", 1)
    cases = json.loads((tmp_path / "out/outcomes.json").read_text())["cases"]
    assert sorted(cases) == ["air.nii.gz", "case_0.nii.gz", "good.nii.gz", "offset.nii.gz"]


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_file_names_that_are_not_utf_8_end_no_batch(
    encoding: str, tiny_run: Path, tiny_volumes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SimpleITK even ends the process on such a name: its formats fail with a reason, the others are written."""
    monkeypatch.setenv("PYTHONIOENCODING", encoding)
    scans = tmp_path / "scans"
    scans.mkdir()
    odd = os.fsdecode(b"sc\xffan")
    scan = nib.load(tiny_volumes / "images/case_3.nii.gz")
    for name in ("a", odd, "lung ü"):
        nib.save(scan, scans / f"{name}.nii.gz")
    SimpleITK.WriteImage(SimpleITK.ReadImage(str(scans / "a.nii.gz")), str(tmp_path / "b.mha"))
    os.replace(tmp_path / "b.mha", scans / f"{odd}.mha")
    words = ("r2seg-infer", tiny_run, scans, "-o", tmp_path / "out", "--threads", 1)
    result = call(*words) if encoding == "utf-8" else run(*words)
    assert result.returncode == 1, result.stderr
    assert "Traceback" not in result.stderr and "3 of 4 cases written" in result.stdout
    (line,) = [line for line in result.stdout.splitlines() if "FAILED" in line]
    assert ".mha: its name is not UTF-8" in line and "rename it" in line
    written = {path.name for path in (tmp_path / "out").iterdir()}
    assert written == {"a.nii.gz", f"{odd}.nii.gz", "lung ü.nii.gz", "outcomes.json"}
    assert len(json.loads((tmp_path / "out/outcomes.json").read_text())["cases"]) == 4


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"in_channels": 1}', "does not say image_dims: the run is damaged"),
        ('{"in_channels": "1", "image_dims": 3}', "in_channels is '1', expected a number from 1 to"),
        ('{"in_channels": 1, "image_dims": 7}', "image_dims is 7, expected a number from 2 to 3"),
        ('{"in_channels": 5, "image_dims": 3}', "does not fit the network"),
        ("[" * 100_000, "the run is damaged"),
        ("[]", "holds no keys and values: the run is damaged"),
    ],
)
def test_a_damaged_manifest_is_one_line(tiny_run: Path, tmp_path: Path, content: str, message: str) -> None:
    copy = shutil.copytree(tiny_run, tmp_path / "run")
    (copy / "manifest.json").write_text(content)
    np.save(tmp_path / "a.npy", np.zeros((9, 9)))
    result = call("r2seg-infer", copy, tmp_path / "a.npy", "-o", tmp_path / "out", "--threads", 1)
    assert_mistake(result, message)
    assert len([line for line in result.stderr.splitlines() if line.startswith("error: ")]) == 1


def test_infer_without_input_says_what_to_name(tiny_run: Path, tmp_path: Path) -> None:
    assert_mistake(call("r2seg-infer", tiny_run, "-o", tmp_path / "out"), "name images or folders", "--split test")


def long_training(folder: Path, root: Path) -> list[str]:
    config = write_config(folder / "config.yaml", root)
    return ["r2seg-train", str(config), "--threads", "1", "--device", "cpu", "--set", "training.max_epochs=5000"]


def wait_for_two_epochs(folder: Path) -> None:
    """So that the first was told."""
    rows, begun = folder / "runs/tiny/metrics.csv", time.monotonic()
    while not (rows.exists() and len(rows.read_text().splitlines()) > 2) and time.monotonic() - begun < 120:
        time.sleep(0.1)


# With the override, without which it would be another config, and with what the last bits depend on.
CONTINUE = "-o runs/tiny --set training.max_epochs=5000 --device cpu --threads 1 --resume"


def test_a_terminated_training_says_how_to_continue(tiny_volumes: Path, tmp_path: Path) -> None:
    """In a process of its own, which ends by the signal of a scheduler."""
    name, *words = long_training(tmp_path, tiny_volumes)
    process = subprocess.Popen(
        [str(BIN / name), *words], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    wait_for_two_epochs(tmp_path)
    process.send_signal(signal.SIGTERM)
    printed, message = process.communicate(timeout=60)
    assert process.returncode == 130
    assert printed.startswith("device cpu") and any(line.startswith("epoch ") for line in printed.splitlines())
    assert "\r" not in printed and "\x1b" not in printed  # no terminal
    assert CONTINUE in message and "Traceback" not in message


def test_an_interrupted_training_says_how_to_continue(tiny_volumes: Path, tmp_path: Path) -> None:
    def press_ctrl_c() -> None:
        wait_for_two_epochs(tmp_path)
        os.kill(os.getpid(), signal.SIGINT)

    # Where the tests are started in the background of a script, SIGINT is ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    waiting = threading.Thread(target=press_ctrl_c)
    waiting.start()
    try:
        result = call(*long_training(tmp_path, tiny_volumes), cwd=tmp_path)
    finally:
        waiting.join()
        signal.signal(signal.SIGINT, before)
    assert result.returncode == 130
    assert CONTINUE in result.stderr and "Traceback" not in result.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_during_an_import_ends_the_command_without_a_traceback(number: int, tmp_path: Path) -> None:
    """Libraries swallow what is raised while they are imported, and then fail elsewhere."""
    (tmp_path / "slow.py").write_text(
        "import time\nprint('importing', flush=True)\ntry:\n    time.sleep(1)\nexcept BaseException:\n    pass\n"
    )
    code = """
from r2seg.cli.frame import command
import time, typer
@command
def main():
    import slow
    time.sleep(30)
typer.run(main)
"""
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stdout is not None and process.stdout.readline() == "importing\n"
    process.send_signal(number)
    _, message = process.communicate(timeout=60)
    assert (process.returncode, message) == (130, "stopped\n")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_folder_is_reported_in_one_line(tiny_volumes: Path, tmp_path: Path) -> None:
    config = write_config(tmp_path / "config.yaml", tiny_volumes)
    (tmp_path / "locked").mkdir(mode=0o500)
    assert_mistake(call("r2seg-train", config, "-o", tmp_path / "locked/run"), "locked")
