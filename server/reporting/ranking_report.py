"""The page of a ranking alone, in one file, for whoever organises a challenge."""

from pathlib import Path

from markupsafe import Markup

from common.figures import for_page
from common.files import write_atomically
from common.ranks.ranking import Ranking
from server.reporting.pages import environment
from server.reporting.ranking_plots import ranking_plots
from server.reporting.ranking_words import SCHEMES, words_of
from server.reporting.report_words import winner_sentence
from server.reporting.sources import without_sources


def write_ranking_page(path: Path, ranking: Ranking, source: str) -> None:
    """Write the page; same ranking, same bytes.

    Args:
        path: of the page.
        ranking: what it shows; parts that it lacks are named as such.
        source: what the ranking was made from, in words.
    """
    institutions = ranking.n_cases or {}
    n_cases = sum(institutions.values())
    plots = {name: Markup(for_page(svg)) for name, svg in ranking_plots(ranking).items()}  # noqa: S704 - our SVG
    page = environment().get_template("ranking.html.j2")
    html = page.render(
        ranking=ranking,
        n_cases=n_cases,
        n_institutions=len(institutions),
        source=source,
        summary=winner_sentence(ranking, n_cases),
        scheme=SCHEMES[ranking.scheme],
        plots=plots,
        words=words_of(ranking, n_cases),
    )
    write_atomically(path, without_sources(html).encode())
