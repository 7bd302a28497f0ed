"""The ranking of a run's methods, from as much as each held-out site releases.

Where a site releases the metrics of its cases, its sums of ranks are made here; where it does not,
it makes them itself; and several may let out only the sum of theirs. Merged, they give the ranking
of all cases, to the last bit.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

from common.codec import read_json, write_json
from common.errors import FederationError, MessageError
from common.evaluation.scores import ScoreTable, read_scores
from common.messages import Ranked, RankTask
from common.ranks.rank_sums import RankSums, merge_all, no_cases, sums_of_tables
from common.ranks.ranking import Ranking, rank_by_sums, rank_methods
from common.ranks.stability import Resampling
from server.events import Note, RanksReleased
from server.experiment import Experiment
from server.held_out_sum import released_together
from server.sites import Failure, Reply
from server.testing import TestedModel, read_tested
from server.validation import check_ranked

N_BOOTSTRAP_SAMPLES = 1000  # customary for percentile intervals

Models: TypeAlias = Mapping[str, tuple[str, ...]]
"""The models by method."""


def rank(run: Experiment, models: Models) -> Ranking | None:
    """Rank the methods on all held-out cases and write ``ranking.json``.

    Args:
        run: whose models were tested on every held-out site.
        models: by method; several where a method has one per site.

    Raises:
        FederationError: when a site cannot rank what it tested.
    """
    if not run.cohort.held_out:
        run.log.append(Note(text="no ranking: there is no held-out site"))
        return None
    masking = [site for site, told in run.cohort.held_out.items() if told.metrics_min_sites]
    others = [site for site in run.cohort.held_out if site not in masking]
    open_sites = [site for site in others if _has_scores(run, models, site)]
    if len(open_sites) == len(run.cohort.held_out):
        ranking = _rank_cases(run, models)
    else:
        closed = [site for site in others if site not in open_sites]
        ranking = _rank_sums(run, models, open_sites, closed, masking)
    write_json(run.folder.ranking, ranking)
    return ranking


def _rank_cases(run: Experiment, models: Models) -> Ranking:
    """Rank by the metrics of cases, which also tell how firm the ranking is."""
    scores = {
        method: {site: read_scores(run.folder.scores(method, site)) for site in run.cohort.held_out}
        for method in models
    }
    resampling = Resampling(n_samples=N_BOOTSTRAP_SAMPLES, seed=run.config.federation.seed)
    ties = run.config.evaluation.ties
    return rank_methods(scores, scheme="brats", ties=ties, resampling=resampling)


def _rank_sums(
    run: Experiment,
    models: Models,
    open_sites: Sequence[str],
    closed: Sequence[str],
    masking: Sequence[str],
) -> Ranking:
    """Rank by sums of ranks: the sites' own, and those of the cases that are known here.

    Args:
        run: the experiment.
        models: by method.
        open_sites: whose cases are known here.
        closed: who release their own sums.
        masking: who release only the sum of theirs.
    """
    pool = no_cases(tuple(models), tuple(run.task.regions), run.config.evaluation.ties)
    made_here = [sums_of_tables(pool, site, _tables(run, models, site)) for site in open_sites]
    released = [read_json(Ranked, path).sums for path in _released(run, models, pool, closed)]
    if masking:
        task = _task(run, models)
        words = {site: _tested(run, models, site).data for site in masking}
        released.append(released_together(run, task, pool, words).ranks)
    return rank_by_sums(merge_all([*made_here, *released]), scheme="brats")


def _released(run: Experiment, models: Models, pool: RankSums, sites: Sequence[str]) -> list[Path]:
    """Return the files with the sites' sums; a site whose file is there is not asked again."""
    paths = {site: run.folder.released(site) for site in sites}
    task = _task(run, models)
    asked = [site for site, path in paths.items() if not _is_current(run, models, site, path)]
    failures = []
    for answer in run.sites.rank(task, asked) if asked else ():
        checked = _checked(run, models, pool, answer)
        if isinstance(checked, Failure):
            failures.append(checked)
        else:
            _keep(run, checked)
    if failures:
        lines = [f"{f.site} could not rank the models: {f.code} ({f.reason})" for f in failures]
        raise FederationError("\n".join(lines))
    return list(paths.values())


def _checked(
    run: Experiment, models: Models, pool: RankSums, answer: Reply[Ranked] | Failure
) -> Reply[Ranked] | Failure:
    if isinstance(answer, Failure):
        return answer
    tested = _tested(run, models, answer.site)
    try:
        check_ranked(answer.value, answer.site, pool, tested.n_cases, tested.data)
    except MessageError as error:
        return Failure(answer.site, "message", str(error))
    return answer


def _task(run: Experiment, models: Models) -> RankTask:
    return RankTask(run=run.folder.name, plan_hash=run.plan.hash, methods=dict(models))


def _tested(run: Experiment, models: Models, site: str) -> TestedModel:
    """Return what a site said with its first test; the others were checked against it."""
    first = next(model for group in models.values() for model in group)
    return read_tested(run, first, site)


def _is_current(run: Experiment, models: Models, site: str, path: Path) -> bool:
    """Return whether sums are there, and not of data that have been replaced since."""
    return path.exists() and read_json(Ranked, path).data == _tested(run, models, site).data


def _keep(run: Experiment, reply: Reply[Ranked]) -> None:
    ranked = reply.value
    run.log.append(
        RanksReleased(
            site=reply.site, n_cases=ranked.sums.n_cases, n_aggregates=len(ranked.aggregates)
        )
    )
    write_json(run.folder.released(reply.site), ranked)


def _has_scores(run: Experiment, models: Models, site: str) -> bool:
    return all(run.folder.scores(method, site).exists() for method in models)


def _tables(run: Experiment, models: Models, site: str) -> dict[str, ScoreTable]:
    return {method: read_scores(run.folder.scores(method, site)) for method in models}
