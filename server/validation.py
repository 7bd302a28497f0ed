"""Checking a site's update completely before any of it is used.

Counting a site's cases before its weights are known to be good biases the mean for ever.
"""

import base64
from collections.abc import Collection, Mapping, Sequence
from dataclasses import astuple

import numpy as np
from numpy.typing import NDArray

from common.axes import Weights
from common.config import RunConfig
from common.errors import MessageError
from common.evaluation.aggregates import Aggregate
from common.federation import Upload
from common.messages import Picture, Ranked, Tested, TrainTask, Update
from common.partial_sharing import complete
from common.privacy.mechanism import Spent
from common.ranks.rank_sums import RankSums
from common.transport import SENT_AS, is_rounded, restored
from server.exact_sum import MAX_WEIGHT, PIECE
from server.sites import Reply

MAX_NOTE = 1000  # letters of the sentence about batch norm
PNG_MAGIC = b"\x89PNG\r\n\x1a\n"


def check_update(
    reply: Reply[Update], task: TrainTask, sent: Weights, n_released: int, upload: Upload
) -> Weights:
    """Return the whole weights of an update that fits what was asked for.

    Args:
        reply: what the site sent.
        task: what it was asked.
        sent: the weights that it was to train from.
        n_released: cases that the site declared before planning; it cannot gain weight later.
        upload: how the run's configuration has sites send what they learned.

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
    weights = complete(weights, sent, task.withheld_fraction)
    if set(weights) != set(sent):
        different = sorted(set(weights) ^ set(sent))
        raise MessageError(f"weights: expected the tensors that were sent; differ in {different}")
    scales = update.scales or {}
    expected = set() if upload == "float32" else {n for n in sent if is_rounded(sent[n].shape)}
    if set(scales) != expected:
        raise MessageError(f"scales: expected one for each of {len(expected)} rounded tensors")
    return {
        name: _checked(name, weights[name], sent[name], scales.get(name), upload) for name in sent
    }


def _checked(
    name: str,
    found: NDArray[np.generic],
    sent: NDArray[np.float32],
    scale: float | None,
    upload: Upload,
) -> NDArray[np.float32]:
    """Return one tensor's weights, whole or from its rounded change."""
    expected = sent.dtype if scale is None else np.dtype(SENT_AS[upload])
    if found.shape != sent.shape or found.dtype != expected:
        raise MessageError(
            f"weights: {name}: expected {expected} {sent.shape}, found {found.dtype} {found.shape}"
        )
    weights = np.asarray(found) if scale is None else restored(sent, found, scale, upload)
    if not np.isfinite(weights).all():
        raise MessageError(f"weights: {name}: expected finite values")
    if weights.size and max(float(weights.max()), -float(weights.min())) > MAX_WEIGHT:
        raise MessageError(f"weights: {name}: expected magnitudes up to {MAX_WEIGHT:.0f}")
    return weights


def check_told(update: Update, config: RunConfig) -> None:
    """Demand that an update tells its loss where the run is not private, and else what it cost.

    Raises:
        MessageError: when that does not fit what the configuration promises.
    """
    check_spent(update.spent, config)
    if config.privacy is None and update.loss is None:
        raise MessageError("loss: expected, found none")
    if config.privacy is not None and update.loss is not None:
        raise MessageError("loss: expected none with [privacy], for it has no noise")


def check_spent(spent: Spent | None, config: RunConfig) -> None:
    """Demand what a site's patients have paid where the run is private, and only there.

    Raises:
        MessageError: when it does not fit what the configuration promises.
    """
    privacy = config.privacy
    if privacy is None:
        if spent is not None:
            raise MessageError("spent: expected none without [privacy]")
        return
    if spent is None:
        raise MessageError("spent: expected with [privacy], found none")
    if spent.delta != privacy.delta:
        raise MessageError(f"spent: expected delta {privacy.delta:g}, found {spent.delta:g}")
    if privacy.epsilon is not None and spent.epsilon > privacy.epsilon:
        raise MessageError(
            f"spent: expected an epsilon up to {privacy.epsilon:g}, found {spent.epsilon:g}"
        )


def check_dice(dice: Mapping[str, float] | None, regions: Collection[str]) -> None:
    """Demand a Dice in [0, 1] for every region and for nothing else, or none at all.

    Raises:
        MessageError: when it does not fit.
    """
    if dice is None:
        return
    if set(dice) != set(regions) or not all(0 <= value <= 1 for value in dice.values()):
        raise MessageError(f"dice: expected a fraction for each of {', '.join(regions)}")


