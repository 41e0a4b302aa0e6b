"""The options of an evaluation: declared once, checked when they are made, read by the command and by the report."""

from __future__ import annotations

import dataclasses
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import typer.main

from r2seg.cli import app_of
from r2seg.errors import UserError
from r2seg.evaluation.options import DECLARED, HEADINGS, EvaluationOptions
from r2seg.evaluation.write import FORMATS
from r2seg.metrics.catalogue import FAMILIES, MEASURES

OWN_OF_THE_COMMAND = {"predictions", "references", "split", "threshold_from", "output", "formats", "device"}


def parameters() -> dict[str, typer.core.TyperOption]:
    return {each.name: each for each in typer.main.get_command(app_of("evaluate")).params}


def test_every_option_is_documented() -> None:
    assert len(DECLARED) == 25
    for name, about in DECLARED.items():
        assert about.help.endswith((".", "]")), name
        assert f"{name}: {about.help}" in EvaluationOptions.__doc__


def test_the_command_has_every_option_with_a_heading_and_its_default() -> None:
    found = parameters()
    declared = {name for name, about in DECLARED.items() if about.heading is not None}
    assert set(found) - OWN_OF_THE_COMMAND == declared
    assert {about.heading for about in DECLARED.values()} - {None} <= set(HEADINGS)
    options = EvaluationOptions()
    for name in ("prediction_name", "missing", "tolerance_mm", "resample", "workers", "masks"):
        assert found[name].default == getattr(options, name), name
    assert found["measures"].default == "counts,volumes"


def test_the_help_names_every_family_format_and_rule() -> None:
    found = parameters()
    assert [name for name in FAMILIES if name not in found["measures"].help] == []
    assert [name for name in FORMATS if name not in found["formats"].help] == []
    assert found["missing"].help.startswith("miss: ") and "skip: " in found["missing"].help
    assert found["undeclared"].help.startswith("error: ") and "background: " in found["undeclared"].help


def test_paths_may_be_text_and_measures_become_their_names() -> None:
    options = EvaluationOptions(masks="fov", against=["a", Path("b")], measures=["volumes", "dice"])
    assert (options.masks, options.against) == (Path("fov"), (Path("a"), Path("b")))
    assert options.measures == ("dice", "volume_ml", "reference_volume_ml", "volume_difference_ml")
    assert EvaluationOptions(measures=["all"]).measures == tuple(MEASURES)


def test_labels_may_be_of_any_integer_type() -> None:
    options = EvaluationOptions(labels={"a": np.uint8(3), "b": np.array([1, 2]), "c": [4]})
    assert options.labels == {"a": 3, "b": (1, 2), "c": (4,)}


def test_options_are_frozen_and_survive_pickling_and_replacing() -> None:
    options = EvaluationOptions(labels={"a": [1, 2]}, threshold=0.4, group="^(x)")
    assert pickle.loads(pickle.dumps(options)) == options
    assert dataclasses.replace(options, workers=1) == EvaluationOptions(
        labels={"a": (1, 2)}, threshold=0.4, group="^(x)", workers=1
    )
    with pytest.raises(dataclasses.FrozenInstanceError):
        options.workers = 2


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        ({"missing": "no"}, r"missing is 'no': give one of miss, skip"),
        ({"undeclared": "no"}, r"undeclared is 'no': give one of error, background"),
        ({"measures": ["dise"]}, r"'dise' is not a measure; families: all, counts"),
        ({"tolerance_mm": -0.5}, r"tolerance_mm is -0\.5: give at least 0"),
        ({"workers": 0}, r"workers is 0: give at least 1"),
        ({"image_name": "x"}, r"image name 'x': write \{id\} once, and no folder"),
        ({"mask_name": "{id}{id}"}, r"mask name '\{id\}\{id\}': write \{id\} once"),
        ({"observer_name": "a/{id}"}, r"observer name 'a/\{id\}': write \{id\} once, and no folder"),
        ({"group": "["}, r"--group '\[': give a regular expression with one group"),
        ({"group": "abc"}, r"--group 'abc': give a regular expression with one group"),
        ({"labels": {}}, r"labels is empty"),
        ({"labels": {"a": 0}}, r"label a takes the value 0, which is that of the background"),
        ({"labels": {"a": 9}, "ignore_label": 9}, r"label a takes the value 9, which is that of ignore_label"),
        ({"threshold": 0}, r"threshold is 0: give a probability above 0"),
        ({"threshold": {"a": 2}}, r"threshold of a is 2: give a probability"),
        ({"threshold": "nowhere"}, r"nowhere: there are no thresholds"),
    ],
)
def test_a_wrong_value_is_refused_when_the_options_are_made(wrong: dict, text: str) -> None:
    with pytest.raises(UserError, match=text):
        EvaluationOptions(**wrong)


def test_help_reads_the_options_without_a_heavy_library() -> None:
    code = (
        "import sys, r2seg.evaluation.options, r2seg.evaluation.write;"
        "assert not {'torch', 'numpy', 'monai'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
