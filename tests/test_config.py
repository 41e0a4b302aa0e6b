"""The config: what is accepted, how mistakes are told, and that nothing changes on the way to a run and back."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml
from imports import imported_anew
from pydantic import ValidationError

from r2seg.config import Config, ConfigError, build_configured_network, dump_config, load_config, with_network_defaults
from r2seg.config.yaml_text import parse_yaml
from r2seg.networks import NETWORKS, network_options

BASE = """\
name: x
data:
  root: data
  labels: {lung: 1}
window: {size: [16, 16], plane: axial}
network: {name: R2UNet, channels: [4, 8], steps: 1}
"""


@pytest.fixture
def write(tmp_path: Path):
    (tmp_path / "data").mkdir()

    def write_text(text: str | bytes, *, old: str = "", new: str = "") -> Path:
        if old:
            assert old in text
            text = text.replace(old, new)
        path = tmp_path / "c.yaml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode("utf-8"))
        return path

    return write_text


def problems_of(path: Path, *overrides: str, require_data: bool = False) -> list[str]:
    """The lines of the error, with the config's folder cut off."""
    with pytest.raises(ConfigError) as caught:
        load_config(path, overrides, require_data=require_data)
    assert str(caught.value) == "\n".join(caught.value.problems)
    assert all("\n" not in line for line in caught.value.problems)
    return [line.replace(f"{path.parent}/", "") for line in caught.value.problems]


def test_every_mistake_of_a_file_is_told_at_once_with_line_key_value_and_remedy(write) -> None:
    path = write("""\
nam: x
data:
  root: nowhere
  labels: {lung: 0, heart: x}
  splt: {validation: 0.2}
window: {size: [16, 16], plne: axial, overlap: 1}
network: {name: R2UNet, chanels: [4, 8], dropout: high}
training:
  max_epoch: 3
  learning_rate: -1
bogus: 3
postprocessing:
  - {step: largest_component, label: lung}
  - {step: fill_holes, label: lng}
""")
    assert problems_of(path, require_data=True) == [
        "c.yaml:1: name: is missing",
        "c.yaml:1: nam: unknown key; did you mean name?",
        "c.yaml:3: data.root: there is no folder nowhere; it is taken relative to the config file",
        "c.yaml:4: data.labels.lung: 0: must be greater than or equal to 1",
        "c.yaml:4: data.labels.heart: 'x': give a whole number, or a list of them",
        "c.yaml:5: data.splt: unknown key; did you mean data.split?",
        "c.yaml:6: window.overlap: 1: must be less than 1",
        "c.yaml:6: window.plne: unknown key; did you mean window.plane?",
        "c.yaml:7: network.chanels: R2UNet has no such option; did you mean channels?",
        "c.yaml:7: network.dropout: R2UNet's option dropout is 'high': give a number",
        "c.yaml:9: training.max_epoch: unknown key; did you mean training.max_epochs?",
        "c.yaml:10: training.learning_rate: -1: must be greater than 0",
        "c.yaml:11: bogus: unknown key; valid here: augmentation, data, infer, name, network, postprocessing, "
        "preprocessing, sampling, seed, training, window",
        "c.yaml:13: postprocessing.0: 'largest_component' is not valid; did you mean largest_components?",
        "c.yaml:14: postprocessing.1.label: 'lng' is none of data.labels; did you mean lung?",
    ]