def check_tested(tested: Tested, regions: Collection[str], n_released: int | None) -> None:
    """Demand what the level of release says, in range, and pictures that are PNG.

    Args:
        tested: what a held-out site answered.
        regions: of the task.
        n_released: cases that the site declared before planning; None if it did not tell.

    Raises:
        MessageError: with the first thing that does not fit.
    """
    unseen = tested.metrics == "secure-sum"
    if unseen != (tested.n_cases is None):
        raise MessageError(f"n_cases: expected {'none' if unseen else 'some'} as released")
    if not unseen and n_released is not None and tested.n_cases != n_released:
        raise MessageError(f"n_cases: expected {n_released}, found {tested.n_cases}")
    if len(tested.note) > MAX_NOTE:
        raise MessageError(f"note: expected at most {MAX_NOTE} letters")
    if tested.metrics == "cases":
        _check_scores(tested, regions)
        _check_pictures(tested.pictures)
    elif tested.scores or tested.pictures:
        raise MessageError(f"expected neither scores nor pictures under {tested.metrics!r}")


def _check_scores(tested: Tested, regions: Collection[str]) -> None:
    """Demand one score per case and region, in range."""
    found = [(score.case, score.region) for score in tested.scores]
    numbers = range(1, (tested.n_cases or 0) + 1)
    expected = {(case, region) for case in numbers for region in regions}
    if len(found) != len(expected) or set(found) != expected:
        raise MessageError(
            f"scores: expected cases 1 to {tested.n_cases} with {', '.join(regions)}, each once"
        )
    for score in tested.scores:
        fractions = (score.dice, score.sensitivity, score.specificity)
        if not all(0 <= value <= 1 for value in fractions) or score.hd95 < 0:
            raise MessageError(f"scores: case {score.case}, {score.region}: out of range")


def _check_pictures(pictures: Sequence[Picture]) -> None:
    kinds = [picture.kind for picture in pictures]
    if len(set(kinds)) != len(kinds):
        raise MessageError("pictures: expected every kind once")
    for picture in pictures:
        if not 0 <= picture.dice <= 1:
            raise MessageError(f"picture {picture.kind!r}: Dice out of range")
        if not png_of(picture).startswith(PNG_MAGIC):
            raise MessageError(f"picture {picture.kind!r}: expected PNG")


def check_ranked(ranked: Ranked, site: str, pool: RankSums, n_cases: int | None, data: str) -> None:
    """Demand the rank sums of one site's cases, all of them and nobody else's.

    Args:
        ranked: what a held-out site answered; its sums are possible ones (`RankSums` saw to it).
        site: who answered.
        pool: the zero of the methods, regions and ties that were asked for.
        n_cases: that the site tested; None if it did not tell.
        data: the word under which it tested.

    Raises:
        MessageError: with the first thing that does not fit.
    """
    sums = ranked.sums
    if (sums.methods, sums.regions, sums.ties) != (pool.methods, pool.regions, pool.ties):
        raise MessageError("sums: expected the methods, regions and ties that were asked for")
    n_cases = sums.n_cases if n_cases is None else n_cases
    if {name: part.n_cases for name, part in sums.institutions.items()} != {site: n_cases}:
        raise MessageError(f"sums: expected those of {site}'s {n_cases} cases")
    if ranked.data != data:
        raise MessageError("data: expected those that were tested, found others")
    found = [(aggregate.method, aggregate.region) for aggregate in ranked.aggregates]
    expected = [(method, region) for method in pool.methods for region in pool.regions]
    if found and sorted(found) != sorted(expected):
        raise MessageError("aggregates: expected every method and region once, or none")
    for aggregate in ranked.aggregates:
        _check_aggregate(aggregate, n_cases)


def check_masked(ranked: Ranked, pool: RankSums, data: str) -> None:
    """Demand an answer that tells nothing beside its masked vector, of the data that were tested.

    Raises:
        MessageError: with the first thing that does not fit.
    """
    if ranked.sums != pool or ranked.aggregates:
        raise MessageError("sums: expected masked ones only, of the methods that were asked for")
    if ranked.data != data:
        raise MessageError("data: expected those that were tested, found others")


def _check_aggregate(aggregate: Aggregate, n_cases: int) -> None:
    dice, hd95 = astuple(aggregate.dice), astuple(aggregate.hd95)
    in_range = all(0 <= value <= 1 for value in dice) and min(hd95) >= 0
    counted = aggregate.n_cases == n_cases and aggregate.n_empty_references <= n_cases
    if not (in_range and counted):
        raise MessageError(f"aggregates: {aggregate.method}, {aggregate.region}: out of range")


def png_of(picture: Picture) -> bytes:
    """Return the bytes of a picture; a `MessageError` when they are not base64."""
    try:
        return base64.b64decode(picture.png_base64, validate=True)
    except ValueError:  # of base64, or letters outside ASCII
        raise MessageError(f"picture {picture.kind!r}: expected base64") from None


def update_norm(weights: Weights, sent: Weights) -> float:
    """Return the L2 norm of the difference between returned and sent weights."""
    total = 0.0
    for name in sorted(sent):
        found, before = weights[name].reshape(-1), sent[name].reshape(-1)
        for start in range(0, found.size, PIECE):  # what stays in a core's cache
            part = slice(start, start + PIECE)
            change = (found[part] - before[part]).astype(np.float64)
            total += float(change @ change)
    return float(np.sqrt(total))
