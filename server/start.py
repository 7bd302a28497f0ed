"""The weights that training starts from: random ones, or those of a finished run's model.

Of another run's model a tensor is taken where its name and shape are equal: a network for other
labels keeps its random heads. What is frozen must be there whole: random, it would stay so. Under
differential privacy a start from a model of other patients, or of public data, costs these patients
nothing.
"""

from pathlib import Path

from torch import nn

from common.axes import Weights
from common.config import FinishedRun
from common.errors import ConfigError
from common.files import write_atomically
from common.network import initial_weights
from common.trained import trained_names
from server.events import Note
from server.experiment import Experiment
from server.run_folder import RunFolder, load_model


def keep_start(wanted: FinishedRun | None, folder: RunFolder) -> None:
    """Copy the model to start from, so that all methods start alike, whatever becomes of it.

    Raises:
        ConfigError: when the run to start from has no such model.
    """
    if wanted is None or folder.start.exists():
        return
    source = RunFolder(Path(wanted.run)).model(wanted.method)
    if not source.exists():
        raise ConfigError(
            f"model.start: {wanted.run}: expected a finished run with a model of {wanted.method}, "
            "found none"
        )
    write_atomically(folder.start, source.read_bytes())


def first_weights(run: Experiment, network: nn.Module) -> Weights:
    """Return the weights of a method's first round; the same for every method of the run.

    Raises:
        ConfigError: when the model to start from shares no tensor with the network, or lacks one
            that is frozen.
    """
    drawn = initial_weights(network, run.config.federation.seed)
    wanted = run.config.model.start
    if wanted is None:
        return drawn
    found = load_model(run.folder.start)
    taken = {n: w for n, w in drawn.items() if n in found and found[n].shape == w.shape}
    if not taken:
        raise ConfigError(
            f"model.start: {wanted.run}: expected a model with tensors of this network, found none"
        )
    _require_frozen(run, network, taken)
    share = sum(w.size for w in taken.values()) / sum(w.size for w in drawn.values())
    text = (
        f"start: {len(taken)} of {len(drawn)} tensors ({share:.1%} of the values) are those of the "
        f"model of {wanted.method} in {Path(wanted.run).name}"
    )
    run.log.append(Note(text=text))
    return {**drawn, **{name: found[name] for name in taken}}


def _require_frozen(run: Experiment, network: nn.Module, taken: Weights) -> None:
    trained = trained_names(network, run.config.training.trained)
    names = {name for name, _ in network.named_parameters()}
    if lacking := sorted(names - trained - set(taken)):
        raise ConfigError(
            f"model.start: expected a model with all {len(names - trained)} tensors that "
            f"training.trained freezes, of the same shapes; {len(lacking)} differ, the first is "
            f"{lacking[0]}"
        )