@pytest.mark.parametrize("text", ["1e-4", "1E-4", "1.0e-4", "0.0001", ".0001", "1.e-4", "100e-6", "+1e-4"])
def test_one_e_minus_four_is_a_number_in_every_spelling(write, text: str) -> None:
    assert load_config(write(BASE + f"training: {{learning_rate: {text}}}\n")).training.learning_rate == 1e-4


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ('training: {max_epochs: "5"}', "training.max_epochs: '5': give a whole number"),
        ("training: {max_epochs: true}", "training.max_epochs: true: give a whole number"),
        ("training: {max_epochs: 5.0}", "training.max_epochs: 5.0: give a whole number"),
        ("training: {max_epochs: 0}", "training.max_epochs: 0: must be greater than 0"),
        ("training: {max_epochs: [5]}", "training.max_epochs: [5]: give a whole number"),
        ("training: {learning_rate: true}", "training.learning_rate: true: give a number"),
        ('training: {learning_rate: "1e-4"}', "training.learning_rate: '1e-4': give a number"),
        ("training: {learning_rate: .nan}", "training.learning_rate: nan: give a finite number"),
        ("training: {learning_rate: .inf}", "training.learning_rate: inf: give a finite number"),
        ("training: {weight_decay: -.5}", "training.weight_decay: -0.5: must be greater than or equal to 0"),
        ("training: {optimizer: adamww}", "training.optimizer: 'adamww' is not valid; did you mean adamw?"),
        (
            "training: {lr: 1}",
            "training.lr: unknown key; valid here: auxiliary_weight, backbone_learning_rate, early_stopping",
        ),
        ("training: {batch_size: 1}", "training.batch_size: unknown key; did you mean window.batch_size?"),
        ("training:", "training: null: give keys and values, or leave the section out"),
        ("training: 3", "training: 3: give keys and values, or leave the section out"),
        ("seed: -1", "seed: -1: must be greater than or equal to 0"),
        ("seed: 99999999999999999999", "seed: 99999999999999999999: must be less than 9223372036854775808"),
        ("seed: 010", "seed: '010': give a whole number"),
        ("seed: 1:30", "seed: '1:30': give a whole number"),
        ("seed: 2020-01-01", "seed: '2020-01-01': give a whole number"),
        ("name: y", "name: is given twice, in lines 1 and 7"),
        (
            "preprocessing: {intensity: {kind: hu_window, low: 1, high: 1}}",
            "intensity.high: 1 is not above low, 1",
        ),
        ("preprocessing: {intensity: {kind: percentile, low: 99.9}}", "intensity: 99.5 is not above low, 99.9"),
        ("preprocessing: {intensity: {kind: percentile, high: 101}}", "must be less than or equal to 100"),
        ("preprocessing: {intensity: {kind: hu_window, low: 0}}", "preprocessing.intensity.high: is missing"),
        (
            "preprocessing: {intensity: {kind: zscor}}",
            "preprocessing.intensity: 'zscor' is not valid; did you mean zscore",
        ),
        ("preprocessing: {intensity: {low: 1}}", "preprocessing.intensity: needs the key 'kind'"),
        ("preprocessing: {intensity: {kind: zscore, low: 1}}", "preprocessing.intensity.low: unknown key"),
        ("preprocessing: {spacing_mm: [1, 1]}", "preprocessing.spacing_mm: [1, 1]: give at least 3 entries"),
        ("preprocessing: {spacing_mm: [1, 0, 1]}", "preprocessing.spacing_mm.1: 0: must be greater than 0"),
        ("preprocessing: {spacing_mm: 1}", "preprocessing.spacing_mm: 1: give a list"),
        (
            "augmentation: {flip: [leftright]}",
            "augmentation.flip.0: 'leftright' is not valid; did you mean left-right?",
        ),
        ("augmentation: {noise: .inf}", "augmentation.noise: inf: give a finite number"),
        ("sampling: {foreground: 1.5}", "sampling.foreground: 1.5: must be less than or equal to 1"),
        ("postprocessing: {step: fill_holes, label: lung}", "give a list"),
        ("postprocessing: [{step: fill_holes}]", "postprocessing.0.label: is missing"),
        (
            "postprocessing: [{step: fill_holes, label: lung, count: 2}]",
            "postprocessing.0.count: unknown key; valid here: label, step",
        ),
    ],
)
def test_one_mistake_is_told_in_one_line_with_its_place(write, line: str, told: str) -> None:
    problems = problems_of(write(BASE + line + "\n"))
    assert len(problems) == 1
    assert problems[0].startswith("c.yaml:7: ")
    assert told in problems[0]


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("lung: 1", "lung: 0", "c.yaml:4: data.labels.lung: 0: must be greater than or equal to 1"),
        ("lung: 1", "lung: 65536", "c.yaml:4: data.labels.lung: 65536: must be less than or equal to 65535"),
        ("lung: 1", "lung: 256", "c.yaml:4: data.labels: lung is 256, but predictions are written with 8 bits"),
        ("lung: 1", 'lung: "1"', "c.yaml:4: data.labels.lung: '1': give a whole number, or a list of them"),
        ("lung: 1", "lung: true", "c.yaml:4: data.labels.lung: true: give a whole number, or a list of them"),
        ("lung: 1", "lung: 1, heart: 1", "c.yaml:4: data.labels: lung and heart both take the value 1"),
        ("lung: 1", "lung: [2, 3], heart: 3", "c.yaml:4: data.labels: lung and heart both take the value 3"),
        ("lung: 1", "lung: [2, 2]", "c.yaml:4: data.labels: lung holds 2 twice"),
        ("lung: 1", "lung: []", "c.yaml:4: data.labels: lung has no value"),
        ("lung: 1", '" ": 1', "c.yaml:4: data.labels: a label has an empty name"),
        ("lung: 1", "1: 1", "c.yaml:4: data.labels.1: a key is a text: put it in quotes"),
        ("{lung: 1}", "{}", "c.yaml:4: data.labels: name at least one label, such as {lung: 1}"),
        ("{lung: 1}", "[lung]", "c.yaml:4: data.labels: ['lung']: give keys and values"),
        (
            "{lung: 1}",
            "{lung: 1}\n  ignore_label: 1",
            "c.yaml:5: data.ignore_label: 1 is also a value of the label lung",
        ),
        (
            "{lung: 1}",
            "{lung: 1}\n  ignore_label: 0",
            "c.yaml:5: data.ignore_label: 0: must be greater than or equal to 1",
        ),
        ("{lung: 1}", '{lung: 1}\n  group: "("', "c.yaml:5: data.group: '(' is not a regular expression"),
        ("{lung: 1}", '{lung: 1}\n  group: "p"', "c.yaml:5: data.group: 'p' has no parentheses"),
        (
            "{lung: 1}",
            "{lung: 1}\n  split: {validation: 0.5, test: 0.5}",
            "c.yaml:5: data.split.test: validation and test take 1",
        ),
        (
            "{lung: 1}",
            "{lung: 1}\n  split: {validation: 1}",
            "c.yaml:5: data.split.validation: 1: must be less than 1, or give a list",
        ),
        (
            "{lung: 1}",
            "{lung: 1}\n  split: {validation: [101]}",
            "c.yaml:5: data.split.validation.0: 101: give a text: put it in quotes",
        ),
        ("{lung: 1}", "{lung: 1}\n  split: {train: 0.5}", "c.yaml:5: data.split.train: 0.5: give a list"),
        ("root: data", "root:", "c.yaml:3: data.root: null: give a path"),
        ("root: data", 'root: ""', "c.yaml:3: data.root: '': give a path"),
        ("root: data", r'root: "a\0b"', "c.yaml:3: data.root: 'a\\x00b': no path holds a zero character"),
        ("root: data", 'root: "~nobody-of-this-name/x"', "c.yaml:3: data.root: '~nobody-of-this-name/x': "),
        ("  root: data\n", "", "c.yaml:2: data.root: is missing"),
        ("[16, 16]", "[16]", "c.yaml:5: window.size: [16]: give at least 2 entries"),
        ("[16, 16]", "[16, 16, 16, 16]", "c.yaml:5: window.size: [16, 16, 16, 16]: give at most 3 entries"),
        ("[16, 16]", "[16.5, 16]", "c.yaml:5: window.size.0: 16.5: give a whole number"),
        ("[16, 16]", "[-16, 16]", "c.yaml:5: window.size.0: -16: must be greater than 0"),
        ("[16, 16]", "16", "c.yaml:5: window.size: 16: give a list"),
        (
            "[16, 16]",
            "[16, 16, 16]",
            "c.yaml:5: window.plane: axial goes with a 2-D window, and window.size [16, 16, 16] is 3-D",
        ),
        ("axial", "axail", "c.yaml:5: window.plane: 'axail' is not valid; did you mean axial?"),
        ("name: x", "name: ..", "c.yaml:1: name: '..': give letters, digits, _, . and -, with a letter or digit first"),
        ("name: x", "name: a/b", "c.yaml:1: name: 'a/b': give letters"),
        ("name: x", "name: 5", "c.yaml:1: name: 5: give a text: put it in quotes"),
        # networks
        ("R2UNet", "R2Unet", "c.yaml:6: network.name: 'R2Unet' is not a network; did you mean R2UNet?"),
        ("R2UNet", "VNet", "c.yaml:6: network.name: 'VNet' is not a network; "),
        ("channels", "chanels", "c.yaml:6: network.chanels: R2UNet has no such option; did you mean channels?"),
        ("[4, 8]", "none", "c.yaml:6: network.channels: R2UNet's option channels is 'none': give a list"),
        ("steps: 1", "steps: -1", "c.yaml:6: network.steps: "),
        ("steps: 1", "dropout: .nan", "c.yaml:6: network.dropout: nan: give a finite number"),
        (
            "steps: 1",
            "in_channels: 1",
            "c.yaml:6: network.in_channels: follows from the data and its labels: leave it out",
        ),
        (
            "steps: 1",
            "spatial_dims: 3",
            "c.yaml:6: network.spatial_dims: 3, but window.size [16, 16] is 2-D: "
            "give window.size three numbers, or set network.spatial_dims: 2",
        ),
        ("steps: 1", "spatial_dims: two", "c.yaml:6: network.spatial_dims: 'two' is not valid; leave it out"),
        (
            "channels: [4, 8]",
            "channels: [2, 2, 2, 2, 2, 2]",
            "c.yaml:5: window.size: [16, 16] is too small for this R2UNet, which needs [32, 32]",
        ),
    ],
)
def test_a_changed_value_is_told_in_one_line_with_its_place(write, old: str, new: str, told: str) -> None:
    problems = problems_of(write(BASE, old=old, new=new))
    assert len(problems) == 1
    assert problems[0].startswith(told)


