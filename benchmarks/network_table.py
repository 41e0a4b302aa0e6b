"""The table of docs/networks.md: parameters, cost and memory of each network, computed, never typed by hand.

    python benchmarks/network_table.py            # writes the table into docs/networks.md
    python benchmarks/network_table.py --print    # prints it

Everything runs on the meta device: shapes and storages are real, numbers are not computed, so it takes seconds and no memory.
A network added to ``NETWORKS`` appears in the table; its entry in ``WORDS`` says what cannot be computed.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from r2seg.networks import NETWORKS, build_network

PAGE = Path(__file__).parents[1] / "docs" / "networks.md"
BEGIN, END = "<!-- table: benchmarks/network_table.py -->", "<!-- end of table -->"
SIZE = (256, 256)

# Per network: paper, weights of original repositories that load, when to choose it.
WORDS = {
    "PlainUNet": (
        "arXiv:1505.04597",
        "leejunhyun U_Net",
        "The baseline: first run on new data, least memory and time.",
    ),
    "ResidualUNet": ("arXiv:1802.06955", "", "R2UNet's ablation: the residual without the recurrence."),
    "AttentionUNet": ("arXiv:1804.03999", "leejunhyun AttU_Net", "Small structures in a large, cluttered field."),
    "RUNet": ("arXiv:1802.06955", "", "R2UNet's ablation: the recurrence without the residual."),
    "R2UNet": (
        "arXiv:1802.06955",
        "leejunhyun R2U_Net",
        "Thin or low-contrast structures, when time allows; few images.",
    ),
    "AttentionR2UNet": (
        "arXiv:1802.06955, arXiv:1804.03999",
        "leejunhyun R2AttU_Net",
        "R2UNet where the background misleads.",
    ),
    "BackbonedUNet": ("arXiv:1505.04597", "backboned-unet", "Pictures with few labels: ImageNet weights help most."),
    "TernausNet": (
        "arXiv:1801.05746",
        "ternausnet UNet11, UNet16",
        "A light pretrained U-Net; binary masks of pictures.",
    ),
    "UPerNet": ("arXiv:1807.10221", "csail-upernet", "Many classes, scenes at several scales, large images."),
}


class LiveStorages(TorchDispatchMode):
    """Counts the bytes of all storages created in its context and still alive; ``peak_bytes`` is their highest sum.

    Args:
        known: Tensors that do not count: parameters, gradients, buffers, inputs.
    """

    def __init__(self, known: list[Tensor]) -> None:
        super().__init__()
        self._known = {tensor.untyped_storage()._cdata for tensor in known}
        self._alive: dict[int, tuple[StorageWeakRef, int]] = {}
        self.peak_bytes = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        self._alive = {key: (ref, size) for key, (ref, size) in self._alive.items() if not ref.expired()}
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                storage = leaf.untyped_storage()
                if storage._cdata not in self._known:
                    self._alive.setdefault(storage._cdata, (StorageWeakRef(storage), storage.nbytes()))
        self.peak_bytes = max(self.peak_bytes, sum(size for _, size in self._alive.values()))
        return result


def count_activation_bytes(network: nn.Module, image: Tensor) -> int:
    """Return the peak of one training step, forward and backward, minus parameters, gradients, buffers and the image."""
    network.train()
    for parameter in network.parameters():
        parameter.grad = torch.zeros_like(parameter)
    gradients = [parameter.grad for parameter in network.parameters()]
    with LiveStorages([*network.parameters(), *network.buffers(), *gradients, image]) as storages:
        network(image).sum().backward()
    return storages.peak_bytes


def count_macs(network: nn.Module, image: Tensor) -> int:
    """Return the multiply-accumulates of one evaluation: half the floating-point operations of its convolutions and products."""
    network.eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(image)
    return counter.get_total_flops() // 2


def describe(name: str, label: str = "", **options) -> dict[str, str]:
    """Return one row: the network with its defaults or ``options``, 1 channel in, 2 out, one image of 256x256."""
    with torch.device("meta"):
        network = build_network(name, spatial_dims=2, in_channels=1, out_channels=2, **options)
        # Two images, as a normalization at one pixel needs them; the memory is halved below.
        image = torch.empty(2, 1, *SIZE)
    paper, loads, choose = WORDS[name]
    megabytes = count_activation_bytes(network, image) / 2**20 / 2
    return {
        "network": label or name,
        "dims": ", ".join(map(str, NETWORKS[name].supported_spatial_dims)),
        "parameters [M]": f"{sum(value.numel() for value in network.parameters()) / 1e6:.2f}",
        "GMAC": f"{count_macs(network, image) / 2e9:.1f}",
        "activations [MiB]": f"{megabytes:.0f}",
        "least size": " x ".join(map(str, network.least_size)),
        "loads": loads,
        "paper": paper,
        "when to choose it": choose,
    }


def rows() -> list[dict[str, str]]:
    """Return the table: every network with its defaults, and R2UNet with recomputed activations."""
    table = []
    for name in NETWORKS:
        table.append(describe(name))
        if name == "R2UNet":
            row = describe(name, "R2UNet, checkpoint_activations", checkpoint_activations=True)
            table.append(row | {"loads": "", "when to choose it": "R2UNet in a plain U-Net's memory, a third slower."})
    return table


def to_markdown(table: list[dict[str, str]]) -> str:
    """Return rows of equal keys as a Markdown table."""
    lines = [list(table[0]), ["---"] * len(table[0]), *(list(row.values()) for row in table)]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def from_markdown(page: str) -> list[dict[str, str]]:
    """Return the rows of the table that a page holds between the two markers."""
    lines = page.split(BEGIN)[1].split(END)[0].strip().splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [dict(zip(cells[0], row, strict=True)) for row in cells[2:]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--print", action="store_true", help="print the table instead of writing it into docs/networks.md"
    )
    print_only = parser.parse_args().print
    table = to_markdown(rows())
    if print_only:
        print(table)
        return
    before, rest = PAGE.read_text("utf-8").split(BEGIN)
    after = rest.split(END)[1]
    PAGE.write_text(f"{before}{BEGIN}\n{table}\n{END}{after}", "utf-8")


if __name__ == "__main__":
    main()
