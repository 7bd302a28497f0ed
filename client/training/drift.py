"""FedDyn at a site: the drift s_i, which a site carries from round to round and never sends.

FedDyn's local objective is L_i(w) - <g_i, w> + alpha / 2 * ||w - w_received||^2 with g_i the
gradient of L_i where the site's last round ended. Its gradient besides that of L_i is
alpha * (w - (w_received + g_i / alpha)): the proximal term of FedProx around a shifted origin. What
is kept is s_i = g_i / alpha, so that `g_i <- g_i - alpha (w_i - w_received)` becomes
`s_i <- s_i - (w_i - w_received)`; before the site's first round it is 0.

A round whose answer is lost is in the drift of the site, but not in the coordinator's correction.

Source: Acar et al. 2021, Federated learning based on dynamic regularization, algorithm 1.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from client.site import ROUNDS_KEPT, SiteConfig
from common.errors import ConfigError
from common.files import keep_recent, newest_up_to, write_atomically


def drift_file(site: SiteConfig, run: str, method: str, round_: int) -> Path:
    """Return where the drift lies after a round."""
    return site.round_file(run, "drift", method, round_)


def load_drift(path: Path, network: nn.Module) -> list[Tensor]:
    """Return the drift of every parameter after a round, or after the site's last one before.

    Returns:
        In the order of the network's parameters and on their devices; zeros before the first round.

    Raises:
        ConfigError: when the file is damaged.
    """
    newest = newest_up_to(path)
    if newest is None:
        return [torch.zeros_like(parameter) for parameter in network.parameters()]
    try:
        kept = load(newest.read_bytes())
        return [kept[name].to(parameter) for name, parameter in network.named_parameters()]
    except (SafetensorError, KeyError) as error:
        raise ConfigError(f"{newest}: expected a site's drift: {error}") from None


def shifted(received: Sequence[Tensor], drift: Sequence[Tensor]) -> list[Tensor]:
    """Return the origin of the proximal term."""
    return [origin + moved for origin, moved in zip(received, drift, strict=True)]


def save_drift(path: Path, network: nn.Module, origin: Sequence[Tensor]) -> None:
    """Keep s_i = origin - w_i of a trained network; its origin holds the drift before."""
    now = {
        name: (start - parameter.detach()).cpu().contiguous()
        for (name, parameter), start in zip(network.named_parameters(), origin, strict=True)
    }
    write_atomically(path, save(now))
    keep_recent(path, ROUNDS_KEPT)
