"""What a report says about how firm a ranking is."""

from collections import Counter
from dataclasses import dataclass

from common.ranks.ranking import Ranking
from server.reporting.report_data import method_label
from server.reporting.report_words import SIGNIFICANCE, listed

SCHEMES = {
    "brats": "all cases count the same (BraTS)",
    "fets": "all institutions count the same (FeTS 2022, task 2)",
    "fets-task1": "the rank of the convergence score counts three times (FeTS 2022, task 1)",
}


@dataclass(frozen=True)
class PairRow:
    """One line of the table of pairwise tests."""

    a: str
    b: str
    p_a_better: float
    p_b_better: float
    wilcoxon_a: str
    """In how many of how many Wilcoxon tests a is significantly better; empty where not tested."""
    wilcoxon_b: str


@dataclass(frozen=True)
class RankingWords:
    """What a page says beside the numbers of a ranking."""

    pairs: tuple[PairRow, ...]
    permutation: str
    stability: str
    """Empty where the ranking does not tell."""


def words_of(ranking: Ranking, n_cases: int) -> RankingWords:
    """Return what a page says about a ranking of this many cases."""
    return RankingWords(
        pair_rows(ranking), permutation_sentences(ranking, n_cases), stability_sentences(ranking)
    )


def pair_rows(ranking: Ranking) -> tuple[PairRow, ...]:
    """Return the pairwise tests; empty for one method."""
    tested: Counter[tuple[str, str]] = Counter()
    passed: Counter[tuple[str, str]] = Counter()
    for test in ranking.wilcoxon or ():
        tested[test.a, test.b] += 1
        passed[test.a, test.b] += test.p_holm <= SIGNIFICANCE

    def won(a: str, b: str) -> str:
        return f"{passed[a, b]} of {tested[a, b]}" if tested[a, b] else ""

    return tuple(
        PairRow(row.a, row.b, row.p_a_better, row.p_b_better, won(row.a, row.b), won(row.b, row.a))
        for row in ranking.permutation
    )


def permutation_sentences(ranking: Ranking, n_cases: int) -> str:
    """Say what the p-values of the permutation test mean and where they end."""
    lowest = 0.5**n_cases
    how = "It is exact"
    if ranking.monte_carlo:
        draws = ranking.monte_carlo.n_draws
        lowest = max(lowest, 1 / (1 + draws))
        how = f"It is estimated from {draws} random exchanges (seed {ranking.monte_carlo.seed})"
    return (
        "A p-value is the probability of a rank difference at least as much in favour of that "
        "method if the two methods’ names were exchanged at random, independently in every case. "  # noqa: RUF001 - as printed
        f"{how}; with {n_cases} cases it cannot fall below {lowest:.3g}. The values are not "
        "corrected for the number of comparisons."
    )


def stability_sentences(ranking: Ranking) -> str:
    """Say whether the order hangs on one of the methods; empty where that is not known."""
    if not ranking.stability:
        return ""
    clauses = [
        f"without {method_label(one.without)}, the order of "
        + listed([f"{method_label(a)} and {method_label(b)}" for a, b in one.changed])
        + " is another"
        for one in ranking.stability
        if one.changed
    ]
    if not clauses:
        return "Leaving any one method out of the pool does not change the order of the others."
    return f"The order hangs on the pool: {'; '.join(clauses)}."
