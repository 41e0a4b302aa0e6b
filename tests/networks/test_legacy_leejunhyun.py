"""Weights of LeeJunHyun/Image_Segmentation: the output equals its equations, written here over its own entries' names."""

import logging

import pytest
import torch
import torch.nn.functional as F

from r2seg.networks.legacy import convert_state_dict

WIDTHS = [2, 3, 4, 5, 6]
KINDS = {
    "U_Net": ("PlainUNet", False, False),
    "R2U_Net": ("R2UNet", True, False),
    "AttU_Net": ("AttentionUNet", False, True),
    "R2AttU_Net": ("AttentionR2UNet", True, True),
}


class Original:
    """One of the four, as entries of a state dict and the equations over them; an entry is made when first read."""

    def __init__(self, recurrent: bool, gated: bool, steps: int) -> None:
        self.recurrent, self.gated, self.steps = recurrent, gated, steps
        self.entries: dict[str, torch.Tensor] = {}
        self.generator = torch.Generator().manual_seed(0)
        self(torch.zeros(1, 3, 16, 16))

    def entry(self, name: str, *shape: int, low: float = -0.5, high: float = 0.5) -> torch.Tensor:
        if name not in self.entries:
            self.entries[name] = torch.empty(shape).uniform_(low, high, generator=self.generator)
        return self.entries[name]

    def conv(self, x, name, width, kernel=3):
        weight = self.entry(f"{name}.weight", width, x.shape[1], kernel, kernel)
        return F.conv2d(x, weight, self.entry(f"{name}.bias", width), padding=kernel // 2)

    def norm(self, x, name):
        width = x.shape[1]
        mean = self.entry(f"{name}.running_mean", width)
        var = self.entry(f"{name}.running_var", width, low=0.5, high=2)
        scale = self.entry(f"{name}.weight", width, low=0.5, high=1.5)
        self.entries.setdefault(f"{name}.num_batches_tracked", torch.tensor(0))
        return F.batch_norm(x, mean, var, scale, self.entry(f"{name}.bias", width))

    def layer(self, x, name, width, first=0):
        return self.norm(self.conv(x, f"{name}.{first}", width), f"{name}.{first + 1}").relu()

    def unit(self, x, name, width):
        if not self.recurrent:
            return self.layer(self.layer(x, f"{name}.conv", width), f"{name}.conv", width, first=3)
        x = state = self.conv(x, f"{name}.Conv_1x1", width, kernel=1)
        for index in (0, 1):
            given = state
            state = self.layer(given, f"{name}.RCNN.{index}.conv", width)
            for _ in range(self.steps):
                state = self.layer(given + state, f"{name}.RCNN.{index}.conv", width)
        return x + state

    def gate(self, g, x, name):
        hidden = max(1, x.shape[1] // 2)
        g = self.norm(self.conv(g, f"{name}.W_g.0", hidden, 1), f"{name}.W_g.1")
        z = self.norm(self.conv(x, f"{name}.W_x.0", hidden, 1), f"{name}.W_x.1")
        psi = self.norm(self.conv((g + z).relu(), f"{name}.psi.0", 1, 1), f"{name}.psi.1")
        return x * psi.sigmoid()

    def __call__(self, x):
        down, up = ("RRCNN", "Up_RRCNN") if self.recurrent else ("Conv", "Up_conv")
        skips = []
        for level, width in enumerate(WIDTHS, 1):
            x = self.unit(F.max_pool2d(x, 2) if skips else x, f"{down}{level}", width)
            skips.append(x)
        for level in range(5, 1, -1):
            skip = skips[level - 2]
            x = self.layer(x.repeat_interleave(2, 2).repeat_interleave(2, 3), f"Up{level}.up", skip.shape[1], first=1)
            if self.gated:
                skip = self.gate(x, skip, f"Att{level}")
            x = self.unit(torch.cat([skip, x], 1), f"{up}{level}", skip.shape[1])
        return self.conv(x, "Conv_1x1", 2, kernel=1)


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
    assert "do not tell" in caplog.text
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


def test_what_is_no_such_network_is_named():
    entries = Original(False, False, 2).entries
    with pytest.raises(ValueError, match=r"unknown origin 'leejunhyn' .did you mean leejunhyun"):
        convert_state_dict(entries, "leejunhyn")
    lacking = {name: value for name, value in entries.items() if name != "Up3.up.1.bias"}
    with pytest.raises(ValueError, match=r"1 missing, such as Up3\.up\.1\.bias"):
        convert_state_dict(lacking, "leejunhyun")
    with pytest.raises(ValueError, match=r"1 unknown, such as layer\.weight"):
        convert_state_dict(entries | {"layer.weight": torch.zeros(2)}, "leejunhyun")
    with pytest.raises(ValueError, match=r"do not fit .* encoder\.units\.1"):
        convert_state_dict(entries | {"Conv2.conv.0.weight": torch.zeros(3, 4, 3, 3)}, "leejunhyun")