def test_a_3d_window_is_refused_for_a_network_of_2d_only(write) -> None:
    text = BASE.replace("[16, 16], plane: axial", "[32, 32, 32]").replace(
        "R2UNet, channels: [4, 8], steps: 1", "TernausNet"
    )
    assert problems_of(write(text)) == [
        "c.yaml:5: window.size: [32, 32, 32] is 3-D and TernausNet is 2-D only: give two numbers"
    ]


def test_more_labels_than_a_label_map_can_hold_are_refused(write) -> None:
    labels = "{" + ", ".join(f"l{value}: {value}" for value in range(1, 256)) + "}"
    assert "255 labels: at most 254" in problems_of(write(BASE, old="{lung: 1}", new=labels))[0]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", ["c.yaml:1: name: is missing", "c.yaml:1: data: is missing", "c.yaml:1: window: is missing"]),
        (
            "# only a comment\n",
            ["c.yaml:1: name: is missing", "c.yaml:1: data: is missing", "c.yaml:1: window: is missing"],
        ),
        ("- a\n- b\n", ["c.yaml: a config is a mapping of keys to values, and this is ['a', 'b']"]),
        ("hello\n", ["c.yaml: a config is a mapping of keys to values, and this is 'hello'"]),
        (
            "name: x\ndata:\n\troot: y\n",
            ["c.yaml:3: this is not YAML: found character '\\t' that cannot start any token"],
        ),
        ("name: [a\nwindow: 3\n", ["c.yaml:2: this is not YAML: expected ',' or ']', but got ':'"]),
        (BASE + "---\nname: y\n", ["c.yaml:7: this is not YAML: but found another document"]),
        (
            BASE + "\x00",
            ["c.yaml: this is not YAML: unacceptable character #x0000: special characters are not allowed"],
        ),
        (BASE + "? [a]\n: 3\n", ["c.yaml:7: this is not YAML: a key is a text, not a list or mapping"]),
        (BASE + "seed: !!int x\n", ["c.yaml: this is not YAML: "]),
        (BASE + "seed: " + "[" * 1200 + "]" * 1200, ["c.yaml: this is not YAML: it is nested too deeply"]),
        (b"\xff\xfe\x00\x01", ["c.yaml: this is not a text file; a config is YAML"]),
    ],
)
def test_what_is_no_config_is_told(write, text: str | bytes, told: list[str]) -> None:
    problems = problems_of(write(text))
    assert len(problems) == len(told)
    for problem, expected in zip(problems, told, strict=True):
        assert problem.startswith(expected)


