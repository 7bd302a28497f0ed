"""The rounds of one method: send weights, accept good updates, aggregate, checkpoint."""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from common.batchnorm import local_names
from common.config import MethodName, RunConfig
from common.errors import FederationError, MessageError
from common.losses import lower_bound
from common.messages import TrainTask, Update, ValidateTask
from common.network import build_network, initial_weights
from common.planning.plan import Plan, configuration_of
from common.task import Task
from server.best_round import best_state, keep_if_best
from server.early_stop import stops
from server.events import (
    EventLog,
    Note,
    RoundFinished,
    SiteFailed,
    SiteTrained,
    SiteValidated,
    read_events,
)
from server.planning.joining import Cohort
from server.plateau import rate_factor
from server.run_folder import (
    RunFolder,
    checkpoint_file,
    latest_checkpoint,
    read_state,
    save_checkpoint,
)
from server.sites import Answers, Failure, Reply, Sites
from server.strategies import SiteUpdate, State, Strategy, build_strategy
from server.strategies.moving_average import averaged
from server.validation import check_dice, check_update, update_norm
from server.weighting import count_of


@dataclass(frozen=True)
class Experiment:
    """What stays the same over all rounds and methods of a run."""

    config: RunConfig
    task: Task
    plan: Plan
    cohort: Cohort
    folder: RunFolder
    sites: Sites
    log: EventLog


def train_method(run: Experiment, method: MethodName) -> tuple[Strategy, State]:
    """Train with one method from its latest checkpoint, or from the beginning.

    Returns:
        The strategy, and the state whose models are to be tested.

    Raises:
        FederationError: when fewer sites than the quorum, or not those that the method cannot do
            without, gave a good update in a round.
    """
    strategy = build_strategy(method, run.config.federation)
    done, state = _start(run, strategy)
    for round_ in range(done + 1, run.config.federation.rounds + 1):
        if reason := stops(
            run.config.federation.early_stop, run.folder.events, strategy.name, round_
        ):
            run.log.append(Note(text=reason))
            break
        state, done = _round(run, strategy, state, round_), round_
    if not _was_validated(run, strategy.name, done):
        _validate(run, strategy, state, done)
    return strategy, _final(run, strategy.name, state, done)


def _final(run: Experiment, method: str, state: State, last: int) -> State:
    """Return the state whose models are tested: of the last round, the best one, or the average."""
    federation = run.config.federation
    if federation.final_model == "last":
        return state
    if federation.final_model == "average":
        text = (
            f"{method}: tested with the moving average of its weights over {last} rounds, "
            f"decay {federation.average_decay:g}"
        )
        run.log.append(Note(text=text))
        return averaged(state)
    keep_if_best(run.folder, method, last, state)
    found = best_state(run.folder, method)
    if found is None:
        text = f"{method}: no site validates; the last round's weights are tested"
        run.log.append(Note(text=text))
        return state
    round_, dice, best = found
    text = f"{method}: tested after round {round_} of {last}, mean validation Dice {dice:.4f}"
    run.log.append(Note(text=text))
    return best


def _start(run: Experiment, strategy: Strategy) -> tuple[int, State]:
    kept = latest_checkpoint(run.folder.checkpoints(strategy.name))
    if kept is not None:
        _log_finished(run, strategy.name, kept[0])
        before = checkpoint_file(run.folder.checkpoints(strategy.name), kept[0] - 1)
        if before.exists():  # a crash may have come between checkpoint and choice
            _keep_if_best(run, strategy.name, kept[0] - 1, read_state(before))
        return kept
    model = run.config.model
    network = build_network(run.task, configuration_of(run.plan, model.configuration), model)
    stays = local_names(network, model.batch_norm)
    weights = initial_weights(network, run.config.federation.seed)
    shared = {name: tensor for name, tensor in weights.items() if name not in stays}
    return 0, strategy.init(shared, tuple(run.cohort.training))


def _round(run: Experiment, strategy: Strategy, state: State, round_: int) -> State:
    """Run one round and keep its result on disk before anything else happens."""
    began = time.monotonic()
    task = TrainTask(
        run=run.folder.name,
        plan_hash=run.plan.hash,
        method=strategy.name,
        round=round_,
        proximal_mu=strategy.proximal_mu,
        dynamic=strategy.dynamic,
        withheld_fraction=strategy.withheld_fraction,
        rate_factor=rate_factor(
            run.config.training.schedule, run.folder.events, strategy.name, round_
        ),
    )
    asked = strategy.participants(round_, run.config.federation.rounds, tuple(run.cohort.training))
    tasks = {site: (task, strategy.weights_for(state, site)) for site in asked}
    accepted: list[str] = []
    answers = run.sites.train(tasks, run.config.federation.round_timeout_s)
    before = state
    state = strategy.aggregate(state, _good_updates(run, strategy, state, task, answers, accepted))
    _require_quorum(run, strategy, round_, accepted, len(asked))
    save_checkpoint(run.folder.checkpoints(strategy.name), round_, state)
    _keep_if_best(run, strategy.name, round_ - 1, before)
    seconds = time.monotonic() - began
    run.log.append(
        RoundFinished(method=strategy.name, round=round_, n_sites=len(accepted), seconds=seconds)
    )
    return state


