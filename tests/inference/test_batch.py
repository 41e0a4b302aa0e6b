"""Many inputs: which files make a case, where outputs go, and what happens when one fails."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from r2seg.data.cases import Case
from r2seg.data.images import read_image
from r2seg.errors import UserError
from r2seg.inference.batch import Outcome, infer, plan_case_jobs, plan_jobs
from r2seg.inference.outcomes import refuse_data_files, write_outcomes
from r2seg.inference.segmenter import Segmenter


def touch(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")
    return root


def planned(inputs: list[Path], output: Path, channels: int, root: Path) -> dict[str, tuple[str, ...]]:
    """Output -> inputs, both relative."""
    return {
        job.output.relative_to(output).as_posix(): tuple(path.relative_to(root).as_posix() for path in job.images)
        for job in plan_jobs(inputs, output, channels)
    }


def test_folders_are_searched_below_themselves_and_paths_kept(tmp_path: Path) -> None:
    scans = touch(tmp_path / "scans", "a.nii.gz", "site one/b.nii", "site one/deep/c.jpg", "notes.txt", ".hidden/d.nii")
    assert planned([scans], tmp_path / "out", 1, scans) == {
        "a.nii.gz": ("a.nii.gz",),
        "site one/b.nii": ("site one/b.nii",),
        "site one/deep/c.png": ("site one/deep/c.jpg",),
    }


def test_channel_files_are_one_case_where_the_run_has_as_many_channels(tmp_path: Path) -> None:
    scans = touch(tmp_path / "scans", "a_0000.nii.gz", "a_0001.nii.gz", "b_0000.nii.gz", "b_0001.nii.gz")
    assert planned([scans], tmp_path / "out", 2, scans) == {
        "a.nii.gz": ("a_0000.nii.gz", "a_0001.nii.gz"),
        "b.nii.gz": ("b_0000.nii.gz", "b_0001.nii.gz"),
    }
    loose = [scans / "a_0001.nii.gz", scans / "a_0000.nii.gz"]
    assert planned(loose, tmp_path / "out", 2, scans) == {"a.nii.gz": ("a_0000.nii.gz", "a_0001.nii.gz")}


def test_an_output_with_an_image_suffix_takes_one_case(tmp_path: Path) -> None:
    scans = touch(tmp_path / "scans", "a.nii.gz", "b.nii.gz")
    assert plan_jobs([scans / "a.nii.gz"], tmp_path / "mask.nii.gz", 1)[0].output == tmp_path / "mask.nii.gz"
    with pytest.raises(UserError, match="one file, but there are 2 cases"):
        plan_jobs([scans], tmp_path / "mask.nii.gz", 1)


def test_what_lies_in_the_output_folder_is_not_an_input(tmp_path: Path) -> None:
    scans = touch(tmp_path / "scans", "a.nii.gz", "out/a.nii.gz")
    assert planned([scans], scans / "out", 1, scans) == {"a.nii.gz": ("a.nii.gz",)}


def test_an_output_folder_around_the_inputs_hides_none_of_them(tmp_path: Path) -> None:
    scans = touch(tmp_path / "scans", "a.nii.gz")
    assert planned([scans], tmp_path, 1, scans) == {"a.nii.gz": ("a.nii.gz",)}
    with pytest.raises(UserError, match=r"a\.nii\.gz is an input and would be overwritten"):
        plan_jobs([scans], scans, 1)


def test_a_case_that_is_named_twice_is_one(tmp_path: Path) -> None:
    scans = touch(tmp_path / "scans", "a.nii.gz", "b.nii.gz")
    twice = [scans / "a.nii.gz", scans, scans / "a.nii.gz"]
    assert planned(twice, tmp_path / "out", 1, scans) == {"a.nii.gz": ("a.nii.gz",), "b.nii.gz": ("b.nii.gz",)}


def test_probability_maps_overwrite_neither_inputs_nor_label_maps(tmp_path: Path) -> None:
    inside = touch(tmp_path / "one", "probabilities/a.nii.gz")
    with pytest.raises(UserError, match=r"probabilities/a\.nii\.gz is an input and would be overwritten"):
        plan_jobs([inside / "probabilities"], inside, 1, probabilities=True)
    both = touch(tmp_path / "two", "a.nii.gz", "probabilities/a.nii.gz")
    with pytest.raises(UserError, match=r"would both be written to .*out/probabilities/a\.nii\.gz"):
        plan_jobs([both], tmp_path / "out", 1, probabilities=True)
    assert len(plan_jobs([both], tmp_path / "out", 1)) == 2


def test_probabilities_of_two_pictures_are_never_one_file(tmp_path: Path) -> None:
    scans = touch(tmp_path / "scans", "a.png", "a.tif")
    assert len(plan_jobs([scans], tmp_path / "out", 1)) == 2
    with pytest.raises(UserError, match=r"a\.png and .*a\.tif would both be written to .*probabilities/a\.npy"):
        plan_jobs([scans], tmp_path / "out", 1, probabilities=True)


def test_the_second_file_of_a_format_overwrites_nothing(tmp_path: Path) -> None:
    """a.zraw of a.mhd, a.hdr of a.img."""
    scans = touch(tmp_path / "scans", "a.nii.gz", "a.zraw", "b.hdr")
    for name, second in (("a.mhd", "a.zraw"), ("b.img", "b.hdr")):
        with pytest.raises(UserError, match=rf"{second} exists, belongs to another file and would be overwritten"):
            plan_jobs([scans / "a.nii.gz"], scans / name, 1)
    (scans / "a.mhd").touch()  # an earlier output
    assert len(plan_jobs([scans / "a.nii.gz"], scans / "a.mhd", 1)) == 1


def test_reference_labels_are_never_overwritten(tmp_path: Path) -> None:
    root = touch(tmp_path, "images/a.nii.gz", "labels/a.nii.gz")
    case = Case("a", (root / "images/a.nii.gz",), (root / "labels/a.nii.gz",))
    for plan in (
        lambda: plan_jobs([root / "images"], root / "labels", 1, protected=[root / "labels"]),
        lambda: plan_case_jobs([case], root / "labels", protected=[root / "labels"]),
    ):
        with pytest.raises(UserError, match="in the folder of the run's reference labels"):
            plan()


def test_files_of_the_data_are_never_overwritten_whatever_their_layout(tmp_path: Path) -> None:
    """As nnU-Net's labelsTr/; an earlier label map, which outcomes.json lists, may be replaced."""
    root = touch(tmp_path, "imagesTr/a_0000.nii.gz", "labelsTr/a.nii.gz", "mine/a.nii.gz")
    case = Case("a", (root / "imagesTr/a_0000.nii.gz",), (root / "labelsTr/a.nii.gz",))
    with pytest.raises(UserError, match=r"labelsTr/a\.nii\.gz is a file of the run's data and would be overwritten"):
        refuse_data_files(root / "labelsTr", plan_case_jobs([case], root / "labelsTr"), [root])
    (job,) = plan_case_jobs([case], root / "mine")
    with pytest.raises(UserError, match=r"mine/a\.nii\.gz is a file of the run's data"):
        refuse_data_files(root / "mine", [job], [root])
    write_outcomes(root / "mine", [Outcome(job, error="it failed, so the file is not ours")])
    with pytest.raises(UserError, match=r"mine/a\.nii\.gz is a file of the run's data"):
        refuse_data_files(root / "mine", [job], [root])
    write_outcomes(root / "mine", [Outcome(job)])
    refuse_data_files(root / "mine", [job], [root])
    refuse_data_files(root / "labelsTr", plan_case_jobs([case], root / "labelsTr"), [tmp_path / "elsewhere"])


