"""The sum of a round's masked updates, on the disk before anybody is asked to open it.

After a crash the run goes on with the same survivors; the sites agree to no others.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from common.codec import read_json, record, write_json
from common.errors import ConfigError
from common.federation import SiteName
from common.secure_round import Sealed, SecureRound
from common.secure_sum import Words
from server.run_folder import read_state, write_state

SUM, VECTOR = "sum", "masked"


@record
class Survivors:
    """Whose updates are in the sum, and what they sealed for each other."""

    secure: SecureRound
    shares: dict[SiteName, dict[SiteName, Sealed]]
    """By sender and receiver."""


@dataclass(frozen=True)
class MaskedSum:
    """A sum that is not opened; without the survivors' shares it is as good as random."""

    survivors: Survivors
    vector: Words

    @property
    def sites(self) -> tuple[str, ...]:
        """Names of the survivors, sorted."""
        return tuple(sorted(self.survivors.shares))


def keep_sum(folder: Path, round_: int, found: MaskedSum) -> None:
    """Write a sum, whole or not at all."""
    write_state(_vector(folder, found.survivors), {SUM: {VECTOR: found.vector.view(np.int64)}})
    write_json(_survivors(folder, round_), found.survivors)


def kept_sum(folder: Path, round_: int) -> MaskedSum | None:
    """Return the sum of a round that was not opened before the run stopped; None without one."""
    path = _survivors(folder, round_)
    if not path.exists():
        return None
    survivors = read_json(Survivors, path)
    state = read_state(_vector(folder, survivors))
    if SUM not in state:
        raise ConfigError(f"{path}: expected the sum beside it, found another file")
    return MaskedSum(survivors, np.asarray(state[SUM][VECTOR]).view(np.uint64))


def forget_sums(folder: Path) -> None:
    """Delete what was opened or lost."""
    for path in [*folder.glob("survivors-*.json"), *folder.glob("masked-*.safetensors")]:
        path.unlink(missing_ok=True)


def _survivors(folder: Path, round_: int) -> Path:
    return folder / f"survivors-{round_:04d}.json"


def _vector(folder: Path, survivors: Survivors) -> Path:
    return folder / f"masked-{survivors.secure.roster.nonce}.safetensors"