def test_a_key_given_twice_is_told_beside_the_other_mistakes(write) -> None:
    text = BASE + "training:\n  max_epochs: 1\n  max_epochs: x\n"
    assert problems_of(write(text)) == [
        "c.yaml:9: training.max_epochs: is given twice, in lines 8 and 9",
        "c.yaml:9: training.max_epochs: 'x': give a whole number",
    ]


def test_yaml_runs_no_code(write, tmp_path: Path) -> None:
    text = BASE + f'seed: !!python/object/apply:os.mkdir ["{tmp_path}/made"]\n'
    assert "could not determine a constructor for the tag" in problems_of(write(text))[0]
    assert not (tmp_path / "made").exists()


def test_words_that_yaml_1_1_reads_as_true_or_false_are_names(write) -> None:
    config = load_config(write(BASE, old="{lung: 1}", new="{yes: 1, off: 2, 1.2.3: 4, 2020-01-01: 5}"))
    assert list(config.data.labels) == ["yes", "off", "1.2.3", "2020-01-01"]


def test_case_ids_with_leading_zeros_stay_text(write) -> None:
    split = "{lung: 1}\n  split: {validation: [007, 010], test: [08]}"
    config = load_config(write(BASE, old="{lung: 1}", new=split))
    assert (config.data.split.validation, config.data.split.test) == (("007", "010"), ("08",))


