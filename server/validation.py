"""Checking a site's update completely before any of it is used.

Counting a site's cases before its weights are known to be good biases the mean for ever.
"""

import base64
from collections.abc import Collection, Mapping

import numpy as np

from common.axes import Weights
from common.errors import MessageError
from common.messages import Picture, Tested, TrainTask, Update
from server.exact_sum import MAX_WEIGHT
from server.sites import Reply

MAX_NOTE = 1000  # letters of the sentence about batch norm
PNG_MAGIC = b"\x89PNG\r\n\x1a\n"


def check_update(reply: Reply[Update], task: TrainTask, sent: Weights, n_released: int) -> Weights:
    """Return the weights of an update that fits what was asked for.

    Args:
        reply: what the site sent.
        task: what it was asked.
        sent: the weights that it was to train from.
        n_released: cases that the site declared before planning; it cannot gain weight later.

    Raises:
        MessageError: for another round, no cases, missing or extra tensors, another shape or
            number type, values that are not finite or beyond the range of the exact sum.
    """
    update, weights = reply.value, reply.weights
    if update.round != task.round:
        raise MessageError(f"round: expected {task.round}, found {update.round}")
    if not 0 < update.n_cases <= n_released:
        raise MessageError(f"n_cases: expected 1 to {n_released}, found {update.n_cases}")
    if weights is None:
        raise MessageError("weights: expected, found none")
    if set(weights) != set(sent):
        different = sorted(set(weights) ^ set(sent))
        raise MessageError(f"weights: expected the tensors that were sent; differ in {different}")
    for name in sent:
        _check_tensor(name, weights[name], sent[name])
    return weights


def _check_tensor(name: str, found: np.ndarray, expected: np.ndarray) -> None:
    if found.shape != expected.shape or found.dtype != expected.dtype:
        raise MessageError(
            f"weights: {name}: expected {expected.dtype} {expected.shape}, "
            f"found {found.dtype} {found.shape}"
        )
    if not np.isfinite(found).all():
        raise MessageError(f"weights: {name}: expected finite values")
    if found.size and float(np.abs(found).max()) > MAX_WEIGHT:
        raise MessageError(f"weights: {name}: expected magnitudes up to {MAX_WEIGHT:.0f}")


def check_dice(dice: Mapping[str, float] | None, regions: Collection[str]) -> None:
    """Demand a Dice in [0, 1] for every region and for nothing else, or none at all.

    Raises:
        MessageError: when it does not fit.
    """
    if dice is None:
        return
    if set(dice) != set(regions) or not all(0 <= value <= 1 for value in dice.values()):
        raise MessageError(f"dice: expected a fraction for each of {', '.join(regions)}")


def check_tested(tested: Tested, regions: Collection[str], n_released: int) -> None:
    """Demand one score per declared case and region, in range, and pictures that are PNG.

    Raises:
        MessageError: with the first thing that does not fit.
    """
    found = [(score.case, score.region) for score in tested.scores]
    expected = {(case, region) for case in range(1, n_released + 1) for region in regions}
    if len(found) != len(expected) or set(found) != expected:
        raise MessageError(
            f"scores: expected cases 1 to {n_released} with {', '.join(regions)}, each once"
        )
    for score in tested.scores:
        fractions = (score.dice, score.sensitivity, score.specificity)
        if not all(0 <= value <= 1 for value in fractions) or score.hd95 < 0:
            raise MessageError(f"scores: case {score.case}, {score.region}: out of range")
    kinds = [picture.kind for picture in tested.pictures]
    if len(set(kinds)) != len(kinds) or len(tested.note) > MAX_NOTE:
        raise MessageError(f"expected every kind of picture once and at most {MAX_NOTE} letters")
    for picture in tested.pictures:
        if not 0 <= picture.dice <= 1:
            raise MessageError(f"picture {picture.kind!r}: Dice out of range")
        if not png_of(picture).startswith(PNG_MAGIC):
            raise MessageError(f"picture {picture.kind!r}: expected PNG")


def png_of(picture: Picture) -> bytes:
    """Return the bytes of a picture; a `MessageError` when they are not base64."""
    try:
        return base64.b64decode(picture.png_base64, validate=True)
    except ValueError:  # of base64, or letters outside ASCII
        raise MessageError(f"picture {picture.kind!r}: expected base64") from None


def update_norm(weights: Weights, sent: Weights) -> float:
    """Return the L2 norm of the difference between returned and sent weights."""
    squares = (
        np.square(weights[name].astype(np.float64) - sent[name]).sum() for name in sorted(sent)
    )
    return float(np.sqrt(sum(squares)))
