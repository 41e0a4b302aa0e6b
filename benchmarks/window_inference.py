"""Window inference against MONAI's SlidingWindowInferer and SliceInferer: same windows, weights, batches and network.

    python benchmarks/window_inference.py [--json FILE] [--repeats N] [--threads N] [--seed N] [--device cpu|cuda]

Sizes are chosen so that both place the same windows. Two networks: "light", where the inferer's own work shows, and "R2UNet",
where the network dominates. Memory is also given for ``WindowInferer.stream``, whose slabs a consumer turns into labels one
by one. The contract of all benchmarks is in benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import platform
import statistics
import time
from dataclasses import dataclass
from pathlib import Path

import monai
import torch
from monai.inferers import SliceInferer, SlidingWindowInferer
from torch import nn

import r2seg
from r2seg.data.geometry import PLANES
from r2seg.inference.windows import WindowInferer
from r2seg.networks import build_network

CLASSES = 3


@dataclass(frozen=True)
class Setting:
    """One row of the table; windows overlap by a quarter and blend by the Gaussian."""

    name: str
    shape: tuple[int, ...]
    size: tuple[int, ...]
    plane: str | None
    batch_size: int
    network: str

    def inferers(self) -> dict[str, monai.inferers.Inferer]:
        options = {"roi_size": self.size, "sw_batch_size": self.batch_size, "overlap": 0.25, "mode": "gaussian"}
        if self.plane:
            theirs = SliceInferer(spatial_dim=PLANES[self.plane], **options)
        else:
            theirs = SlidingWindowInferer(**options)
        ours = WindowInferer(self.size, self.plane, overlap=0.25, batch_size=self.batch_size, blend="gaussian")
        return {"r2seg": ours, "monai": theirs}

    def load(self, seed: int, device: str, inputs_on: str) -> tuple[torch.Tensor, nn.Module]:
        torch.manual_seed(seed)
        dims = len(self.size)
        if self.network == "light":
            conv = nn.Conv2d if dims == 2 else nn.Conv3d
            network = nn.Sequential(conv(1, 4, 3, padding=1), nn.ReLU(), conv(4, CLASSES, 1))
        else:
            network = build_network(
                self.network, spatial_dims=dims, in_channels=1, out_channels=CLASSES, channels=[8, 16, 32]
            )
        return torch.randn(1, 1, *self.shape, device=inputs_on), network.eval().to(device)


SETTINGS = [
    Setting("picture, 25 windows", (512, 512), (128, 128), None, 16, "light"),
    Setting("axial, 9 windows a slice", (320, 320, 48), (128, 128), "axial", 16, "light"),
    Setting("coronal, 6 windows a slice", (320, 48, 224), (128, 128), "coronal", 16, "light"),
    Setting("sagittal, 6 windows a slice", (48, 320, 224), (128, 128), "sagittal", 16, "light"),
    Setting("axial, 1 window a slice", (256, 256, 40), (256, 256), "axial", 8, "light"),
    Setting("volume, 18 windows", (160, 160, 112), (64, 64, 64), None, 4, "light"),
    Setting("picture, 25 windows", (512, 512), (128, 128), None, 16, "R2UNet"),
    Setting("axial, 4 windows a slice", (224, 224, 12), (128, 128), "axial", 16, "R2UNet"),
    Setting("axial, 1 window a slice", (256, 256, 12), (256, 256), "axial", 4, "R2UNet"),
    Setting("volume, 4 windows", (112, 112, 64), (64, 64, 64), None, 4, "R2UNet"),
]


def time_both(setting: Setting, repeats: int, seed: int, device: str, inputs_on: str) -> dict:
    """Seconds of each inferer, run in rounds after one warm-up, and the largest difference of their logits."""
    inputs, network = setting.load(seed, device, inputs_on)
    inferers = setting.inferers()
    if inputs_on != device:
        inferers["monai"].sw_device, inferers["monai"].device = torch.device(device), torch.device(inputs_on)
    seconds: dict[str, list[float]] = {name: [] for name in inferers}
    logits, peaks = {}, {}
    with torch.inference_mode():
        for name, inferer in inferers.items():
            logits[name] = inferer(inputs, network)
        difference = (logits["r2seg"] - logits["monai"]).abs().max() / logits["monai"].abs().max()
        logits.clear()
        began = time.perf_counter()
        rounds = 0
        while rounds < repeats or (time.perf_counter() - began < 2 and rounds < 50):  # short settings get more rounds
            rounds += 1
            order = list(inferers.items())
            for name, inferer in order[:: 1 if rounds % 2 else -1]:
                if device == "cuda":
                    torch.cuda.synchronize()
                    torch.cuda.reset_peak_memory_stats()
                before = time.perf_counter()
                inferer(inputs, network)
                if device == "cuda":
                    torch.cuda.synchronize()
                    peaks[name] = torch.cuda.max_memory_allocated() / 2**20
                seconds[name].append(time.perf_counter() - before)
    result = {"largest_difference_relative": float(difference)}
    for name, values in seconds.items():
        low, median, high = statistics.quantiles(values, n=4)
        result[name] = {"median_seconds": median, "iqr_seconds": high - low}
        if name in peaks:
            result[name]["peak_mib"] = peaks[name]
    # Of the rounds, not of the medians: both runs of a round had the same load on the machine.
    ratios = [theirs / ours for theirs, ours in zip(seconds["monai"], seconds["r2seg"], strict=True)]
    result |= {"rounds": rounds, "speedup": statistics.median(ratios)}
    return result


def peak_mib_on_cpu(setting: Setting, name: str, seed: int, threads: int) -> float:
    """Growth of the resident set over that of the loaded inputs and network, in a process of its own (Linux)."""
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=_send_peak, args=(setting, name, seed, threads, sender))
    child.start()
    peak = receiver.recv()
    child.join()
    return peak


def _send_peak(setting: Setting, name: str, seed: int, threads: int, sender) -> None:
    torch.set_num_threads(threads)
    inputs, network = setting.load(seed, "cpu", "cpu")
    inferer = setting.inferers()[name.removesuffix(" stream")]
    before = _status_mib("VmRSS")
    with torch.inference_mode():
        if name.endswith("stream"):
            for _, logits in inferer.stream(inputs[0], network):
                logits.argmax(0)
        else:
            inferer(inputs, network)
    sender.send(_status_mib("VmHWM") - before)


def _status_mib(key: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(key))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="also write the results to this file")
    parser.add_argument("--repeats", type=int, default=7, help="least number of timed rounds")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--device", choices=["cpu", "cuda"], help="only this device; by default both, if both are available"
    )
    arguments = parser.parse_args()

    places = [("cpu", "cpu"), ("cuda", "cuda"), ("cuda", "cpu")]
    places = [p for p in places if arguments.device in (None, p[0]) and (p[0] == "cpu" or torch.cuda.is_available())]
    # Memory first: a child of a process whose thread pool is already running would hang.
    measure = platform.system() == "Linux" and ("cpu", "cpu") in places
    peaks = [
        {
            name: peak_mib_on_cpu(s, name, arguments.seed, arguments.threads)
            for name in ("r2seg", "monai", "r2seg stream")
        }
        if measure
        else {}
        for s in SETTINGS
    ]
    torch.set_num_threads(arguments.threads)
    rows = []
    print(
        "device inputs network windows                       r2seg s (IQR)    monai s (IQR) ratio  MiB r2seg stream monai  difference"
    )
    for device, inputs_on in places:
        for setting, peak in zip(SETTINGS, peaks, strict=True):
            row = {"device": device, "inputs_on": inputs_on, **vars(setting)}
            row |= time_both(setting, arguments.repeats, arguments.seed, device, inputs_on)
            if device == "cpu":
                for name, mib in peak.items():
                    row.setdefault(name, {})["peak_mib"] = mib
            rows.append(row)
            ours, theirs, streamed = row["r2seg"], row["monai"], row.get("r2seg stream", {})
            print(
                f"{device:6} {inputs_on:6} {setting.network:7} {setting.name:26}"
                f"{ours['median_seconds']:8.4f} ({ours['iqr_seconds']:.4f}){theirs['median_seconds']:8.4f} ({theirs['iqr_seconds']:.4f})"
                f"{row['speedup']:7.2f}  "
                + " ".join(f"{one.get('peak_mib', float('nan')):6.0f}" for one in (ours, streamed, theirs))
                + f"  {row['largest_difference_relative']:.1e}",
                flush=True,
            )
    if arguments.json:
        report = {
            "benchmark": "window_inference",
            "versions": {"r2seg": r2seg.__version__, "torch": torch.__version__, "monai": monai.__version__},
            "python": platform.python_version(),
            "machine": torch.cuda.get_device_name() if torch.cuda.is_available() else platform.machine(),
            "threads": arguments.threads,
            "repeats": arguments.repeats,
            "seed": arguments.seed,
            "results": rows,
        }
        arguments.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
