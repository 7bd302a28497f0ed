"""After training: test the final models on held-out sites, and measure the floor.

A site that releases the metrics of its cases sends them with each test. Below that level it keeps
them, and `server.ranking` asks for sums of ranks after the last test.
"""

from collections.abc import Sequence

from common.axes import Weights
from common.codec import read_json, record, write_json
from common.errors import FederationError, MessageError
from common.evaluation.mean_scores import mean_table
from common.evaluation.metrics import BRATS_RULES, RegionScore
from common.evaluation.postprocess import Chain
from common.evaluation.scores import ScoreTable, definition_of, read_scores, write_scores
from common.files import write_atomically
from common.messages import FloorTask, Tested, TestTask
from common.secure_sum import Key
from server.event_log import read_events
from server.events import FloorMeasured, HeldOutScored, Note, PictureReleased
from server.experiment import Experiment
from server.run_folder import save_model
from server.sites import Failure, Reply
from server.strategies import State, Strategy
from server.validation import check_tested, png_of


@record
class TestedModel:
    """That a held-out site tested a model; it is not asked to do so again."""

    __test__ = False  # not a test class for pytest

    metrics: str
    n_cases: int | None = None
    """None where the site's cases are counted only in a sum."""
    data: Key
    """The site's word for its images and references."""


def score_method(
    run: Experiment, strategy: Strategy, state: State, steps: Chain = ()
) -> tuple[str, ...]:
    """Test a method's final model, or models, on every held-out site and keep what it releases.

    A method with one model per site scores the mean over its models of every case's metric: what
    a hospital can expect of its own model; each model's scores are kept beside it.

    Args:
        run: the experiment.
        strategy: the method.
        state: after its last round.
        steps: what is done to the labels before they are scored.

    Returns:
        The names of the models, as the held-out sites know them.
    """
    models = strategy.models(state)
    if "" in models:
        save_model(run.folder.model(strategy.name), models[""])
    names = {owner: f"{strategy.name}@{owner}" if owner else strategy.name for owner in models}
    for owner, weights in models.items():
        pictures = not owner and run.config.evaluation.pictures
        task = TestTask(
            run=run.folder.name,
            plan_hash=run.plan.hash,
            method=names[owner],
            pictures=pictures,
            postprocessing=steps,
        )
        _test(run, task, weights)
    if "" not in models:
        for site in run.cohort.held_out:
            _keep_mean(run, strategy.name, tuple(names.values()), site)
    return tuple(names.values())


def read_tested(run: Experiment, model: str, site: str) -> TestedModel:
    """Return what is known of a test that was done."""
    return read_json(TestedModel, run.folder.tested(model, site))


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


def _test(run: Experiment, task: TestTask, weights: Weights) -> None:
    """Ask the held-out sites that have not tested this model yet; keep every good answer."""
    model = task.method
    asked = [site for site in run.cohort.held_out if not run.folder.tested(model, site).exists()]
    tasks = dict.fromkeys(asked, (task, weights))
    failures = []
    for answer in run.sites.test(tasks, run.config.federation.round_timeout_s) if tasks else ():
        checked = _checked(run, answer)
        if isinstance(checked, Failure):
            failures.append(checked)
        else:
            _keep(run, model, checked)
    if failures:
        lines = [f"{f.site} could not test {model}: {f.code} ({f.reason})" for f in failures]
        raise FederationError("\n".join(lines))


def _checked(run: Experiment, answer: Reply[Tested] | Failure) -> Reply[Tested] | Failure:
    """Turn an answer that does not fit into a failure, before any of it is used."""
    if isinstance(answer, Failure):
        return answer
    try:
        declared = run.cohort.held_out[answer.site].n_cases
        check_tested(answer.value, tuple(run.task.regions), declared)
        _check_same_data(run, answer)
    except MessageError as error:
        return Failure(answer.site, "message", str(error))
    return answer


def _check_same_data(run: Experiment, reply: Reply[Tested]) -> None:
    """Demand the images and references that the models before were tested on."""
    for path in sorted(run.folder.path.glob(f"scores/*/{reply.site}.tested.json")):
        if read_json(TestedModel, path).data != reply.value.data:
            raise MessageError(
                f"images or references changed since {path.parent.name} was tested; scores of "
                f"different data are not compared, delete {run.folder.path / 'scores'} to test "
                "all models again"
            )


def _keep(run: Experiment, model: str, reply: Reply[Tested]) -> None:
    """Log first, then write; last the record after which the site is not asked again."""
    tested, site = reply.value, reply.site
    _keep_pictures(run, model, reply)
    event = HeldOutScored(
        method=model, site=site, n_cases=tested.n_cases, note=tested.note, metrics=tested.metrics
    )
    run.log.append(event)
    if tested.metrics == "cases":
        _write(run, model, site, _table(tested))
    told = TestedModel(metrics=tested.metrics, n_cases=tested.n_cases, data=tested.data)
    write_json(run.folder.tested(model, site), told)


def _keep_mean(run: Experiment, method: str, models: Sequence[str], site: str) -> None:
    """Keep the mean over a method's models, unless only the site itself can take it."""
    files = [run.folder.scores(model, site) for model in models]
    if run.folder.scores(method, site).exists() or not all(path.exists() for path in files):
        return
    table = mean_table([read_scores(path) for path in files])
    note = f"mean of {len(models)} models"
    run.log.append(HeldOutScored(method=method, site=site, n_cases=len(table), note=note))
    _write(run, method, site, table)


def _write(run: Experiment, model: str, site: str, table: ScoreTable) -> None:
    definition = definition_of(run.task.name, run.config.evaluation.hd95, BRATS_RULES)
    write_scores(run.folder.scores(model, site), table, definition)


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
