"""What becomes of the answers of a round: every check, then the method; or a reason in the log.

Everything about an update is checked before any of it is folded, and what is refused is never
half counted.
"""

import statistics
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from common.errors import MessageError
from common.losses import lower_bound
from common.messages import TrainTask, Update
from server.event_log import read_events
from server.events import ReplyIgnored, SiteFailed, SiteTrained, SiteValidated
from server.experiment import Experiment
from server.participation import Outcome
from server.run_folder import checkpoint_file, read_state
from server.sites import Failure, Late, Reply
from server.strategies import SiteUpdate, State, Strategy
from server.validation import check_dice, check_told, check_update, update_norm
from server.weighting import count_of


def good_updates(
    run: Experiment,
    strategy: Strategy,
    state: State,
    task: TrainTask,
    asked: Sequence[str],
    outcome: Outcome,
) -> Iterator[SiteUpdate]:
    """Ask the sites to train; yield the updates that pass every check and report the others.

    One update is in memory at a time. Late updates of earlier rounds count as the configuration
    says, against the weights that they began from.

    Args:
        run: the experiment.
        strategy: the method.
        state: before the round.
        task: what the sites are asked.
        asked: the sites.
        outcome: filled with the sites whose updates are good, or refused.
    """
    federation = run.config.federation
    tasks = {site: (task, strategy.weights_for(state, site)) for site in asked}
    limit = norm_limit(federation.max_norm_ratio, run.folder.events, task.method, task.round)
    answers = run.sites.train(
        tasks,
        federation.round_timeout_s,
        late_s=federation.late_rounds * federation.round_timeout_s,
        retries=federation.retries,
    )
    for answer in answers:
        if isinstance(answer, Failure):
            report_failure(run, task.method, task.round, answer)
            continue
        began = answer.task if isinstance(answer, Late) else task
        reply = answer.reply if isinstance(answer, Late) else answer
        if reason := _uncounted(run, task, began, reply.site, asked, outcome.accepted):
            _report_ignored(run, task, reply.site, reason)
            continue
        try:
            update = _checked(run, strategy, state, task, began, reply, limit)
        except MessageError as error:
            failure = Failure(reply.site, "message", str(error), reply.n_sent)
            report_failure(run, task.method, task.round, failure)
            outcome.refused.append(reply.site)
            continue
        outcome.accepted.append(reply.site)
        yield update
        del answer, reply, update  # before the next one arrives


def norm_limit(ratio: float | None, events: Path, method: str, round_: int) -> float:
    """Return how long an update may be: so many times the median of the rounds before.

    Infinity without a ratio and in the first round, where there is nothing to compare with.
    """
    if ratio is None:
        return float("inf")
    norms = {
        (event.round, event.site): event.update_norm
        for _, event in read_events(events)
        if isinstance(event, SiteTrained) and event.method == method and event.round < round_
    }
    return ratio * statistics.median(norms.values()) if norms else float("inf")


def _uncounted(
    run: Experiment,
    task: TrainTask,
    began: TrainTask,
    site: str,
    asked: Sequence[str],
    accepted: Sequence[str],
) -> str | None:
    """Return why a reply cannot count, whatever is in it; None if it can."""
    if site in accepted:
        return "a second answer to this round"
    if began is task:
        return None
    late = task.round - began.round
    if began.method != task.method:
        return f"it belongs to round {began.round} of {began.method}"
    if late > run.config.federation.late_rounds or site in asked:
        return f"it belongs to round {began.round}"
    before = checkpoint_file(run.folder.checkpoints(task.method), began.round - 1)
    return None if before.exists() else f"the weights of round {began.round} are no longer kept"


def _checked(
    run: Experiment,
    strategy: Strategy,
    state: State,
    task: TrainTask,
    began: TrainTask,
    reply: Reply[Update],
    limit: float,
) -> SiteUpdate:
    """Return a reply as an update that fits what its site was asked, and report it.

    Raises:
        MessageError: with the first thing that does not fit.
    """
    if began is not task:
        folder = run.folder.checkpoints(task.method)
        state = read_state(checkpoint_file(folder, began.round - 1))
    sent = strategy.weights_for(state, reply.site)
    declared, upload = run.cohort.most_cases(reply.site), run.config.federation.upload
    weights = check_update(reply, began, sent, declared, upload)
    check_dice(reply.value.validation, run.task.regions)
    check_told(reply.value, run.config)
    count = count_of(reply.value, run.config, run.plan)
    norm = update_norm(weights, sent)
    if norm > limit:
        raise MessageError(f"update: expected a norm up to {limit:.3g}, found {norm:.3g}")
    _report_update(run, task, began, reply, norm)
    least = lower_bound(run.config.training.loss)
    excess = (reply.value.loss or least) - least  # none is private, and no method asks for it
    return SiteUpdate(reply.site, count, weights, excess)


def _report_update(
    run: Experiment, task: TrainTask, began: TrainTask, reply: Reply[Update], norm: float
) -> None:
    update = reply.value
    report_validation(run, task.method, began.round - 1, reply.site, update.validation)
    run.log.append(
        SiteTrained(
            method=task.method,
            round=task.round,
            site=reply.site,
            n_cases=update.n_cases,
            n_steps=update.n_steps,
            loss=update.loss,
            update_norm=norm,
            seconds=update.seconds,
            upload_bytes=reply.n_bytes,
            download_bytes=reply.n_sent,
            late_rounds=task.round - began.round,
            spent=update.spent,
        )
    )


def report_validation(
    run: Experiment, method: str, round_: int, site: str, dice: Mapping[str, float] | None
) -> None:
    """Log what the weights after a round reach on a site's own validation cases."""
    if dice is not None:
        event = SiteValidated(method=method, round=round_, site=site, dice=dict(dice))
        run.log.append(event)


def report_failure(run: Experiment, method: str, round_: int, failure: Failure) -> None:
    """Log why a site's answer is missing or refused."""
    run.log.append(
        SiteFailed(
            method=method,
            round=round_,
            site=failure.site,
            code=failure.code,
            reason=failure.reason,
            download_bytes=failure.n_sent,
        )
    )


def _report_ignored(run: Experiment, task: TrainTask, site: str, reason: str) -> None:
    event = ReplyIgnored(method=task.method, round=task.round, site=site, reason=reason)
    run.log.append(event)