def test_a_wrong_path_names_the_configs_that_are_near(write, tmp_path: Path) -> None:
    path = write(BASE)
    with pytest.raises(ConfigError, match=r"d\.yaml: there is no such config file; did you mean .*c\.yaml\?"):
        load_config(tmp_path / "d.yaml")
    with pytest.raises(ConfigError, match=r"is a folder: name a config file; .* holds c\.yaml"):
        load_config(path.parent)


# --set


@pytest.mark.parametrize(
    ("override", "value"),
    [
        ("training.max_epochs=5", lambda c: c.training.max_epochs == 5),
        (" training.max_epochs = 5 ", lambda c: c.training.max_epochs == 5),
        ("training.learning_rate=1e-5", lambda c: c.training.learning_rate == 1e-5),
        ("training={max_epochs: 3}", lambda c: c.training.max_epochs == 3),
        ("preprocessing.intensity.kind=unit", lambda c: c.preprocessing.intensity.kind == "unit"),
        ("preprocessing.intensity={kind: hu_window, low: -1, high: 2}", lambda c: c.preprocessing.intensity.low == -1),
        ("window.size=[32, 48]", lambda c: c.window.size == (32, 48)),
        ("window.plane=null", lambda c: c.window.plane is None),
        ("window.plane=", lambda c: c.window.plane is None),
        ('network.name="PlainUNet"', lambda c: c.network.name == "PlainUNet"),
        ("network.channels=[2,4]", lambda c: c.network.options["channels"] == [2, 4]),
        ("data.labels.left lung=2", lambda c: c.data.labels == {"lung": (1,), "left lung": (2,)}),
        ("data.split.test=[a, b]", lambda c: c.data.split.test == ("a", "b")),
        ("postprocessing=[{step: fill_holes, label: lung}]", lambda c: c.postprocessing[0].step == "fill_holes"),
    ],
)
def test_an_override_takes_effect(write, override: str, value) -> None:
    path = write(BASE, old="steps: 1", new="dropout: 0.0" if "PlainUNet" in override else "steps: 1")
    if "PlainUNet" in override:
        path = write(BASE.replace(", steps: 1", ""))
    assert value(load_config(path, [override]))


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("training.max_epochs", "write KEY=VALUE, such as --set training.max_epochs=5"),
        ("=5", "write KEY=VALUE"),
        ("training.=5", "write KEY=VALUE"),
        ("training..max_epochs=5", "write KEY=VALUE"),
        ("training.max_epoch=5", "training.max_epoch: unknown key; did you mean training.max_epochs?"),
        ("trainin.max_epochs=5", "trainin: unknown key; did you mean training?"),
        ("training.max_epochs=five", "training.max_epochs: 'five': give a whole number"),
        ("training.max_epochs=", "training.max_epochs: null: give a whole number"),
        ("training={max_epochs: 3, max_epochs: 4}", "training.max_epochs: is given twice"),
        ("training={max_epochs: x}", "training.max_epochs: 'x': give a whole number"),
        ("name=[a", "the value is not YAML"),
        ("name.x=3", "name is 'x', which has no keys"),
        ("network.stps=3", "network.stps: R2UNet has no such option; did you mean steps?"),
        ("data.labels={lung: 0}", "data.labels.lung: 0: must be greater than or equal to 1"),
    ],
)
def test_a_wrong_override_is_named_instead_of_a_line_of_the_file(write, override: str, told: str) -> None:
    problems = problems_of(write(BASE), override)
    assert len(problems) == 1
    assert problems[0].startswith(f"--set {override}: {told}")


def test_wrong_overrides_are_told_together_with_mistakes_of_the_file(write) -> None:
    path = write(BASE + "bogus: 1\n")
    problems = problems_of(path, "training.max_epochs=x", "nonsense", "seed=-1")
    places = [problem.split(": ")[0] for problem in problems]
    assert places == ["--set nonsense", "--set seed=-1", "--set training.max_epochs=x", "c.yaml:7"]


# paths


def test_paths_are_relative_to_the_config_file_whatever_the_working_directory(
    write, tmp_path: Path, monkeypatch
) -> None:
    path = write(BASE, old="root: data", new="root: data\n  cache: ../kept")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    config = load_config(os.path.relpath(path), require_data=True)
    assert config.data.root == tmp_path / "data"
    assert config.data.cache == tmp_path.parent / "kept"


