"""An optimiser's state (momentum) as named arrays, and on a site's disk between two rounds.

It never travels: it says how the last gradients ran. It is kept per run, method and round, so that
a round which is asked for again after a crash starts from the same state as the first time.
"""

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from client.site import ROUNDS_KEPT, SiteConfig
from common.axes import Weights
from common.errors import ConfigError
from common.files import keep_recent, newest_up_to, write_atomically


def optimizer_file(site: SiteConfig, run: str, method: str, round_: int) -> Path:
    """Return where the optimiser's state lies after a round."""
    return site.round_file(run, "optimizer", method, round_)


def save_optimizer(path: Path, optimizer: torch.optim.Optimizer) -> None:
    """Keep the state after a round and drop that of rounds that cannot come back."""
    write_atomically(path, save(dict(arrays_of(optimizer))))
    keep_recent(path, ROUNDS_KEPT)


def load_optimizer(path: Path, optimizer: torch.optim.Optimizer) -> None:
    """Put the state after a round, or after the site's last one before, into an optimiser.

    Without any, the optimiser stays as it is: before the site's first round.

    Raises:
        ConfigError: when the file is damaged.
    """
    newest = newest_up_to(path)
    if newest is None:
        return
    try:
        put_arrays(optimizer, load_file(newest))
    except (SafetensorError, KeyError, ValueError) as error:
        raise ConfigError(f"{newest}: expected an optimiser's state: {error}") from None


def arrays_of(optimizer: torch.optim.Optimizer) -> Weights:
    """Return a copy of the state of every parameter, on the CPU, named <parameter>.<quantity>."""
    state = optimizer.state_dict()["state"]
    return {
        f"{index}.{quantity}": value.detach().cpu().contiguous().numpy().copy()
        for index, quantities in state.items()
        for quantity, value in quantities.items()
        if value is not None
    }


def put_arrays(optimizer: torch.optim.Optimizer, arrays: Weights) -> None:
    """Replace an optimiser's state by what `arrays_of` gave for one of the same parameters."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    state: dict[int, dict[str, torch.Tensor]] = {}
    for name, array in arrays.items():
        index, quantity = name.split(".", 1)
        value = torch.from_numpy(array)
        if value.shape == parameters[int(index)].shape:  # in the parameter's layout
            value = torch.empty_like(parameters[int(index)].detach()).copy_(value)
        state.setdefault(int(index), {})[quantity] = value
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state, "param_groups": groups})
