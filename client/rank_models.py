"""A held-out site ranks the models that it tested and lets out sums of ranks.

Ranks need all methods at one case, so the request comes after the last test; which numbers of
`client.scoring.kept_scores` leave is decided here and nowhere else. Under the policy
``secure-sum`` they leave masked only, for the sum of several held-out sites.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from client.agreement import split
from client.masking import SumPart, masked_part
from client.permission import permitted_agreement
from client.scoring.kept_scores import KeptScores, kept_scores, word_of_data
from client.site import Agreement, SiteConfig, site_log
from common.axes import Weights
from common.codec import content_hash
from common.errors import DataError, PolicyError
from common.evaluation.aggregates import Aggregate, aggregates_of
from common.evaluation.mean_scores import mean_table
from common.evaluation.scores import ScoreTable
from common.messages import Ranked, RankTask
from common.ranks.held_out_sums import held_out_sums, to_vector
from common.ranks.rank_sums import no_cases, sums_of_tables
from common.secure_sum import Roster


def rank_models(site: SiteConfig, task: RankTask) -> Ranked | tuple[Ranked, Weights]:
    """Rank the methods on this site's cases; release as much as its policy allows.

    Returns:
        The answer; for a roster it holds no sum, and the masked ones lie beside it.

    Raises:
        PolicyError: when the policy releases nothing, or nothing in this way, or a model was not
            tested here.
        DataError: when images or references changed since one of them was tested.
    """
    _require_way(site, task)
    agreement = permitted_agreement(site, task.run, task.plan_hash)
    models = [model for group in task.methods.values() for model in group]
    kept = kept_scores(site, task.run, models)
    word = _one_word(site, agreement, kept)
    tables = {
        method: mean_table([kept[model].scores for model in group])
        for method, group in task.methods.items()
    }
    regions, ties = agreement.terms.task.regions, agreement.terms.config.evaluation.ties
    pool = no_cases(tuple(tables), tuple(regions), ties)
    n_empty_references = kept[models[0]].n_empty_references
    if task.roster is not None:
        own = to_vector(held_out_sums(pool, site.name, tables, n_empty_references))
        part = SumPart("metrics", own, data=word, question=_question(agreement, task, kept))
        return Ranked(data=word, sums=pool), _masked(site, agreement, task, task.roster, part)
    sums = sums_of_tables(pool, site.name, tables)
    aggregates = _aggregates(site, tables, n_empty_references)
    site_log(site).info(
        "run %s: released the rank sums of %d cases (%s) and %d aggregates",
        *(task.run, sums.n_cases, ", ".join(tables), len(aggregates)),
    )
    return Ranked(data=word, sums=sums, aggregates=aggregates)


def may_aggregate(site: SiteConfig, n_cases: int) -> bool:
    """Return whether means over this many cases may leave this site."""
    level, fewest = site.policy.metrics, site.policy.min_cases_per_aggregate
    return level == "cases" or (level == "aggregates" and n_cases >= fewest)


def _require_way(site: SiteConfig, task: RankTask) -> None:
    """Demand a question that asks for what the policy lets out, masked or not."""
    level = site.policy.metrics
    if level == "none":
        raise PolicyError("policy.metrics: this site releases no metrics and no ranks", "metrics")
    if level == "secure-sum" and task.roster is None:
        raise PolicyError(
            "policy.metrics: 'secure-sum' lets out masked sums only, found no roster", "privacy"
        )
    if level != "secure-sum" and task.roster is not None:
        raise PolicyError(f"policy.metrics: {level!r} masks nothing", "privacy")


def _question(agreement: Agreement, task: RankTask, kept: Mapping[str, KeptScores]) -> str:
    """Return the hash of all that the sums depend on besides this site's cases."""
    tested = {model: scores.tested for model, scores in kept.items()}
    terms = agreement.terms
    return content_hash([terms.task, terms.config, replace(task, roster=None), tested])


def _masked(
    site: SiteConfig, agreement: Agreement, task: RankTask, roster: Roster, part: SumPart
) -> Weights:
    """Mask the sums for the other held-out sites of the roster, and for nobody else."""
    held_out = agreement.terms.config.federation.held_out
    if strangers := sorted(set(roster.sites) - set(held_out)):
        raise PolicyError(
            f"secure sum: expected held-out sites of the run ({', '.join(held_out)}), found "
            f"{', '.join(strangers)}",
            "privacy",
        )
    return masked_part(site, task.run, roster, part)


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
