"""One round whose updates are seen only as their sum: mask, agree, open, hand the mean on."""

import time
from collections.abc import Sequence

from common.errors import FederationError
from common.fixed_point import mean_weights, parts
from common.messages import TrainTask
from common.round_sums import RoundSums, n_sums
from common.secure_sum import MaskKey
from server.events import SumLost, SumOpened
from server.experiment import Experiment
from server.participation import Outcome, require_quorum
from server.secure.gathering import masked_sum, secure_task
from server.secure.masked_sum_file import MaskedSum, keep_sum, kept_sum
from server.secure.opening import Lost, opened_sum
from server.strategies import SiteUpdate, State, Strategy
from server.validation import update_norm


def summed_update(
    run: Experiment,
    strategy: Strategy,
    state: State,
    task: TrainTask,
    asked: Sequence[str],
    outcome: Outcome,
    keys: dict[str, MaskKey],
) -> SiteUpdate | None:
    """Return the mean update of a round as one that counts as all of its sites together.

    A sum that an earlier start of the run did not come to open is opened now.

    Args:
        run: the experiment.
        strategy: the method; it needs nothing but the mean.
        state: before the round.
        task: what the sites are asked, without masks.
        asked: the sites.
        outcome: filled with the sites whose updates are in the sum; empty when it is lost.
        keys: of the sites, as far as they were asked in this start of the run; filled.

    Returns:
        None when too few sites helped to open the sum: it is lost, and so is the round.

    Raises:
        FederationError: when too few sites sent masked updates. Nothing of them was learned, and
            a resumed run begins the round again.
    """
    folder = run.folder.checkpoints(task.method)
    found = kept_sum(folder, task.round)
    if found is None:
        question = secure_task(run, task, asked, keys)
        found = masked_sum(run, strategy, state, question, outcome)
        _require_survivors(run, strategy, task, asked, outcome, found)
        keep_sum(folder, task.round, found)
    else:
        outcome.accepted.extend(found.sites)
    return _opened(run, strategy, state, task, found, outcome)


def _opened(
    run: Experiment,
    strategy: Strategy,
    state: State,
    task: TrainTask,
    found: MaskedSum,
    outcome: Outcome,
) -> SiteUpdate | None:
    began = time.monotonic()
    try:
        total, told = opened_sum(run, task, found)
        sent = strategy.weights_for(state, found.sites[0])
        share = told.count / found.survivors.secure.total_count
        words, _ = parts(total, n_sums(tuple(run.task.regions)))
        weights = mean_weights(sent, words, share)
    except Lost as error:
        outcome.accepted.clear()
        run.log.append(SumLost(method=task.method, round=task.round, reason=str(error)))
        return None
    seconds = time.monotonic() - began
    _report(run, task, found, told, update_norm(weights, sent), seconds)
    return SiteUpdate("sum", told.count, weights)


def _require_survivors(
    run: Experiment,
    strategy: Strategy,
    task: TrainTask,
    asked: Sequence[str],
    outcome: Outcome,
    found: MaskedSum,
) -> None:
    """Demand the quorum of every round, and enough survivors for a sum to be opened."""
    federation, events = run.config.federation, run.folder.events
    where = f"{task.method}, round {task.round} (reasons in {events})"
    require_quorum(strategy, federation, run.cohort, asked, outcome, task.round, where)
    settings, n_sites = federation.secure_aggregation, len(found.survivors.secure.sites)
    fewest = settings.fewest_survivors(n_sites) if settings else 0
    if len(found.sites) < fewest:
        raise FederationError(
            f"{where}: secure sum: expected masked updates of at least {fewest} of {n_sites} "
            f"sites, found {len(found.sites)}; nothing was opened"
        )


def _report(
    run: Experiment,
    task: TrainTask,
    found: MaskedSum,
    told: RoundSums,
    norm: float,
    seconds: float,
) -> None:
    run.log.append(
        SumOpened(
            method=task.method,
            round=task.round,
            sites=found.sites,
            count=told.count,
            loss=told.loss,
            dice=told.dice if task.round > 1 else None,
            update_norm=norm,
            seconds=seconds,
        )
    )
