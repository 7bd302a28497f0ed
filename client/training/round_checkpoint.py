"""What a site needs to go on inside a round after a crash: weights, optimiser, losses so far.

A round is a function of what the site received; the checkpoint names that, and one of anything else
is not used. Batches derive from the step's number, so that the resumed round sees the rest of them.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from client.training.optimizer_state import arrays_of, put_arrays
from client.training.train import Learner
from common.axes import Weights
from common.codec import canonical_json
from common.errors import DiskError
from common.files import write_atomically
from common.messages import TrainTask
from common.network import load_weights, weights_of
from common.packing import weights_digest

NETWORK, OPTIMIZER, LOSSES = "network/", "optimizer/", "losses"


@dataclass(frozen=True)
class RoundCheckpoint:
    """The one file of a round; the next round of the same method replaces it."""

    path: Path
    received: str
    """What the round began with, as `digest_of` says it."""
    every_steps: int
    """0 keeps nothing."""

    def after_step(self, learner: Learner) -> None:
        """Keep the learner's state if it is time to."""
        if self.every_steps and learner.step % self.every_steps == 0:
            self.keep(learner)

    def keep(self, learner: Learner) -> None:
        """Write the learner's state, whole or not at all.

        Raises:
            DiskError: when that is not possible.
        """
        arrays = {NETWORK + name: value for name, value in weights_of(learner.network).items()}
        state = arrays_of(learner.optimizer)
        arrays |= {OPTIMIZER + name: value for name, value in state.items()}
        arrays[LOSSES] = torch.stack(learner.losses).cpu().numpy()
        scaler = json.dumps(learner.scaler.state_dict())
        write_atomically(self.path, save(arrays, {"received": self.received, "scaler": scaler}))

    def restore(self, learner: Learner) -> int:
        """Put the state of the same round into a learner that has just begun it.

        Returns:
            How many steps are done: 0 without a checkpoint, or with one of something else.

        Raises:
            DiskError: when the file is damaged.
        """
        if not self.path.exists():
            return 0
        try:
            with safe_open(self.path, framework="numpy") as file:
                about = file.metadata() or {}
                if about.get("received") != self.received:
                    return 0
                arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no dict
        except SafetensorError as error:
            raise DiskError(f"{self.path}: damaged: {error}; delete it") from None
        load_weights(learner.network, _below(arrays, NETWORK))
        put_arrays(learner.optimizer, _below(arrays, OPTIMIZER))
        learner.scaler.load_state_dict(json.loads(about["scaler"]))
        learner.losses[:] = torch.from_numpy(arrays[LOSSES]).unbind()
        return learner.step


def digest_of(task: TrainTask, weights: Weights) -> str:
    """Return what tells a round from every other: the digest of all that a site received."""
    return hashlib.sha256(canonical_json(task) + weights_digest(weights).encode()).hexdigest()


def _below(arrays: Mapping[str, np.ndarray], prefix: str) -> Weights:
    return {n.removeprefix(prefix): a for n, a in arrays.items() if n.startswith(prefix)}
