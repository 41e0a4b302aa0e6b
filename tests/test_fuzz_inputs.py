"""Fifty damaged or odd files of all formats: each a clear line or a right answer. `python tests/fuzz_inputs.py` runs more."""

from pathlib import Path

from fuzz_files import VALID
from fuzz_inputs import run

from r2seg.data.formats import FORMATS


def test_fifty_damaged_files_are_clear_errors_or_right_answers(tmp_path: Path) -> None:
    results = run(50, 1, tmp_path)
    assert [f"{one.what}: {one.reason}" for one in results if one.outcome == "failure"] == []
    assert len(results) == 50
    assert min(sum(one.outcome == kind for one in results) for kind in ("error", "right")) > 5


def test_every_family_of_formats_is_tried() -> None:
    tried = {"".join(Path(valid.name).suffixes) for valid in VALID}
    assert tried >= set(FORMATS) - {".jpeg", ".tiff", ".pnm", ".pbm", ".ppm.gz", ".pnm.gz"}
