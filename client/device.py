"""Where and in which precision the network computes; chosen from the machine at hand."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from common.config import Precision

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}

LAYOUTS = {  # channels last, by axes; batch norm: 0.7 to 0.85 of contiguous's time (`make bench`)
    4: torch.channels_last,
    5: torch.channels_last_3d,
}
NATIVE_BFLOAT16 = ("avx512_bf16", "amx_bf16", "bf16")  # torch's names on x86 and Arm


@dataclass(frozen=True)
class Device:
    """A torch device with its autocast type; float32 means no autocast."""

    device: torch.device
    dtype: torch.dtype

    def autocast(self) -> torch.autocast:
        """Return the autocast context; it does nothing in float32."""
        enabled = self.dtype != torch.float32
        return torch.autocast(self.device.type, dtype=self.dtype, enabled=enabled)

    def gradient_scaler(self) -> torch.amp.GradScaler:
        """Return a scaler that works for float16, whose gradients underflow, and is idle else."""
        return torch.amp.GradScaler(self.device.type, enabled=self.dtype == torch.float16)

    def place(self, tensor: Tensor) -> Tensor:
        """Move a (batch, channel, [z,] y, x) tensor here, channels last."""
        return tensor.to(self.device, memory_format=LAYOUTS[tensor.ndim], non_blocking=True)

    def place_network(self, network: nn.Module) -> nn.Module:
        """Move a network here, its convolution weights channels last."""
        axes = max((p.ndim for p in network.parameters() if p.ndim in LAYOUTS), default=5)
        return network.to(self.device, memory_format=LAYOUTS[axes])  # type: ignore[call-overload, no-any-return]


def choose_device(precision: Precision) -> Device:
    """Return CUDA if present, else the CPU, with the fastest safe precision for "auto".

    "auto" is bfloat16 where the hardware multiplies it natively (it keeps float32's range, so
    no gradient scaling is needed), float16 on older CUDA cards, float32 on other CPUs, where
    bfloat16 would be emulated and slow.
    """
    cuda = torch.cuda.is_available()
    device = torch.device("cuda" if cuda else "cpu")
    if precision != "auto":
        return Device(device, DTYPES[precision])
    if cuda:
        native = torch.cuda.is_bf16_supported(including_emulation=False)
        return Device(device, torch.bfloat16 if native else torch.float16)
    capabilities = torch.cpu.get_capabilities()
    native = any(capabilities.get(name) for name in NATIVE_BFLOAT16)
    return Device(device, torch.bfloat16 if native else torch.float32)


def accelerator_memory_gb() -> float | None:
    """Return the whole memory of the accelerator in GB, to one decimal; None without one."""
    if not torch.cuda.is_available():
        return None
    return round(float(torch.cuda.get_device_properties(0).total_memory) / 1e9, 1)


def describe(device: Device) -> str:
    """Return the device in words for the run's log."""
    name = (
        torch.cuda.get_device_name(device.device)
        if device.device.type == "cuda"
        else f"CPU, {torch.get_num_threads()} threads"
    )
    return f"{name}, {str(device.dtype).removeprefix('torch.')}"
