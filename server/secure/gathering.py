"""Asking for masked updates and adding them as they arrive; none is kept, none can be read."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from common.config import RunConfig
from common.errors import FederationError, MessageError
from common.federation import Federation
from common.fixed_point import add_to, n_parameters, vector_words
from common.messages import KeysTask, MaskedUpdate, TrainTask, Update
from common.planning.plan import Plan
from common.round_sums import n_sums
from common.secure_round import SecureRound
from common.secure_sum import MaskKey, Roster, Words, new_nonce
from server.events import ReplyIgnored, SiteMasked
from server.experiment import Experiment
from server.participation import Outcome
from server.planning.cohort import Cohort
from server.secure.masked_sum_file import MaskedSum, Survivors
from server.secure.whole_sum import checked_key
from server.sites import Failure, Late, Reply
from server.strategies import State, Strategy
from server.updates import report_failure
from server.validation import check_spent
from server.weighting import steps_of


def secure_task(
    run: Experiment, task: TrainTask, asked: Sequence[str], keys: dict[str, MaskKey]
) -> TrainTask:
    """Return the question of a round for those of the asked sites whose keys are known.

    Args:
        run: the experiment.
        task: the question without masks.
        asked: sites.
        keys: of the sites of this run, as far as they were asked; filled.

    Raises:
        FederationError: when too few sites have a key for their sum to be opened.
    """
    _ask_for_keys(run, task, [site for site in asked if site not in keys], keys)
    there = tuple(keys[site] for site in sorted(asked) if site in keys)
    settings = run.config.federation.secure_aggregation
    if settings is None or len(there) < settings.fewest_survivors(len(there)):
        raise FederationError(
            f"{task.method}, round {task.round}: secure sum: expected keys of at least "
            f"{settings.min_sites if settings else 0} sites, found {len(there)}"
        )
    secure = SecureRound(
        roster=Roster(nonce=new_nonce(), keys=there),
        threshold=settings.threshold(len(there)),
        total_count=most_count(run.cohort, run.config, run.plan, [key.site for key in there]),
    )
    return replace(task, secure=secure)


def masked_sum(
    run: Experiment, strategy: Strategy, state: State, task: TrainTask, outcome: Outcome
) -> MaskedSum:
    """Ask the sites of the roster to train; add up what they mask.

    Args:
        run: the experiment.
        strategy: the method; all its sites train from the same weights.
        state: before the round.
        task: the question, with its `secure`.
        outcome: filled with the sites whose updates are in the sum, or refused.
    """
    federation, secure = run.config.federation, _secure(task)
    sent = strategy.weights_for(state, secure.sites[0])
    n_numbers = n_sums(tuple(run.task.regions))
    total = np.zeros(vector_words(n_parameters(sent), n_numbers), np.uint64)
    shares = {}
    tasks = dict.fromkeys(secure.sites, (task, sent))
    answers = run.sites.train(tasks, federation.round_timeout_s, retries=federation.retries)
    for answer in answers:
        if isinstance(answer, Failure):
            report_failure(run, task.method, task.round, answer)
            continue
        reply = answer.reply if isinstance(answer, Late) else answer
        if isinstance(answer, Late) or reply.site in shares:
            _report_ignored(run, task, reply.site)
            continue
        try:
            check_spent(reply.value.spent, run.config)
            masked, vector = _checked(reply, task, secure, total.size)
        except MessageError as error:
            failure = Failure(reply.site, "message", str(error), reply.n_sent)
            report_failure(run, task.method, task.round, failure)
            outcome.refused.append(reply.site)
            continue
        add_to(total, vector, n_numbers)
        shares[reply.site] = masked.shares
        outcome.accepted.append(reply.site)
        _report(run, task, reply)
        del answer, reply, vector  # before the next one arrives
    return MaskedSum(Survivors(secure=secure, shares=shares), total)


def most_count(cohort: Cohort, config: RunConfig, plan: Plan, sites: Sequence[str]) -> int:
    """Return the most that sites can count together, from what they declared before planning."""
    federation = config.federation
    by_case = federation.weighting == "cases"
    if not by_case and not _by_steps(federation):
        return len(sites)
    told = [cohort.training[site].n_cases for site in sites]
    unseen = sum(n is None for n in told)
    n_unseen = cohort.secure_sum.n_cases if unseen and cohort.secure_sum else 0
    if by_case:
        return sum(n or 0 for n in told) + n_unseen
    seen = sum(steps_of(config, plan, n) for n in told if n is not None)
    return seen + (steps_of(config, plan, n_unseen) + unseen if unseen else 0)


def _by_steps(federation: Federation) -> bool:
    return federation.weighting == "steps" and federation.local_steps is None


def _ask_for_keys(
    run: Experiment, task: TrainTask, missing: Sequence[str], keys: dict[str, MaskKey]
) -> None:
    """Fill in the keys of sites that have not told theirs; who does not answer is not asked on."""
    if not missing:
        return
    everyone = tuple(run.cohort.training)
    asked = KeysTask(run=task.run, nonce=new_nonce(), sites=everyone, purpose="updates")
    for answer in map(checked_key, run.sites.keys(asked, missing)):
        if isinstance(answer, Failure):
            report_failure(run, task.method, task.round, answer)
        else:
            keys[answer.site] = answer.value


def _checked(
    reply: Reply[Update], task: TrainTask, secure: SecureRound, size: int
) -> tuple[MaskedUpdate, Words]:
    """Return a masked answer to this attempt.

    Raises:
        MessageError: with the first thing that does not fit.
    """
    update, weights = reply.value, reply.weights or {}
    masked = update.masked
    if update.round != task.round or masked is None or masked.nonce != secure.roster.nonce:
        raise MessageError(f"update: expected a masked one for attempt {secure.roster.nonce}")
    if set(masked.shares) != set(secure.sites) - {reply.site}:
        raise MessageError("update: expected sealed shares for every other site of the roster")
    vector = next(iter(weights.values()), np.empty(0, np.int64))
    if len(weights) != 1 or vector.dtype != np.int64 or vector.shape != (size,):
        raise MessageError(f"update: expected one masked vector of {size} words")
    return masked, vector.view(np.uint64)


def _report(run: Experiment, task: TrainTask, reply: Reply[Update]) -> None:
    run.log.append(
        SiteMasked(
            method=task.method,
            round=task.round,
            site=reply.site,
            seconds=reply.value.seconds,
            upload_bytes=reply.n_bytes,
            download_bytes=reply.n_sent,
            spent=reply.value.spent,
        )
    )


def _report_ignored(run: Experiment, task: TrainTask, site: str) -> None:
    text = "a masked update counts in its own round, once"
    run.log.append(ReplyIgnored(method=task.method, round=task.round, site=site, reason=text))


def _secure(task: TrainTask) -> SecureRound:
    if task.secure is None:
        raise ValueError("task: expected one with its masks")
    return task.secure
