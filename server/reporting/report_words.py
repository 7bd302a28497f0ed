"""What the report says in words: its sentences, and numbers as people read them."""

import math
from collections.abc import Sequence
from decimal import ROUND_CEILING, Decimal

from common.evaluation.scores import ScoringDefinition
from common.ranks.ranking import Ranking
from server.reporting.floors import FloorComparison, compare_with_floors
from server.reporting.report_data import ReportData, method_label
from server.reporting.sources import sourced, where

SIGNIFICANCE = 0.05  # the customary level; BraTS prints p-values against it
REGION_LABELS = {"WT": "whole tumour", "TC": "tumour core", "ET": "enhancing tumour"}  # BraTS
NO_VALUE = "\N{EN DASH}"


def summary_sentences(data: ReportData) -> tuple[str, str]:
    """Return two sentences: which method won, and whether the floor was beaten."""
    if data.ranking:
        first = winner_sentence(data.ranking, data.n_ranked_cases)
    else:
        first = _no_ranking_sentence(data)
    return first, floor_sentence(compare_with_floors(data))


def winner_sentence(ranking: Ranking, n_cases: int) -> str:
    """Say who won, by how much, and whether the lead over each other method is significant."""
    order = sorted(ranking.methods, key=lambda method: ranking.final_rank[method])
    if len(order) == 1:
        only = method_label(order[0])
        cases = _ranked_cases(n_cases)
        return f"{only} is the only method, tested on {cases} held-out cases: there is no winner."
    best = ranking.final_rank[order[0]]
    winners = [method for method in order if ranking.final_rank[method] == best]
    others = [method for method in order if method not in winners]
    names = listed([method_label(method) for method in winners])
    verb = "won" if len(winners) == 1 else "share the first place"
    mean_rank = sourced(
        f"{ranking.mean_rank[winners[0]]:.2f}", f"ranking.json: mean_rank.{winners[0]}"
    )
    score = f"score {_score(ranking, winners[0])} (mean rank {mean_rank})"
    behind = [f"{method_label(name)} {_score(ranking, name)}" for name in others]
    rest = f", ahead of {listed(behind)}" if behind else ""
    tests = _lead_text(ranking, winners[0], others) if len(winners) == 1 else ""
    n_methods = sourced(len(order), "ranking.json: count of methods")
    pool = f"{n_methods} methods on {_ranked_cases(n_cases)} held-out cases"
    return f"{names} {verb} among {pool} with the ranking {score}{rest}{tests}."


def floor_sentence(comparisons: Sequence[FloorComparison]) -> str:
    """Say, with the numbers, whether the federated models beat the learning-free floor."""
    tested = [comparison for comparison in comparisons if comparison.mean_dice]
    if not tested:
        missing = "no federated model was tested" if comparisons else "no floor was measured"
        return f"The comparison with a learning-free floor is missing: {missing}."
    sentence = "; ".join(_floor_clause(comparison) for comparison in tested)
    return f"{sentence[0].upper()}{sentence[1:]}."


def hd95_text(definition: ScoringDefinition | None) -> str:
    """Return the definition of HD95 that the scores were made with."""
    if definition is None:
        return "as the configuration says under evaluation.hd95 (no definition beside the scores)"
    return {
        "pooled": "95th percentile of the pooled surface distances in both directions",
        "max": "maximum of the two directed 95th percentiles of the surface distances",
    }[definition.hd95]


def decimals(value: float, n_decimals: int) -> str:
    """Return a number for a table, a dash for NaN."""
    return NO_VALUE if math.isnan(value) else f"{value:.{n_decimals}f}"


def upwards(value: float, n_decimals: int) -> str:
    """Return an upper bound rounded so that it stays one."""
    step = Decimal(1).scaleb(-n_decimals)
    return str(Decimal(repr(value)).quantize(step, ROUND_CEILING))


def p_text(p: float) -> str:
    """Return a p-value for a sentence, without a line break inside."""
    text = f"p = {p:.3f}" if p >= 0.001 else "p < 0.001"
    return text.replace(" ", "\N{NO-BREAK SPACE}")


