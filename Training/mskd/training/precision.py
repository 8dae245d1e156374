"""Automatic mixed precision: which number format a network is trained in on a device."""

from __future__ import annotations

from typing import Literal

import torch

from mskd.errors import SettingsError

PrecisionName = Literal["auto", "fp32", "bf16", "fp16"]


def computes_in_bfloat16(device: torch.device) -> bool:
    """Whether bfloat16 is native; emulated, it is tens of times slower than float32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    native = getattr(torch.cpu, "_is_avx512_bf16_supported", bool)
    return device.type == "cpu" and native()


def mixed_precision(name: PrecisionName, device: torch.device) -> tuple[torch.autocast, torch.amp.GradScaler]:
    """The autocast to compute under, and the scaler of the loss (which does something for float16 alone).

    Raises:
        SettingsError: float16 on a processor, which has no use for it.
    """
    if name == "fp16" and device.type != "cuda":
        raise SettingsError(
            f"optimization.precision is 'fp16', which is for CUDA devices, and this run is on {device}; use 'auto'."
        )
    if name == "auto":
        name = "bf16" if computes_in_bfloat16(device) else "fp16" if device.type == "cuda" else "fp32"
    kind = torch.float16 if name == "fp16" else torch.bfloat16
    autocast = torch.autocast(device.type, kind, enabled=name != "fp32")
    return autocast, torch.amp.GradScaler(device.type, enabled=name == "fp16")