def _keep_if_best(run: Experiment, method: str, round_: int, state: State) -> None:
    """Keep the state after a round whose validation came with the next round's answers."""
    if run.config.federation.final_model == "best":
        keep_if_best(run.folder, method, round_, state)


def _log_finished(run: Experiment, method: str, round_: int) -> None:
    """Log the end of a round whose checkpoint was written just before a crash."""
    events = [event for _, event in read_events(run.folder.events)]
    if any(
        isinstance(e, RoundFinished) and (e.method, e.round) == (method, round_) for e in events
    ):
        return
    trained = {
        event.site: event.seconds
        for event in events
        if isinstance(event, SiteTrained) and (event.method, event.round) == (method, round_)
    }
    seconds = max(trained.values(), default=0.0)
    run.log.append(
        RoundFinished(method=method, round=round_, n_sites=len(trained), seconds=seconds)
    )


def _was_validated(run: Experiment, method: str, last: int) -> bool:
    """Return whether an earlier start of this run measured the last round's weights already."""
    return any(
        isinstance(event, SiteValidated) and (event.method, event.round) == (method, last)
        for _, event in read_events(run.folder.events)
    )


def _good_updates(
    run: Experiment,
    strategy: Strategy,
    state: State,
    task: TrainTask,
    answers: Answers[Update],
    accepted: list[str],
) -> Iterator[SiteUpdate]:
    """Yield the updates that pass every check; report the others. One is in memory at a time."""
    for answer in answers:
        if isinstance(answer, Failure):
            _report_failure(run, task.method, task.round, answer)
            continue
        sent = strategy.weights_for(state, answer.site)
        try:
            declared = run.cohort.most_cases(answer.site)
            weights = check_update(answer, task, sent, declared)
            check_dice(answer.value.validation, run.task.regions)
            count = count_of(answer.value, run.config, run.plan)
        except MessageError as error:
            failure = Failure(answer.site, "message", str(error))
            _report_failure(run, task.method, task.round, failure)
            continue
        _report_update(run, task, answer, update_norm(weights, sent))
        accepted.append(answer.site)
        excess = answer.value.loss - lower_bound(run.config.training.loss)
        yield SiteUpdate(answer.site, count, weights, excess)


def _require_quorum(
    run: Experiment, strategy: Strategy, round_: int, accepted: Sequence[str], n_asked: int
) -> None:
    needed = min(run.config.federation.min_sites, n_asked)
    if len(accepted) < needed:
        raise FederationError(
            f"{strategy.name}, round {round_}: expected good updates of at least {needed} sites, "
            f"found {len(accepted)}; see {run.folder.events} for the reasons"
        )
    if absent := sorted(set(strategy.required) - set(accepted)):
        raise FederationError(
            f"{strategy.name}, round {round_}: expected a good update of {', '.join(absent)}, "
            f"found none; see {run.folder.events} for the reasons"
        )


def _validate(run: Experiment, strategy: Strategy, state: State, last: int) -> None:
    """Measure the last round's weights, as every later round does for the one before it."""
    task = ValidateTask(
        run=run.folder.name, plan_hash=run.plan.hash, method=strategy.name, round=last
    )
    tasks = {site: (task, strategy.weights_for(state, site)) for site in run.cohort.training}
    for answer in run.sites.validate(tasks, run.config.federation.round_timeout_s):
        if isinstance(answer, Failure):
            _report_failure(run, strategy.name, last, answer)
            continue
        try:
            check_dice(answer.value.dice, run.task.regions)
        except MessageError as error:
            _report_failure(run, strategy.name, last, Failure(answer.site, "message", str(error)))
        else:
            _report_validation(run, strategy.name, last, answer.site, answer.value.dice)


def _report_update(run: Experiment, task: TrainTask, reply: Reply[Update], norm: float) -> None:
    update = reply.value
    _report_validation(run, task.method, task.round - 1, reply.site, update.validation)
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
        )
    )


def _report_validation(
    run: Experiment, method: str, round_: int, site: str, dice: Mapping[str, float] | None
) -> None:
    if dice is not None:
        event = SiteValidated(method=method, round=round_, site=site, dice=dict(dice))
        run.log.append(event)


def _report_failure(run: Experiment, method: str, round_: int, failure: Failure) -> None:
    run.log.append(
        SiteFailed(
            method=method,
            round=round_,
            site=failure.site,
            code=failure.code,
            reason=failure.reason,
        )
    )
