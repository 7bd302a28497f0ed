"""The ranking of a run's methods, and how firm it is."""

from nicegui import html

from common.ranks.ranking import Ranking
from server.dashboard.pages.figure import show_svg
from server.dashboard.pages.frame import empty_state, section
from server.dashboard.pages.grid import Column, Row, make_grid
from server.dashboard.pages.live import Refresh
from server.dashboard.pages.words import count_text, number_text
from server.dashboard.views import RunDetail
from server.reporting.ranking_plots import in_order, ranking_plots
from server.reporting.ranking_words import SCHEMES, RankingWords, words_of
from server.reporting.report_data import method_label
from server.reporting.report_words import winner_sentence
from server.reporting.sources import without_sources

COLUMNS = (
    Column("place", "Place", "By mean rank; equal ones share the better place", count_text),
    Column("method", "Method", "Whose final model was tested", width=170),
    Column("mean", "Mean rank", "1 is best in everything (no unit)", number_text(3)),
    Column("score", "Score", "Mean rank divided by the number of methods (no unit)",
           number_text(3)),
)  # fmt: skip
PAIR_COLUMNS = (
    Column("a", "Method A", "First of the pair", width=160),
    Column("b", "Method B", "Second of the pair", width=160),
    Column("p_a", "p, A better", "One-sided p-value (no unit)", number_text(4)),
    Column("p_b", "p, B better", "One-sided p-value (no unit)", number_text(4)),
)
PLOT_WORDS = {
    "significance": "Map of the permutation test: a coloured cell says that the method of the row "
    "is better than that of the column; the p-values stand in the table of pairs.",
    "rank-intervals": "Every method's mean rank with its bootstrap interval.",
}
NOTHING = (
    "No ranking yet: it is made when every held-out site has tested every method's final model. "
    "A run with one method, or without held-out sites, has none."
)


def ranking_view(detail: RunDetail) -> Refresh:
    """Build the view; return what keeps it up to date."""
    box = html.div()
    shown: list[Ranking | None] = []

    def show(found: RunDetail) -> None:
        if shown == [found.files.ranking]:
            return
        shown[:] = [found.files.ranking]
        box.clear()
        with box:
            if found.files.ranking is None:
                empty_state(NOTHING)
            else:
                _build(found.files.ranking)

    show(detail)
    return show


def _build(ranking: Ranking) -> None:
    n_cases = sum((ranking.n_cases or {}).values())
    words = words_of(ranking, n_cases)
    with section("Ranking", f"By {ranking.scheme}: {SCHEMES[ranking.scheme]}."):
        html.p(without_sources(winner_sentence(ranking, n_cases)))
        make_grid("Ranking", COLUMNS, [_row(ranking, method) for method in in_order(ranking)])
    for name, svg in ranking_plots(ranking).items():
        with section(name.replace("-", " ").capitalize()):
            show_svg(svg, PLOT_WORDS[name])
    _pairs(words)


def _pairs(words: RankingWords) -> None:
    if not words.pairs:
        return
    rows = [
        {
            "id": f"{pair.a} {pair.b}",
            "a": method_label(pair.a),
            "b": method_label(pair.b),
            "p_a": pair.p_a_better,
            "p_b": pair.p_b_better,
        }
        for pair in words.pairs
    ]
    with section("Pairs", words.permutation):
        make_grid("Pairs of methods", PAIR_COLUMNS, rows)
        if words.stability:
            html.p(words.stability)


def _row(ranking: Ranking, method: str) -> Row:
    return {
        "id": method,
        "place": ranking.final_rank[method],
        "method": method_label(method),
        "mean": ranking.mean_rank[method],
        "score": ranking.score[method],
    }
