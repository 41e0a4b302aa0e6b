"""``data.labels``: what a config may declare of a label, what becomes of it, and the messages about mistakes."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import yaml

from r2seg.config import Config, ConfigError, dump_config, load_config
from r2seg.labels import Code, Label


def write(folder: Path, labels: str, more: str = "") -> Path:
    path = folder / "c.yaml"
    path.write_text(f"name: x\ndata:\n  root: .\n  labels: {labels}\n{more}window: {{size: [16, 16]}}\n")
    return path


LUNG = Code("SCT", "39607008", "Lung")

DECLARATIONS: dict[str, dict[str, Label]] = {
    "{lung: 1}": {"lung": Label((1,))},
    "{lung: [1, 2]}": {"lung": Label((1, 2))},
    "{lung: [3, 1, 2]}": {"lung": Label((3, 1, 2))},  # three values: none is 0 and none repeats
    "{lung: {value: 1}}": {"lung": Label((1,))},
    "{lung: {value: [1, 2], color: '#3b82f6'}}": {"lung": Label((1, 2), color=(0x3B, 0x82, 0xF6))},
    "{lung: {value: 1, color: [0, 128, 255]}}": {"lung": Label((1,), color=(0, 128, 255))},
    "{lung: {value: 1, code: {scheme: SCT, value: '39607008', meaning: Lung}}}": {"lung": Label((1,), code=LUNG)},
    "{lung: {value: 1, code: 'SCT:39607008'}}": {"lung": Label((1,), code=Code("SCT", "39607008"))},
    "{plane: [128, 0, 0], cat: [64, 0, 0]}": {
        "plane": Label((1,), rgb=[(128, 0, 0)]),
        "cat": Label((2,), rgb=[(64, 0, 0)]),
    },
    "{a: 1, grey: [7, 7, 7]}": {"a": Label((1,)), "grey": Label((2,), rgb=[(7, 7, 7)])},
    "{a: {rgb: [128, 64, 32]}}": {"a": Label((1,), rgb=[(128, 64, 32)])},
    "{lung: {value: 1, structures: [Lung_L, Lung_R]}}": {"lung": Label((1,), structures=("Lung_L", "Lung_R"))},
    "{a: 1, lung: {structures: [Lung_L, Lung_R]}}": {
        "a": Label((1,)),
        "lung": Label((2,), structures=("Lung_L", "Lung_R")),
    },
    "{a: {value: 9, rgb: [[1, 2, 3], '#ff0000']}}": {"a": Label((9,), rgb=[(1, 2, 3), (255, 0, 0)])},
}


@pytest.mark.parametrize("text", DECLARATIONS)
def test_a_label_is_its_values_and_more_and_survives_writing_and_pickling(tmp_path: Path, text: str) -> None:
    config = load_config(write(tmp_path, text))
    expected = DECLARATIONS[text]
    again = tmp_path / "again.yaml"
    again.write_text(dump_config(config))
    for found in (
        config,
        load_config(again),
        pickle.loads(pickle.dumps(config)),
        Config.model_validate(config.model_dump()),
    ):
        labels = found.data.labels
        assert labels == {name: tuple(label) for name, label in expected.items()}
        assert {name: vars(label) for name, label in labels.items()} == {
            n: vars(label) for n, label in expected.items()
        }


def test_labels_without_colours_are_written_as_they_always_were(tmp_path: Path) -> None:
    written = yaml.safe_load(dump_config(load_config(write(tmp_path, "{lung: 1, heart: [2, 3]}"))))
    assert written["data"]["labels"] == {"lung": 1, "heart": [2, 3]}


@pytest.mark.parametrize(
    ("ignored", "value"), [("255", 255), ("[224, 224, 192]", (224, 224, 192)), ("'#e0e0c0'", (224, 224, 192))]
)
def test_ignored_pixels_have_a_value_or_a_colour(tmp_path: Path, ignored: str, value: object) -> None:
    config = load_config(write(tmp_path, "{a: [128, 0, 0]}", f"  ignore_label: {ignored}\n"))
    again = tmp_path / "again.yaml"
    again.write_text(dump_config(config))
    assert config.data.ignore_label == load_config(again).data.ignore_label == value


COLOUR = "give a colour: [128, 0, 0] or '#800000'"
WRONG = {
    "{a: {value: 1, colour: red}}": "data.labels.a.colour: unknown key; did you mean data.labels.a.color?",
    "{a: {color: '#112233'}}": "data.labels: a has no value: give value, rgb for masks in colours, or structures",
    "{a: {}}": "data.labels: a has no value",
    "{a: {value: 1, color: red}}": f"data.labels.a.color: 'red': {COLOUR}",
    "{a: {value: 1, color: '#12345'}}": f"data.labels.a.color: '#12345': {COLOUR}",
    "{a: {value: 1, color: '#000000'}}": "data.labels: a has the color '#000000': black is background",
    "{a: {value: 0}}": "data.labels.a.value: 0: must be greater than or equal to 1",
    "{a: {value: [1, x]}}": "data.labels.a.value.1: 'x': give a whole number",
    "{a: {rgb: [1, 2]}}": f"data.labels.a.rgb: [1, 2]: {COLOUR}",
    "{a: {rgb: [1, 2, 256]}}": f"data.labels.a.rgb: [1, 2, 256]: {COLOUR}",
    "{a: [0, 0, 0]}": "data.labels: a has the colour [0, 0, 0]: black is background",
    "{a: [300, 0, 0]}": "data.labels.a: [300, 0, 0]: a colour has three numbers from 0 to 255, and values are at least 1",
    "{a: [1, 0]}": "data.labels.a.1: 0: must be greater than or equal to 1",
    "{a: [128, 0, 0], b: [128, 0, 0]}": "data.labels: a and b both have the colour [128, 0, 0]",
    "{a: {rgb: [[1, 2, 3], [1, 2, 3]]}}": "data.labels: a holds the colour [1, 2, 3] twice",
    "{a: 2, b: [128, 0, 0]}": "data.labels: a and b both take the value 2, the number of b in the list: give b another value",
    "{a: {value: 1, color: '#ff0000'}, b: {value: 2, color: '#ff0000'}}": "a and b both have the color '#ff0000'",
    "{a: {value: 1, color: '#ff0000'}, b: [255, 0, 0]}": "a is drawn in [255, 0, 0], which stands for b in the files",
    "{a: {value: 1, structures: [B]}, b: 2}": "data.labels: a and b both have the structure 'b'",
    "{a: {value: 1, code: 39607008}}": "data.labels.a.code: 39607008: give keys and values",
    "{a: {value: 1, code: lung}}": "data.labels.a.code: 'lung': give scheme and value, such as 'SCT:39607008'",
    "{a: {value: 1, code: {scheme: SCT, value: 39607008}}}": "data.labels.a.code.value: 39607008: give a text: put it in quotes",
    "{a: {value: 1, code: {scheme: SCT}}}": "data.labels.a.code.value: is missing",
}  # fmt: skip


@pytest.mark.parametrize("text", WRONG)
def test_a_wrong_declaration_is_told_in_one_line(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(write(tmp_path, text))
    (problem,) = caught.value.problems
    assert "c.yaml:4: data.labels" in problem and WRONG[text] in problem


@pytest.mark.parametrize(
    ("ignored", "message"),
    [
        ("[128, 0, 0]", "[128, 0, 0] is also a colour of the label a"),
        ("1", "1 is also a value of the label a"),
        ("[0, 0, 0]", "[0, 0, 0]: black is background, which cannot be ignored"),
        ("[1, 2]", f"[1, 2]: {COLOUR}"),
        ("0", "0: must be greater than or equal to 1"),
        ("white", f"'white': {COLOUR}"),
    ],
)
def test_wrong_ignored_pixels_are_told_in_one_line(tmp_path: Path, ignored: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(write(tmp_path, "{a: [128, 0, 0]}", f"  ignore_label: {ignored}\n"))
    (problem,) = caught.value.problems
    assert f"c.yaml:5: data.ignore_label: {message}" in problem
