"""A site's own tensors (batch-norm statistics) on its disk, and their calibration.

They never travel. They are kept per run, method and round, so that a round which is asked for
again after a crash starts from the same statistics, and gives the same weights, as the first
time. A held-out site has none: it estimates them on its own unlabelled images.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from client.device import Device, choose_device
from client.prediction.tiles import pad_to
from client.site import ROUNDS_KEPT, Agreement, SiteConfig
from common.axes import Image, Weights, in_volume
from common.batchnorm import has_batch_norm
from common.errors import ConfigError
from common.files import keep_recent, newest_up_to, write_atomically
from common.network import load_all_weights, load_weights, weights_of
from common.random import step_rng

CALIBRATION_CASES = 16  # about 1 GiB of BraTS cases


def statistics_file(site: SiteConfig, run: str, method: str, round_: int) -> Path:
    """Return where the tensors that stay lie after a round."""
    return site.round_file(run, "batch-norm", method, round_)


def save_local(path: Path, network: nn.Module, names: frozenset[str]) -> None:
    """Keep a network's local tensors and drop those of rounds that cannot come back."""
    weights = {name: tensor for name, tensor in weights_of(network).items() if name in names}
    write_atomically(path, save(weights))
    keep_recent(path, ROUNDS_KEPT)


def load_local(path: Path, network: nn.Module, names: frozenset[str]) -> bool:
    """Put the site's tensors of a round, or of its last one before, into a network.

    A site that missed rounds goes on from the last one that it took part in; another site's
    tensors are never a substitute.

    Returns:
        Whether the network has all that it needs: False before the site's first round.

    Raises:
        ConfigError: when the file is damaged.
    """
    if not names:
        return True
    newest = newest_up_to(path)
    if newest is None:
        return False
    try:
        kept: Weights = load_file(newest)
    except SafetensorError as error:
        raise ConfigError(f"{newest}: expected batch-norm statistics: {error}") from None
    load_weights(network, {name: kept[name] for name in names})
    return True


def random_patches(
    images: Sequence[Image], patch_size: tuple[int, ...], batch_size: int, rng: np.random.Generator
) -> NDArray[np.float32]:
    """Draw patches anywhere in unlabelled images, float32 (batch, channel, network axes)."""
    drawn, volume = [], in_volume(patch_size)
    for _ in range(batch_size):
        padded, _ = pad_to(images[int(rng.integers(len(images)))], volume)
        room = [size - patch for size, patch in zip(padded.shape[1:], volume, strict=True)]
        z, y, x = rng.integers(0, room, endpoint=True)
        d, h, w = volume
        drawn.append(padded[:, z : z + d, y : y + h, x : x + w])
    return np.stack(drawn).reshape(batch_size, -1, *patch_size)


def calibrate(network: nn.Module, batches: Iterable[NDArray[np.float32]], device: Device) -> int:
    """Estimate batch-norm statistics as the cumulative average over unlabelled batches.

    Args:
        network: its running statistics are replaced; nothing else changes.
        batches: float32 (batch, channel, network axes) each, sized as in training.
        device: where to compute.

    Returns:
        Number of batches used; 0 when the network has no batch norm.
    """
    layers = [module for module in network.modules() if isinstance(module, _BatchNorm)]
    if not layers:
        return 0
    count = 0
    with _cumulative(layers), torch.no_grad(), device.autocast():
        network.train()
        for batch in batches:
            network(device.place(torch.from_numpy(batch)))
            count += 1
    network.eval()
    return count


@contextmanager
def _cumulative(layers: Sequence[_BatchNorm]) -> Iterator[None]:
    """Reset the layers and let them average all batches alike; their momentum comes back."""
    momenta = [layer.momentum for layer in layers]
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # torch: cumulative average
    try:
        yield
    finally:
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum


def calibrate_on(
    images: Sequence[Callable[[], Image]],
    name: str,
    agreement: Agreement,
    network: nn.Module,
    device: Device,
) -> str:
    """Estimate the network's batch-norm statistics on prepared images, without any label.

    Args:
        images: one function per case that reads its prepared image; at most
            `CALIBRATION_CASES` of them, drawn at random, are in memory together.
        name: of the site; the draw depends on it.
        agreement: plan and settings of the run.
        network: gets the statistics.
        device: where to compute.

    Returns:
        What was done, in words for the report.
    """
    if not has_batch_norm(network):
        return "no running statistics: the network has no batch norm"
    if not any(name.endswith("running_mean") for name in agreement.local_names(network)):
        return "batch-norm statistics as the federation averaged them"
    rng = step_rng(agreement.terms.config.federation.seed, name, 0, 0, "calibration-cases")
    drawn = rng.permutation(len(images))[:CALIBRATION_CASES]
    chosen = [images[index]() for index in sorted(drawn.tolist())]
    count = calibrate(network, _calibration_batches(chosen, name, agreement), device)
    return (
        f"batch-norm statistics estimated on {count} batches of this site's own images, "
        "without their labels"
    )


def _calibration_batches(
    images: Sequence[Image], name: str, agreement: Agreement
) -> Iterator[NDArray[np.float32]]:
    config, plan = agreement.terms.config, agreement.configuration
    n_batches = max(1, config.evaluation.calibration_patches // plan.batch_size)
    for step in range(n_batches):
        rng = step_rng(config.federation.seed, name, 0, step, "calibration")
        yield random_patches(images, plan.patch_size, plan.batch_size, rng)


def received_network(agreement: Agreement, weights: Weights) -> tuple[nn.Module, Device]:
    """Build the network of a model that arrived, without any site's own statistics."""
    network = agreement.network()
    load_all_weights(network, weights, agreement.local_names(network))
    device = choose_device(agreement.terms.config.training.precision)
    device.place_network(network)
    return network, device