def test_a_tilde_is_the_home_folder(write, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    config = load_config(write(BASE, old="root: data", new="root: ~/data"), require_data=True)
    assert config.data.root == tmp_path / "data"


def test_missing_data_matter_to_training_only(write, tmp_path: Path) -> None:
    path = write(BASE, old="root: data", new="root: gone")
    assert load_config(path).data.root == tmp_path / "gone"
    assert problems_of(path, require_data=True) == [
        "c.yaml:3: data.root: there is no folder gone; it is taken relative to the config file"
    ]
    assert (
        "there is no folder c.yaml"
        in problems_of(write(BASE, old="root: data", new="root: c.yaml"), require_data=True)[0]
    )


def test_a_file_of_pretrained_weights_is_relative_to_the_config_and_must_be_there_to_train(
    write, tmp_path: Path
) -> None:
    text = BASE.replace("[16, 16]", "[64, 64]").replace(
        "R2UNet, channels: [4, 8], steps: 1", "TernausNet, pretrained: w.pt"
    )
    path = write(text)
    assert load_config(path).network.options["pretrained"] == str(tmp_path / "w.pt")
    assert problems_of(path, require_data=True) == [
        "c.yaml:6: network.pretrained: there is no file w.pt; it is taken relative to the config file"
    ]
    (tmp_path / "w.pt").touch()
    load_config(path, require_data=True)


# what comes of it


def test_a_saved_config_equals_the_loaded_one_and_its_paths_are_absolute(write, tmp_path: Path) -> None:
    config = load_config(
        write(
            BASE
            + """\
preprocessing: {intensity: {kind: hu_window, low: -1000, high: 400}, spacing_mm: [1, 1.5, 2e-1]}
augmentation: {flip: [left-right], noise: 1e-7}
training: {learning_rate: 1.5e-05, gradient_clip: null, early_stopping: 3}
postprocessing:
  - {step: largest_components, label: lung, count: 2}
  - {step: fill_holes, label: lung}
"""
        ),
        ["data.labels.bone=[2, 3]", "data.split.test=[a]", "data.cache=kept"],
    )
    other = tmp_path / "other" / "config.yaml"
    other.parent.mkdir()
    other.write_text(dump_config(config))
    assert load_config(other) == config
    assert dump_config(load_config(other)) == dump_config(config)
    saved = yaml.safe_load(other.read_text())
    assert saved["data"]["root"] == str(tmp_path / "data")
    assert saved["training"]["max_epochs"] == 100


TRICKY = [
    "1e5",
    "1e-4",
    "-.5",
    "yes",
    "off",
    "null",
    "~",
    "010",
    "1_000",
    "0x10",
    "1:30",
    "2020-01-01",
    "=",
    "<<",
    "a: b",
]
TRICKY += [
    "[a",
    "#a",
    " a ",
    "é ü 肺",
    "'",
    '"',
    "a\\b",
    "- a",
    "&a",
    "*a",
    "!a",
    "%a",
    "@a",
    "`a",
    "true",
    "1.5",
    "..",
    "a" * 200,
]


def test_text_that_looks_like_something_else_survives_being_saved(write, tmp_path: Path) -> None:
    config = load_config(write(BASE))
    labels = {name: (index,) for index, name in enumerate(TRICKY, start=1)}
    split = config.data.split.model_copy(update={"train": tuple(TRICKY), "test": tuple(TRICKY)})
    data = config.data.model_copy(update={"labels": labels, "split": split, "root": tmp_path / "a: b # ü"})
    config = config.model_copy(update={"data": data, "name": "1e5"})
    saved = tmp_path / "saved.yaml"
    saved.write_text(dump_config(config), encoding="utf-8")
    assert load_config(saved) == config
    # Other programs read the saved file by the rules of YAML 1.1.
    assert yaml.safe_load(saved.read_text("utf-8"))["data"]["split"]["train"] == TRICKY


def test_a_config_is_frozen(write) -> None:
    config = load_config(write(BASE))
    with pytest.raises(ValidationError, match="frozen"):
        config.seed = 3
    with pytest.raises(ValidationError, match="frozen"):
        config.training.max_epochs = 3
    with pytest.raises(ValidationError, match="frozen"):
        config.network.steps = 3


def test_defaults_need_not_be_written(write) -> None:
    config = load_config(write("name: x\ndata: {root: data, labels: {lung: 1}}\nwindow: {size: [16, 16]}\n"))
    assert config.network.name == "R2UNet"
    assert config.training.max_epochs == 100
    assert config.preprocessing.intensity.kind == "zscore"


@pytest.mark.parametrize(("output", "channels"), [("softmax", 3), ("sigmoid", 2)])
def test_channels_of_the_network_follow_from_the_labels(write, output: str, channels: int) -> None:
    text = BASE.replace("{lung: 1}", "{lung: 1, bone: [2, 3]}").replace("steps: 1", f"steps: 1, output: {output}")
    config = load_config(write(text))
    network = build_configured_network(config, in_channels=2)
    assert (network.in_channels, network.out_channels, network.spatial_dims) == (2, channels, 2)


def test_a_schema_can_be_built_in_code_and_refuses_the_same() -> None:
    plain = yaml.safe_load(BASE)
    with pytest.raises(ValidationError, match=r"'lng' is none of data\.labels"):
        Config.model_validate({**plain, "postprocessing": [{"step": "fill_holes", "label": "lng"}]})


def test_reading_the_schema_loads_no_heavy_library_and_a_config_no_monai(write) -> None:
    path = write(BASE)
    heavy = ("torch", "monai", "numpy", "nibabel", "SimpleITK", "torchvision")
    code = f"""
import sys, r2seg, r2seg.config, r2seg.errors, r2seg.cli
print([name for name in {heavy} if name in sys.modules])
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.split() == ["[]"]
    with imported_anew(without=("monai",)):
        found = importlib.import_module("r2seg.config").load_config(path)
    assert type(found) is not Config and found.name == load_config(path).name


def test_loading_takes_less_than_half_a_second_once_torch_is_there(write) -> None:
    path = write(BASE)
    load_config(path)
    begin = time.process_time()
    load_config(path)
    assert time.process_time() - begin < 0.5


LAUGHS = "\n".join(  # "billion laughs"
    ["l0: &l0 [ha, ha, ha, ha, ha, ha, ha, ha, ha]"]
    + [f"l{i}: &l{i} [{', '.join([f'*l{i - 1}'] * 9)}]" for i in range(1, 12)]
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (LAUGHS, "its aliases expand to more than 200000 values"),
        (
            LAUGHS.replace(" [*", " {<<: [*").replace("]", "]}").replace("l0 [ha", "l0 {a: [ha"),
            "its aliases expand to more than 200000 values",
        ),
        ("name: &a [*a]", "an alias contains itself"),
        ("name: &a {b: *a}", "an alias contains itself"),
        ("name: " + "x" * 5_000_000, "it has 5000006 characters; a config has at most 4000000"),
        ("name: " + "[" * 20_000, "nested too deeply"),
    ],
)
def test_a_bomb_of_aliases_is_refused_at_once(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(text)
    begun = time.process_time()  # as long on a busy machine
    with pytest.raises(ConfigError, match=message) as caught:
        load_config(path)
    assert time.process_time() - begun < 2
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_ordinary_aliases_and_long_lists_are_read() -> None:
    document, _, _ = parse_yaml("a: &a [1, 2]\nb: [*a, *a]\nc: {<<: {x: 1}, y: *a}")
    assert document == {"a": [1, 2], "b": [[1, 2], [1, 2]], "c": {"x": 1, "y": [1, 2]}}
    document, _, _ = parse_yaml("a: [" + ", ".join(f"case_{i}" for i in range(3000)) + "]")
    assert len(document["a"]) == 3000


BAD_NUMBERS = (0, -1, -(10**9), 0.5, -0.5, 1e300)
_NUMERIC = [
    (name, option, value)
    for name in NETWORKS
    for option, parameter in network_options(name).items()
    if isinstance(parameter.default, int | float | tuple) and not isinstance(parameter.default, bool)
    for value in BAD_NUMBERS
]


@pytest.mark.parametrize(("name", "option", "value"), _NUMERIC)
def test_a_bad_number_for_a_network_is_a_config_error_or_makes_a_network(name, option, value, tmp_path: Path) -> None:
    default = network_options(name)[option].default
    given = [*default[:-1], value] if isinstance(default, tuple) else value
    path = tmp_path / "c.yaml"
    path.write_text(
        f"name: x\ndata: {{root: ., labels: {{a: 1}}}}\nwindow: {{size: [64, 64]}}\nnetwork: {{name: {name}, {option}: {given}}}\n"
    )
    try:
        config = load_config(path)
    except ConfigError as error:
        assert f"network.{option}" in str(error) or "network:" in str(error)
        return
    with torch.device("meta"):
        network = build_configured_network(config, 3)
        assert network(torch.zeros(2, 3, 64, 64)).shape == (2, 2, 64, 64)


@pytest.mark.parametrize(
    ("network", "text"),
    [
        ("{name: UPerNet, pyramid_channels: 0}", "network.pyramid_channels: pyramid_channels is 0: give 1 or more"),
        ("{name: UPerNet, pool_channels: -3}", "network.pool_channels: pool_channels is -3: give 1 or more"),
        (
            "{name: BackbonedUNet, decoder_channels: [64, 32, 0, 8, 8]}",
            "network.decoder_channels: decoder_channels is [64, 32, 0, 8, 8]: give numbers of 1 or more",
        ),
    ],
)
def test_widths_below_one_name_the_key(network: str, text: str, tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(f"name: x\ndata: {{root: ., labels: {{a: 1}}}}\nwindow: {{size: [64, 64]}}\nnetwork: {network}\n")
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    assert str(caught.value) == f"{path}:4: {text}"


def test_monais_forms_of_activation_and_normalization_may_be_written(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(
        "name: x\ndata: {root: ., labels: {a: 1}}\nwindow: {size: [64, 64]}\n"
        "network: {name: PlainUNet, channels: [4, 8], act: [LeakyReLU, {negative_slope: .2}], norm: [group, {num_groups: 4}]}\n"
    )
    network = build_configured_network(load_config(path), 1)
    assert {part.num_groups for part in network.modules() if isinstance(part, torch.nn.GroupNorm)} == {4}
    saved = tmp_path / "saved.yaml"
    saved.write_text(dump_config(with_network_defaults(load_config(path))))
    assert str(build_configured_network(load_config(saved), 1)) == str(network)


def test_16_bit_masks_are_declared_with_the_value_to_write_first(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(BASE.replace("{lung: 1}", "{lung: 65535, heart: 255}"))
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    assert str(caught.value).endswith(
        "data.labels: lung is 65535, but predictions are written with 8 bits: put the value to write first, such as "
        "lung: [1, 65535]"
    )
    path.write_text(BASE.replace("{lung: 1}", "{lung: [1, 65535], heart: 255}\n  ignore_label: 40000"))
    data = load_config(path).data
    assert (data.labels, data.ignore_label) == ({"lung": (1, 65535), "heart": (255,)}, 40000)
    path.write_text(BASE.replace("{lung: 1}", "{lung: [1, 65536]}"))
    with pytest.raises(ConfigError, match="65536: must be less than or equal to 65535"):
        load_config(path)


@pytest.mark.parametrize(
    ("section", "told"),
    [
        ("resize: {}", "c.yaml:8: preprocessing.resize: give size: [rows, columns], or longest_side"),
        (
            "resize: {size: [9, 9], longest_side: 9}",
            "c.yaml:8: preprocessing.resize: give size: [rows, columns], or longest_side",
        ),
        (
            "resize: {longest_side: 9, keep_aspect: true}",
            "c.yaml:8: preprocessing.resize: keep_aspect goes with size; longest_side always keeps the proportions",
        ),
        (
            "resize: {longst_side: 9}",
            "c.yaml:8: preprocessing.resize.longst_side: unknown key; did you mean preprocessing.resize.longest_side?",
        ),
        ("clahe: {clip: 0.01}", "c.yaml:8: preprocessing.clahe.clip: 0.01: must be greater than or equal to 1"),
        ("color: gray", "c.yaml:8: preprocessing.color: 'gray' is not valid; did you mean grey?"),
        (
            "intensity: {kind: zscore, region: fov}",
            "c.yaml:8: preprocessing.intensity.region: 'fov' is not valid; ",
        ),
    ],
)
def test_mistakes_in_the_preprocessing_of_pictures_are_told(write, section: str, told: str) -> None:
    found = problems_of(write(BASE + f"preprocessing:\n  {section}\n"))
    assert any(line.startswith(told) for line in found), found


def test_neighbouring_slices_go_with_2_d_windows(write) -> None:
    path = write(BASE.replace("plane: axial", "neighbours: 1"))
    assert load_config(path).window.num_slices == 3
    path = write(BASE.replace("[16, 16], plane: axial", "[16, 16, 16], neighbours: 1"))
    assert problems_of(path) == [
        "c.yaml:5: window.neighbours: 1 neighbouring slices go with a 2-D window, and window.size [16, 16, 16] is 3-D: "
        "leave neighbours out, or give two numbers"
    ]
