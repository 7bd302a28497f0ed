"""The weights of the round that the sites' validation liked best, kept until the method is done.

What a round's weights are worth is known when the answers of the next round are complete; at that
moment its state is at hand, and is written if it is the best so far. One file at a time is kept.
"""

from pathlib import Path

from server.run_folder import RunFolder, read_state, write_state
from server.strategies import State
from server.validation_curve import validation_curve


def keep_if_best(folder: RunFolder, method: str, round_: int, state: State) -> None:
    """Write the state after a round if no round before it was better.

    Args:
        folder: of the run, whose events hold the validation of this round, complete.
        method: whose state it is.
        round_: from 1.
        state: after that round.
    """
    curve = validation_curve(folder.events, method)
    if round_ not in curve or round_ != _best(curve, up_to=round_):
        return
    path = _path(folder, method, round_)
    write_state(path, state)
    for other in path.parent.glob("best-*.safetensors"):
        if other != path:
            other.unlink()


def best_state(folder: RunFolder, method: str) -> tuple[int, float, State] | None:
    """Return (round, mean validation Dice, state) of the best round; None if none was validated."""
    curve = validation_curve(folder.events, method)
    if not curve:
        return None
    round_ = _best(curve, up_to=max(curve))
    return round_, curve[round_], read_state(_path(folder, method, round_))


def _best(curve: dict[int, float], *, up_to: int) -> int:
    """Return the round of the highest Dice; of equal ones the first."""
    return max((n for n in curve if n <= up_to), key=lambda n: (curve[n], -n))


def _path(folder: RunFolder, method: str, round_: int) -> Path:
    return folder.checkpoints(method) / f"best-{round_:04d}.safetensors"
