"""After training: test the final models on held-out sites, measure the floor, rank the methods."""

from collections.abc import Sequence

import numpy as np

from common.axes import Weights
from common.codec import write_json
from common.errors import FederationError, MessageError
from common.files import write_atomically
from common.messages import FloorTask, Tested, TestTask
from common.metrics import BRATS_RULES, RegionScore
from common.ranking import Ranking, rank_methods
from common.scores import ScoreTable, definition_of, read_scores, write_scores
from server.events import FloorMeasured, HeldOutScored, Note, PictureReleased, read_events
from server.rounds import Experiment
from server.run_folder import save_model
from server.sites import Failure, Reply
from server.strategies import State, Strategy
from server.validation import check_tested, png_of


def score_method(run: Experiment, strategy: Strategy, state: State) -> None:
    """Test a method's final model, or models, on every held-out site and keep the scores.

    A method with one model per site scores the mean over its models of every case's metric: what
    a hospital can expect of its own model; each model's scores are kept beside it.
    """
    models = strategy.models(state)
    if "" in models:
        save_model(run.folder.model(strategy.name), models[""])
    if all(run.folder.scores(strategy.name, site).exists() for site in run.cohort.held_out):
        return
    tables: dict[str, list[ScoreTable]] = {site: [] for site in run.cohort.held_out}
    for owner, weights in models.items():
        label = f"{strategy.name}@{owner}" if owner else strategy.name
        for reply in _test(run, label, weights, pictures=not owner):
            tables[reply.site].append(_table(reply.value))
            _keep_pictures(run, label, reply)
            _keep(run, label, reply.site, _table(reply.value), reply.value.note)
    if "" not in models:
        for site, of_models in tables.items():
            _keep(run, strategy.name, site, mean_table(of_models), f"mean of {len(models)} models")


def measure_floor(run: Experiment) -> None:
    """Measure the task's learning-free baseline on the held-out sites, if it has one."""
    floor = run.task.floor
    if floor is None or not run.cohort.held_out:
        return
    known = {e.site for _, e in read_events(run.folder.events) if isinstance(e, FloorMeasured)}
    asked = FloorTask(run=run.folder.name, plan_hash=run.plan.hash)
    for answer in run.sites.floor(asked, sorted(set(run.cohort.held_out) - known)):
        if isinstance(answer, Failure):
            run.log.append(Note(text=f"{answer.site}: no learning-free floor: {answer.code}"))
            continue
        run.log.append(
            FloorMeasured(
                site=answer.site,
                region=floor.region,
                channel=floor.channel,
                mean_dice=answer.value.mean_dice,
                threshold=answer.value.threshold,
            )
        )


def rank(run: Experiment, methods: Sequence[str]) -> Ranking | None:
    """Rank the methods on all held-out cases and write ``ranking.json``."""
    if not run.cohort.held_out:
        run.log.append(Note(text="no ranking: there is no held-out site"))
        return None
    scores = {
        method: {site: read_scores(run.folder.scores(method, site)) for site in run.cohort.held_out}
        for method in methods
    }
    ranking = rank_methods(scores, scheme="brats", ties=run.config.evaluation.ties)
    write_json(run.folder.ranking, ranking)
    return ranking


def mean_table(tables: Sequence[ScoreTable]) -> ScoreTable:
    """Return the mean over models of every metric of every case and region."""
    first = tables[0]
    return {
        case: {region: _mean([table[case][region] for table in tables]) for region in first[case]}
        for case in first
    }


def _mean(scores: Sequence[RegionScore]) -> RegionScore:
    fields = ("dice", "hd95", "sensitivity", "specificity")
    return RegionScore(
        **{name: float(np.mean([getattr(score, name) for score in scores])) for name in fields}
    )


def _test(run: Experiment, label: str, weights: Weights, *, pictures: bool) -> list[Reply[Tested]]:
    task = TestTask(
        run=run.folder.name,
        plan_hash=run.plan.hash,
        method=label,
        pictures=pictures and run.config.evaluation.pictures,
    )
    tasks = dict.fromkeys(run.cohort.held_out, (task, weights))
    answers = [
        _checked(run, answer)
        for answer in run.sites.test(tasks, run.config.federation.round_timeout_s)
    ]
    failures = [answer for answer in answers if isinstance(answer, Failure)]
    if failures:
        lines = [f"{f.site} could not test {label}: {f.code} ({f.reason})" for f in failures]
        raise FederationError("\n".join(lines))
    return [answer for answer in answers if isinstance(answer, Reply)]


def _checked(run: Experiment, answer: Reply[Tested] | Failure) -> Reply[Tested] | Failure:
    """Turn an answer that does not fit into a failure, before any of it is used."""
    if isinstance(answer, Failure):
        return answer
    declared = run.cohort.held_out[answer.site].n_cases
    if declared is None:  # never told: then at least numbered without a gap
        declared = max(1, len({score.case for score in answer.value.scores}))
    try:
        check_tested(answer.value, tuple(run.task.regions), declared)
    except MessageError as error:
        return Failure(answer.site, "message", str(error))
    return answer


def _table(tested: Tested) -> ScoreTable:
    """Return the scores by numbered case; the site never sent a name."""
    table: dict[str, dict[str, RegionScore]] = {}
    for score in tested.scores:
        table.setdefault(f"case-{score.case:04d}", {})[score.region] = RegionScore(
            dice=score.dice,
            hd95=score.hd95,
            sensitivity=score.sensitivity,
            specificity=score.specificity,
        )
    return table


def _keep(run: Experiment, label: str, site: str, table: ScoreTable, note: str) -> None:
    """Log first, then write: scores that lie on the disk are never tested again."""
    run.log.append(HeldOutScored(method=label, site=site, n_cases=len(table), note=note))
    definition = definition_of(run.task.name, run.config.evaluation.hd95, BRATS_RULES)
    write_scores(run.folder.scores(label, site), table, definition)


def _keep_pictures(run: Experiment, label: str, reply: Reply[Tested]) -> None:
    for picture in reply.value.pictures:
        path = run.folder.picture(label, reply.site, picture.kind)
        write_atomically(path, png_of(picture))
        run.log.append(
            PictureReleased(
                method=label,
                site=reply.site,
                kind=picture.kind,
                dice=picture.dice,
                file=str(path.relative_to(run.folder.path)),
            )
        )
