"""Networks of original repositories, written from the facts as equations over their own entries' names."""

from __future__ import annotations

import torch
import torch.nn.functional as F

WIDTHS = [2, 3, 4, 5, 6]


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
