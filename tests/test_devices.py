"""Devices and precisions: what is requested can be used, or the error says why not."""

from __future__ import annotations

import subprocess
from typing import get_args

import pytest
import torch

from r2seg import devices
from r2seg.config import Config
from r2seg.devices import PRECISIONS, autocast_dtype, describe_device, resolve_device, why_no_cuda
from r2seg.errors import UserError

CPU = torch.device("cpu")


def test_auto_takes_the_cpu_if_there_is_nothing_better(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert resolve_device("auto") == CPU
    assert describe_device(CPU).startswith("cpu: ")


def test_a_gpu_that_torch_cannot_use_is_reported_with_driver_cuda_and_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(devices.shutil, "which", lambda name: f"/usr/bin/{name}")
    answer = subprocess.CompletedProcess([], 0, "NVIDIA A100, 470.57.02\n", "")
    monkeypatch.setattr(devices.subprocess, "run", lambda *_, **__: answer)
    monkeypatch.setattr(torch.version, "cuda", "13.2")
    reason = why_no_cuda()
    for part in ("NVIDIA A100", "driver 470.57.02", "CUDA 13.2", "update the NVIDIA driver"):
        assert part in reason
    with pytest.raises(UserError, match=r"--device cuda: NVIDIA A100 \(driver 470"):
        resolve_device("cuda")
    monkeypatch.setattr(torch.version, "cuda", None)
    assert "without CUDA: pip install" in why_no_cuda()


def test_bf16_on_a_cpu_needs_hardware_support(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    for there in (True, False):
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda there=there: there)
        assert autocast_dtype(CPU, "auto") == (torch.bfloat16 if there else None)
        assert autocast_dtype(CPU, "float32") is None
        if not there:
            with pytest.raises(UserError, match="precision bf16: cpu does not support it"):
                autocast_dtype(CPU, "bf16")
    with pytest.raises(UserError, match="fp16 is for CUDA"):
        autocast_dtype(CPU, "fp16")


def test_three_dimensional_training_on_a_cpu_is_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)
    assert autocast_dtype(CPU, "auto", trains_dims=3) is None
    assert autocast_dtype(CPU, "auto", trains_dims=2) == torch.bfloat16
    with pytest.raises(UserError, match="3-D training on a CPU computes wrong gradients in it"):
        autocast_dtype(CPU, "bf16", trains_dims=3)


def test_the_precisions_are_those_that_a_config_may_name() -> None:
    for section in ("training", "infer"):
        named = get_args(Config.model_fields[section].annotation.model_fields["precision"].annotation)
        assert sorted(named) == sorted(PRECISIONS)


def test_an_unknown_precision_is_refused() -> None:
    with pytest.raises(UserError, match="precision is 'fp8', which is unknown: give one of auto, float32, bf16, fp16"):
        autocast_dtype(CPU, "fp8")