def bytes_text(n_bytes: int) -> str:
    """Return a size in the largest binary unit that it fills."""
    for unit, size in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if n_bytes >= size:
            return f"{n_bytes / size:.1f} {unit}"
    return f"{n_bytes} B"


def duration_text(seconds: float) -> str:
    """Return a duration in the two units that matter."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{seconds:.1f} s"


def _no_ranking_sentence(data: ReportData) -> str:
    if data.finished:
        return "This run has no ranking: no held-out site tested its models."
    rounds = dict.fromkeys(data.methods, 0)
    for event in data.rounds:
        rounds[event.method] = max(rounds.get(event.method, 0), event.round)
    source = "events.jsonl: max of RoundFinished.round"
    done = listed(
        [
            f"{method_label(name)} {sourced(number, where(source, method=name))}"
            for name, number in rounds.items()
        ]
    )
    return f"This run is unfinished and has no ranking yet; finished rounds: {done}."


def _lead_text(ranking: Ranking, winner: str, others: Sequence[str]) -> str:
    p_values = p_better(ranking, winner)
    tested = [(name, p_values[name]) for name in others if name in p_values]
    if not tested:
        return ""
    texts = [
        f"{'significant' if p < SIGNIFICANCE else 'not significant'} against "
        f"{method_label(name)} ({sourced(p_text(p), _p_source(ranking, winner, name))})"
        for name, p in tested
    ]
    return f"; by the permutation test the lead is {listed(texts)}"


def p_better(ranking: Ranking, method: str) -> dict[str, float]:
    """Return the p-value of `method` being better, by the other method's name."""
    forward = {test.b: test.p_a_better for test in ranking.permutation if test.a == method}
    backward = {test.a: test.p_b_better for test in ranking.permutation if test.b == method}
    return forward | backward


def _floor_clause(comparison: FloorComparison) -> str:
    floor, dice, beaten = comparison.floor, comparison.mean_dice, comparison.beaten_by
    names = listed([method_label(name) for name in beaten]) if beaten else "no federated model"
    verb = "beat" if len(beaten) > 1 else "beats"
    verdict = f"only {names} {verb}" if 0 < len(beaten) < len(dice) else f"{names} {verb}"
    if len(beaten) == len(dice) > 1:
        everyone = "both" if len(dice) == 2 else f"all {len(dice)}"
        verdict = f"{everyone} federated models beat"
    region = REGION_LABELS.get(floor.region, floor.region)
    numbers = listed(
        [
            f"{method_label(name)} {sourced(f'{value:.3f}', _dice_source(comparison, name))}"
            for name, value in dice.items()
        ]
    )
    floor_source = "events.jsonl: last of FloorMeasured.mean_dice"
    height = sourced(
        f"{floor.mean_dice:.3f}", where(floor_source, site=floor.site, region=floor.region)
    )
    return (
        f"{verdict} the learning-free floor on {region} at {floor.site}: mean Dice {numbers}, "
        f"floor {height} (the best threshold on {floor.channel} alone)"
    )


def _ranked_cases(n_cases: int) -> str:
    return sourced(n_cases, "ranking.json: sum of n_cases")


def _score(ranking: Ranking, method: str) -> str:
    return sourced(f"{ranking.score[method]:.3f}", f"ranking.json: score.{method}")


def _p_source(ranking: Ranking, better: str, other: str) -> str:
    """Return where the p-value of one method being better than another stands."""
    for test in ranking.permutation:
        if (test.a, test.b) == (better, other):
            return where("ranking.json: permutation.p_a_better", a=better, b=other)
    return where("ranking.json: permutation.p_b_better", a=other, b=better)


def _dice_source(comparison: FloorComparison, method: str) -> str:
    site, region = comparison.floor.site, comparison.floor.region
    if method in comparison.released:
        file = f"released/{site}.json"
        return where(f"{file}: aggregates.dice.mean", method=method, region=region)
    return where(f"scores/{method}/{site}.csv: mean of dice", region=region)


def listed(items: Sequence[str]) -> str:
    """Return items as a sentence lists them."""
    return items[0] if len(items) == 1 else ", ".join(items[:-1]) + " and " + items[-1]
