"""Weights of LeeJunHyun/Image_Segmentation: the output equals its equations, written here over its own entries' names."""

import logging

import pytest
import torch
import torch.nn.functional as F
from originals import Original

from r2seg.networks.legacy import convert_state_dict

KINDS = {
    "U_Net": ("PlainUNet", False, False),
    "R2U_Net": ("R2UNet", True, False),
    "AttU_Net": ("AttentionUNet", False, True),
    "R2AttU_Net": ("AttentionR2UNet", True, True),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("steps", [2, 3])
def test_logits_equal_the_originals(kind, steps):
    name, recurrent, gated = KINDS[kind]
    original = Original(recurrent, gated, steps)
    network = convert_state_dict(original.entries, "leejunhyun", **({"steps": steps} if recurrent else {}))
    assert type(network).__name__ == name and not network.training
    image = torch.randn(2, 3, 48, 32)
    with torch.no_grad():
        expected, logits = original(image), network(image)
    assert (logits - expected).abs().max() < 1e-4 * expected.abs().max()
    with torch.no_grad():
        assert network(torch.randn(1, 3, 35, 50)).shape == (1, 2, 35, 50)  # where the original fails


def test_steps_are_read_off_the_batch_counters_of_trained_weights(caplog):
    entries = Original(True, False, 2).entries
    with caplog.at_level(logging.WARNING):
        assert convert_state_dict(entries, "leejunhyun").encoder.units[0].layers[0].steps == 2
    assert "do not show" in caplog.text
    for name in entries:
        if name.endswith("num_batches_tracked"):
            entries[name] = torch.tensor(7 * 4 if ".RCNN." in name else 7)
    assert convert_state_dict(entries, "leejunhyun").encoder.units[0].layers[0].steps == 3


def test_checkpoints_of_data_parallel_and_of_old_pytorch_load():
    entries = Original(False, False, 2).entries
    old = {f"module.{name}": value for name, value in entries.items() if "num_batches" not in name}
    network = convert_state_dict({"state_dict": old}, "leejunhyun")
    assert torch.equal(network.head.weight, entries["Conv_1x1.weight"])


def test_training_goes_on_as_the_original_would():
    """The bias that went into the running mean changes neither a training step nor the statistics that follow."""
    original = Original(False, False, 2)
    network = convert_state_dict(original.entries, "leejunhyun").train()
    image = torch.randn(4, 3, 16, 16)
    network(image)
    w, b = original.entries["Conv1.conv.0.weight"], original.entries["Conv1.conv.0.bias"]
    batch_mean = F.conv2d(image, w, b, padding=1).mean((0, 2, 3))
    expected = 0.9 * original.entries["Conv1.conv.1.running_mean"] + 0.1 * batch_mean
    torch.testing.assert_close(network.encoder.units[0].layers[0].norm.running_mean + b, expected)


def test_what_is_not_such_a_network_is_named():
    entries = Original(False, False, 2).entries
    with pytest.raises(
        ValueError, match=r"origin is 'leejunhyn' \(did you mean leejunhyun\?\): give one of leejunhyun, backboned-unet"
    ):
        convert_state_dict(entries, "leejunhyn")
    lacking = {name: value for name, value in entries.items() if name != "Up3.up.1.bias"}
    with pytest.raises(ValueError, match=r"1 missing, such as Up3\.up\.1\.bias"):
        convert_state_dict(lacking, "leejunhyun")
    with pytest.raises(ValueError, match=r"1 unknown, such as layer\.weight"):
        convert_state_dict(entries | {"layer.weight": torch.zeros(2)}, "leejunhyun")
    with pytest.raises(
        ValueError,
        match=r"does not fit PlainUNet: encoder\.units\.1\S+ is \(3, 4, 3, 3\) there but \(3, 2, 3, 3\) here",
    ):
        convert_state_dict(entries | {"Conv2.conv.0.weight": torch.zeros(3, 4, 3, 3)}, "leejunhyun")