def test_a_place_that_cannot_be_written_is_reported_before_the_first_case(tmp_path: Path) -> None:
    touch(tmp_path, "a.nii.gz", "file.txt")
    with pytest.raises(UserError, match=r"cannot be written to .*file\.txt: it is not a folder"):
        plan_jobs([tmp_path / "a.nii.gz"], tmp_path / "file.txt" / "out", 1)


def test_a_read_only_output_is_found_before_the_first_case(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By trying: root may write anywhere by the permissions, and still not on a read-only file system."""
    touch(tmp_path, "a.nii.gz")
    with pytest.raises(UserError, match=r"/proc/r2seg/a\.nii\.gz cannot be written to /proc: "):
        plan_jobs([tmp_path / "a.nii.gz"], Path("/proc/r2seg"), 1)

    def read_only(*_, **__):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("tempfile.mkdtemp", read_only)
    with pytest.raises(UserError, match=r"cannot be written to .*: read-only file system; name another folder with -o"):
        plan_jobs([tmp_path / "a.nii.gz"], tmp_path / "out", 1)
    monkeypatch.undo()
    (tmp_path / "out/a.nii.gz").mkdir(parents=True)
    with pytest.raises(UserError, match=r"out/a\.nii\.gz is a folder"):
        plan_jobs([tmp_path / "a.nii.gz"], tmp_path / "out", 1)


def test_an_input_is_never_overwritten(tmp_path: Path) -> None:
    scans = touch(tmp_path / "scans", "a.nii.gz")
    with pytest.raises(UserError, match=r"a\.nii\.gz is an input and would be overwritten"):
        plan_jobs([scans / "a.nii.gz"], scans, 1)
    (tmp_path / "link").symlink_to(scans)
    with pytest.raises(UserError, match="would be overwritten"):
        plan_jobs([tmp_path / "link" / "a.nii.gz"], scans, 1)


def test_two_inputs_for_one_output_are_refused_before_anything_runs(tmp_path: Path) -> None:
    touch(tmp_path, "one/a.nii.gz", "two/a.nii.gz", "three/x.jpg", "three/x.png")
    with pytest.raises(UserError, match=r"one/a\.nii\.gz and .*two/a\.nii\.gz would both be written to"):
        plan_jobs([tmp_path / "one", tmp_path / "two"], tmp_path / "out", 1)
    with pytest.raises(UserError, match=r"x\.jpg and .*x\.png would both"):
        plan_jobs([tmp_path / "three"], tmp_path / "out", 1)


@pytest.mark.parametrize("name", ["nowhere", "empty"])
def test_inputs_that_are_not_there_are_reported(name: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no such file or folder" if name == "nowhere" else "holds no image"):
        plan_jobs([tmp_path / name], tmp_path / "out", 1)


def test_a_failing_case_is_named_and_the_others_continue(tiny_run: Path, tiny_volumes: Path, tmp_path: Path) -> None:
    scans = tmp_path / "scans"
    scans.mkdir()
    good = nib.load(tiny_volumes / "images/case_3.nii.gz")
    for name in ("a", "e"):
        nib.save(good, scans / f"{name}.nii.gz")
    broken = np.asarray(good.dataobj, dtype=np.float32).copy()
    broken[1, 2, 3] = np.nan
    nib.save(nib.Nifti1Image(broken, good.affine), scans / "b.nii.gz")
    (scans / "c.nii.gz").write_bytes((scans / "a.nii.gz").read_bytes()[:900])
    (scans / "d.nii.gz").write_bytes(b"")
    jobs = plan_jobs([scans], tmp_path / "out", 1)
    outcomes = infer(Segmenter.from_run(tiny_run, "cpu"), jobs)
    errors = {outcome.job.output.name[0]: outcome.error for outcome in outcomes}
    assert errors["a"] is None and errors["e"] is None
    assert "NaN" in errors["b"] and "truncated" in errors["c"] and "empty" in errors["d"]
    assert all("\n" not in error for error in errors.values() if error)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.nii.gz", "e.nii.gz"]


def test_nothing_but_an_interruption_ends_a_batch(
    tiny_run: Path, tiny_volumes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scans = tmp_path / "scans"
    scans.mkdir()
    for name in ("a", "b", "c"):
        nib.save(nib.load(tiny_volumes / "images/case_3.nii.gz"), scans / f"{name}.nii.gz")
    segmenter = Segmenter.from_run(tiny_run, "cpu")
    segment = segmenter.segment

    def odd(images, **options):
        if images[0].name == "b.nii.gz":
            raise error
        return segment(images, **options)

    monkeypatch.setattr(segmenter, "segment", odd)
    for error in (
        TypeError("can't convert\nthis"),
        KeyError("x"),
        AssertionError(),
        UnicodeDecodeError("utf-8", b"", 0, 1, "x"),
    ):
        outcomes = infer(segmenter, plan_jobs([scans], tmp_path / "out", 1))
        assert [outcome.error is None for outcome in outcomes] == [True, False, True]
        assert f"unexpected {type(error).__name__}" in outcomes[1].error and "\n" not in outcomes[1].error
    error = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        infer(segmenter, plan_jobs([scans], tmp_path / "out", 1))


def test_longdouble_pictures_are_read(tmp_path: Path) -> None:
    values = np.random.default_rng(0).random((20, 30)).astype(np.longdouble)
    np.save(tmp_path / "a.npy", values)
    image = read_image(tmp_path / "a.npy")
    assert image.array.dtype == np.float64
    np.testing.assert_array_equal(image.array[0], values.astype(np.float64))
