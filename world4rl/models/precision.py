"""bf16 where the hardware has it: emulated, it is slower than fp32."""

from __future__ import annotations

import torch


def bf16_is_native(device: torch.device) -> bool:
    """Whether the device multiplies bf16 in hardware."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def fast_autocast(device: torch.device) -> torch.autocast:
    """A context in which convolutions and matrix products run in bf16, if that is faster on this device."""
    return torch.autocast(device.type, torch.bfloat16, enabled=bf16_is_native(device))
