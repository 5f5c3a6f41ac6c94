"""Tells what the hardware multiplies. Knows devices; knows no model."""

import torch


def multiplies_bf16(device: torch.device) -> bool:
    """Tells whether a device has a unit for products of bfloat16 numbers; without one they take longer than float32."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("amx_bf16") or capabilities.get("avx512_bf16"))
