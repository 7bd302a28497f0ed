"""The rounds of one method: send weights, accept good updates, aggregate, checkpoint."""

import time

from common.batchnorm import local_names
from common.errors import MessageError
from common.federation import MethodName
from common.messages import TrainTask, ValidateTask
from common.network import build_network
from common.planning.plan import configuration_of
from common.secure_sum import MaskKey
from server.best_round import best_state, keep_if_best
from server.early_stop import stops
from server.event_log import read_events
from server.events import Note, RoundFinished, SiteMasked, SiteTrained, SiteValidated
from server.experiment import Experiment
from server.participation import (
    Outcome,
    exclude_failing,
    left_in_run,
    require_quorum,
    sites_of_round,
)
from server.plateau import rate_factor
from server.run_folder import (
    FEWEST_KEPT,
    checkpoint_file,
    latest_checkpoint,
    read_state,
    save_checkpoint,
)
from server.secure.masked_sum_file import forget_sums
from server.secure.summed_update import summed_update
from server.site_privacy import aggregate
from server.sites import Failure
from server.start import first_weights
from server.strategies import State, Strategy, build_strategy
from server.strategies.moving_average import averaged
from server.updates import good_updates, report_failure, report_validation
from server.validation import check_dice


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
    keys: dict[str, MaskKey] = {}
    for round_ in range(done + 1, run.config.federation.rounds + 1):
        if reason := stops(
            run.config.federation.early_stop, run.folder.events, strategy.name, round_
        ):
            run.log.append(Note(text=reason))
            break
        state, done = _round(run, strategy, state, round_, keys), round_
    is_secure = run.config.federation.secure_aggregation is not None
    if not is_secure and not _was_validated(run, strategy.name, done):
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
        if kept[0] > 0:
            _log_finished(run, strategy.name, kept[0])
        before = checkpoint_file(run.folder.checkpoints(strategy.name), kept[0] - 1)
        if before.exists():  # a crash may have come between checkpoint and choice
            _keep_if_best(run, strategy.name, kept[0] - 1, read_state(before))
        return kept
    model = run.config.model
    network = build_network(run.task, configuration_of(run.plan, model.configuration), model)
    stays = local_names(network, model.batch_norm)
    weights = first_weights(run, network)
    shared = {name: tensor for name, tensor in weights.items() if name not in stays}
    return 0, _saved(run, strategy.name, 0, strategy.init(shared, tuple(run.cohort.training)))


def _saved(run: Experiment, method: str, round_: int, state: State) -> State:
    """Write the state after a round; return it as it lies on disk, so that memory is free."""
    folder = run.folder.checkpoints(method)
    save_checkpoint(folder, round_, state, n_kept=FEWEST_KEPT + run.config.federation.late_rounds)
    return read_state(checkpoint_file(folder, round_))


def _asked(run: Experiment, strategy: Strategy, round_: int) -> tuple[str, ...]:
    """Return the sites that are asked to train in a round."""
    federation, events = run.config.federation, run.folder.events
    exclude_failing(federation.exclude_after, run.cohort, run.log, events)
    busy = run.sites.training()
    return sites_of_round(strategy, federation, run.cohort, events, busy, round_)


def _round(
    run: Experiment, strategy: Strategy, state: State, round_: int, keys: dict[str, MaskKey]
) -> State:
    """Run one round and keep its result on disk before anything else happens."""
    began, federation = time.monotonic(), run.config.federation
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
    asked = _asked(run, strategy, round_)
    outcome = Outcome()
    before = state
    if federation.secure_aggregation is None:
        updates = good_updates(run, strategy, state, task, asked, outcome)
        state = aggregate(run, strategy, state, updates, len(asked), round_)
        where = f"{strategy.name}, round {round_} (reasons in {run.folder.events})"
        require_quorum(strategy, federation, run.cohort, asked, outcome, round_, where)
    else:
        update = summed_update(run, strategy, state, task, asked, outcome, keys)
        state = strategy.aggregate(state, [] if update is None else [update])
    state = _saved(run, strategy.name, round_, state)
    forget_sums(run.folder.checkpoints(strategy.name))
    _keep_if_best(run, strategy.name, round_ - 1, before)
    seconds = time.monotonic() - began
    run.log.append(
        RoundFinished(
            method=strategy.name, round=round_, n_sites=len(outcome.accepted), seconds=seconds
        )
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
        if isinstance(event, SiteTrained | SiteMasked)
        and (event.method, event.round) == (method, round_)
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


def _validate(run: Experiment, strategy: Strategy, state: State, last: int) -> None:
    """Measure the last round's weights, as every later round does for the one before it."""
    task = ValidateTask(
        run=run.folder.name, plan_hash=run.plan.hash, method=strategy.name, round=last
    )
    asked = left_in_run(run.cohort, run.folder.events)
    tasks = {site: (task, strategy.weights_for(state, site)) for site in asked}
    for answer in run.sites.validate(tasks, run.config.federation.round_timeout_s):
        if isinstance(answer, Failure):
            report_failure(run, strategy.name, last, answer)
            continue
        try:
            check_dice(answer.value.dice, run.task.regions)
        except MessageError as error:
            report_failure(run, strategy.name, last, Failure(answer.site, "message", str(error)))
        else:
            report_validation(run, strategy.name, last, answer.site, answer.value.dice)
