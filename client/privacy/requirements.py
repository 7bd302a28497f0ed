"""What must hold before a step is private; anything else refuses, for the guarantee would be wrong.

Looked at is the network as it was built, not only what the configuration says of it.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from client.device import Device
from client.privacy.private_step import Mechanism
from client.site import Agreement
from common.config import Precision
from common.errors import PolicyError
from common.privacy.settings import PatientPrivacy


def private_mechanism(agreement: Agreement, privacy: PatientPrivacy, n_patients: int) -> Mechanism:
    """Return what every step of the run does at this site.

    Raises:
        PolicyError: with the rule "privacy", when the noise is not agreed on or is none, or there
            are no patients.
    """
    noise = agreement.noise_multiplier
    if noise is None or not 0 < noise < float("inf"):
        raise _refused(f"expected an agreed noise multiplier above 0, found {noise}")
    if n_patients < 1:
        raise _refused("expected at least 1 patient, found none")
    return Mechanism(
        clip_norm=privacy.clip_norm,
        noise_multiplier=noise,
        expected_patients=privacy.sampling_rate * n_patients,
        patches_at_once=agreement.configuration.batch_size,
    )


def private_device(device: Device, wanted: Precision) -> Device:
    """Return a device that skips no step: whether float16 overflows depends on the data.

    Raises:
        PolicyError: with the rule "privacy", when the run demands float16.
    """
    if device.dtype != torch.float16:
        return device
    if wanted == "float16":
        raise _refused("training.precision: expected float32, bfloat16 or auto, found float16")
    return Device(device.device, torch.float32)


def require_separate(network: nn.Module) -> None:
    """Demand that nothing of one patient stays in the network but through its gradient.

    Raises:
        PolicyError: with the rule "privacy", for every norm that keeps statistics or mixes samples.
    """
    found = [
        f"{name} ({type(module).__name__})"
        for name, module in network.named_modules()
        if isinstance(module, _NormBase)
        and (module.track_running_stats or isinstance(module, nn.modules.batchnorm._BatchNorm))  # noqa: SLF001 - the base of all of them
    ]
    if found:
        raise _refused(
            "expected a network without norms over several patients or with running statistics, "
            f"found {', '.join(found)}"
        )


def buffers_of(network: nn.Module) -> dict[str, Tensor]:
    """Return a copy of what a network keeps besides its parameters."""
    return {name: buffer.detach().clone() for name, buffer in network.named_buffers()}


def require_same_buffers(network: nn.Module, before: Mapping[str, Tensor]) -> None:
    """Demand that training changed nothing but parameters, for only those got noise.

    Raises:
        PolicyError: with the rule "privacy".
    """
    now = dict(network.named_buffers())
    if now.keys() != before.keys() or any(not torch.equal(before[n], now[n]) for n in now):
        raise _refused("expected that training changes parameters only, found a changed buffer")


def _refused(line: str) -> PolicyError:
    return PolicyError(f"[privacy]: {line}", "privacy")
