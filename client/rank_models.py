"""A held-out site ranks the models that it tested and lets out sums of ranks.

Ranks need all methods at one case, so the request comes after the last test; which numbers of
`client.scoring.kept_scores` leave is decided here and nowhere else.
"""

from collections.abc import Mapping, Sequence

from client.agreement import split
from client.permission import permitted_agreement
from client.scoring.kept_scores import KeptScores, kept_scores, word_of_data
from client.site import Agreement, SiteConfig, site_log
from common.errors import DataError, PolicyError
from common.evaluation.aggregates import Aggregate, aggregates_of
from common.evaluation.mean_scores import mean_table
from common.evaluation.scores import ScoreTable
from common.messages import Ranked, RankTask
from common.ranks.rank_sums import no_cases, sums_of_tables


def rank_models(site: SiteConfig, task: RankTask) -> Ranked:
    """Rank the methods on this site's cases; release as much as its policy allows.

    Raises:
        PolicyError: when the policy releases nothing, or a model was not tested here.
        DataError: when images or references changed since one of them was tested.
    """
    if site.policy.metrics == "none":
        raise PolicyError("policy.metrics: this site releases no metrics and no ranks", "metrics")
    agreement = permitted_agreement(site, task.run, task.plan_hash)
    models = [model for group in task.methods.values() for model in group]
    kept = kept_scores(site, task.run, models)
    word = _one_word(site, agreement, kept)
    tables = {
        method: mean_table([kept[model].scores for model in group])
        for method, group in task.methods.items()
    }
    regions, ties = agreement.terms.task.regions, agreement.terms.config.evaluation.ties
    sums = sums_of_tables(no_cases(tuple(tables), tuple(regions), ties), site.name, tables)
    aggregates = _aggregates(site, tables, kept[models[0]].n_empty_references)
    site_log(site).info(
        "run %s: released the rank sums of %d cases (%s) and %d aggregates",
        *(task.run, sums.n_cases, ", ".join(tables), len(aggregates)),
    )
    return Ranked(data=word, sums=sums, aggregates=aggregates)


def may_aggregate(site: SiteConfig, n_cases: int) -> bool:
    """Return whether means over this many cases may leave this site."""
    level, fewest = site.policy.metrics, site.policy.min_cases_per_aggregate
    return level == "cases" or (level == "aggregates" and n_cases >= fewest)


def _one_word(site: SiteConfig, agreement: Agreement, kept: Mapping[str, KeptScores]) -> str:
    """Return the word of the data, which has to be the one that every model was tested under."""
    cases, _ = split(site, agreement)
    word = word_of_data(site, agreement.terms.run, cases)
    changed = [model for model, scores in kept.items() if scores.data != word]
    if changed:
        raise DataError(f"images or references changed since {', '.join(changed)} were tested")
    return word


def _aggregates(
    site: SiteConfig, tables: Mapping[str, ScoreTable], n_empty_references: Mapping[str, int]
) -> tuple[Aggregate, ...]:
    if not may_aggregate(site, len(next(iter(tables.values())))):
        return ()
    every: Sequence[tuple[Aggregate, ...]] = [
        aggregates_of(method, table, n_empty_references) for method, table in tables.items()
    ]
    return tuple(aggregate for of_method in every for aggregate in of_method)
