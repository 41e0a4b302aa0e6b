"""Which device and which precision a command uses, and what to report if a GPU is present but cannot be used."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from contextlib import AbstractContextManager

import torch

from r2seg.errors import UserError, counted, entry_of

# Precision -> type of autocast. None is float32; "auto" is decided by the device.
PRECISIONS: dict[str, torch.dtype | None] = {
    "auto": None,
    "float32": None,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
}


def resolve_device(name: str = "auto") -> torch.device:
    """The device of a name: "auto", "cpu", "cuda", "cuda:N" or "mps". "auto" takes the best one that can be used.

    Raises:
        UserError: The named device cannot be used, with the reason.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda", torch.cuda.current_device())
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UserError(f"--device {name}: valid are auto, cpu, cuda, cuda:N, mps") from None
    if device.type == "cuda":
        if not torch.cuda.is_available():
            raise UserError(f"--device {name}: {why_no_cuda() or 'this machine has no NVIDIA device'}")
        if device.index is not None and device.index >= torch.cuda.device_count():
            raise UserError(f"--device {name}: this machine has cuda:0 to cuda:{torch.cuda.device_count() - 1}")
        return torch.device("cuda", device.index if device.index is not None else torch.cuda.current_device())
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise UserError("--device mps: torch cannot use an Apple GPU here")
    if device.type not in ("cpu", "mps"):
        raise UserError(f"--device {name}: valid are auto, cpu, cuda, cuda:N, mps")
    return device


def why_no_cuda() -> str | None:
    """Why torch cannot use the NVIDIA device that this machine has, and what to install; None if there is none."""
    if torch.cuda.is_available() or shutil.which("nvidia-smi") is None:
        return None
    asked = subprocess.run(
        ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    if asked.returncode != 0 or not asked.stdout.strip():
        return None
    gpu, _, driver = asked.stdout.splitlines()[0].partition(",")
    built = torch.version.cuda
    if built is None:
        remedy = "this torch is a build without CUDA: pip install --force-reinstall torch torchvision"
    else:
        remedy = (
            f"torch {torch.__version__} is built for CUDA {built}: update the NVIDIA driver, "
            "or install a torch built for an older CUDA"
        )
    return f"{gpu.strip()} (driver {driver.strip()}) is present, but torch cannot use it; {remedy}"


def describe_device(device: torch.device) -> str:
    """One line for the user: the device, its name, and threads or memory."""
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        return f"{device}: {properties.name}, {properties.total_memory / 2**30:.0f} GiB, torch {torch.__version__}"
    threads = torch.get_num_threads()
    return f"{device}: {counted(threads, 'thread')}, torch {torch.__version__}"


def autocast_dtype(device: torch.device, precision: str, *, trains_dims: int | None = None) -> torch.dtype | None:
    """The lower-precision type of autocast, or None for float32.

    "auto" is bf16 if the hardware supports it, fp16 on older CUDA devices, float32 elsewhere.

    Args:
        device: Where the network computes.
        precision: A key of ``PRECISIONS``.
        trains_dims: Number of spatial axes of the windows if gradients are computed, else None.

    Raises:
        UserError: The precision is unknown, or the device does not support it, or computes wrongly in it.
    """
    dtype = entry_of(PRECISIONS, precision, "precision")
    if precision == "float32":
        return None
    # The weight gradient of a 3x3x3 convolution in bf16 on an AVX512-BF16 CPU reads uninitialized memory if the map has two voxels
    # per axis, as deep levels do: the error exceeds the gradient, or it is NaN (torch 2.15; float32 and 2-D are right).
    if device.type == "cpu" and trains_dims == 3:
        if precision == "auto":
            return None
        raise UserError(
            f"precision {precision}: 3-D training on a CPU computes wrong gradients in it; set training.precision: float32"
        )
    if device.type == "cuda":
        has_bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
    elif device.type == "cpu":
        has_bf16 = bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
    else:
        has_bf16 = False
    if precision == "auto":
        return torch.bfloat16 if has_bf16 else torch.float16 if device.type == "cuda" else None
    if precision == "bf16" and not has_bf16:
        raise UserError(f"precision bf16: {device} does not support it; set precision: auto")
    if precision == "fp16" and device.type != "cuda":
        raise UserError(f"precision fp16 is for CUDA devices, but this is {device}; set precision: auto")
    return dtype


def autocast(device: torch.device, dtype: torch.dtype | None) -> AbstractContextManager:
    """``torch.autocast`` on the device in a type, or nothing for None."""
    return contextlib.nullcontext() if dtype is None else torch.autocast(device.type, dtype=dtype)
