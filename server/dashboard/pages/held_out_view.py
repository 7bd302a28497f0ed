"""Held-out results: every case of every method, and what sites released in place of cases."""

from collections.abc import Iterator, Sequence

from nicegui import html

from common.evaluation.aggregates import Aggregate
from server.dashboard.pages.figure import show_svg
from server.dashboard.pages.frame import empty_state, section
from server.dashboard.pages.grid import Column, Row, make_grid
from server.dashboard.pages.live import Refresh
from server.dashboard.pages.words import count_text, number_text
from server.dashboard.views import RunDetail
from server.reporting.held_out_data import RegionSummary, summarise
from server.reporting.plots import Metric, held_out_svg
from server.reporting.report_data import method_label

DICE, MM = number_text(3), number_text(1)
COLUMNS = (
    Column("region", "Region", "What is segmented", width=90),
    Column("method", "Method", "Whose final model was tested", width=150),
    Column("cases", "Cases", "Of the held-out site", count_text, width=80),
    Column("dice", "Dice, mean", "Mean over cases (no unit, 1 is best)", DICE, width=95),
    Column("dice_median", "Dice, median", "Median over cases (no unit)", DICE, width=95),
    Column("dice_q", "Dice, quartiles", "First and third quartile (no unit)", width=125),
    Column("hd95", "HD95, mean (mm)", "Mean over cases; a missed region counts as stated by BraTS",
           MM, width=100),
    Column("hd95_median", "HD95, median (mm)", "Median over cases", MM, width=105),
    Column("hd95_q", "HD95, quartiles (mm)", "First and third quartile", width=125),
    Column("missed", "Missed", "Cases with an empty prediction although there is something",
           count_text, width=85),
    Column("false", "False alarms", "Cases with a prediction although there is nothing", count_text,
           width=85),
)  # fmt: skip
METRICS: dict[Metric, str] = {"dice": "Dice (fraction, 1 is best)", "hd95": "HD95 in mm"}
NOTHING = (
    "No held-out results yet: held-out sites test the final model of each method after its last "
    "round. A run without held-out sites has none."
)
RANKS_ONLY = (
    "This site's policy releases ranks only: neither metrics of cases nor their means leave it. "
    "What it sent counts in the ranking."
)
ONLY_A_SUM = (
    "Nothing of this site alone is known here, not even its number of cases: its policy releases "
    "sums over several sites only."
)
SUM_COLUMNS = (
    Column("region", "Region", "What is segmented", width=90),
    Column("method", "Method", "Whose final model was tested", width=150),
    Column("dice", "Dice, mean", "Mean over all cases (no unit, 1 is best)", DICE, width=95),
    Column("dice_sd", "Dice, SD", "Standard deviation (no unit)", DICE, width=95),
    Column("hd95", "HD95, mean (mm)", "A missed region counts as stated by BraTS", MM, width=100),
    Column("hd95_sd", "HD95, SD (mm)", "Standard deviation", MM, width=100),
    Column("empty", "Empty references", "Cases without this region", count_text, width=110),
)


def held_out_view(detail: RunDetail) -> Refresh:
    """Build the view; return what keeps it up to date."""
    box = html.div()
    shown: list[RunDetail] = []

    def show(found: RunDetail) -> None:
        if shown and not _changed(shown[0], found):
            return
        shown[:] = [found]
        box.clear()
        with box:
            _build(found)

    show(detail)
    return show


def _changed(before: RunDetail, found: RunDetail) -> bool:
    return (
        found.held_out != before.held_out
        or found.together != before.together
        or found.floors != before.floors
        or found.personalised != before.personalised
        or found.postprocessing != before.postprocessing
        or found.files.aggregates != before.files.aggregates
        or not found.files.scores.equals(before.files.scores)
    )


def _build(detail: RunDetail) -> None:
    scored = set(detail.files.scores["site"]) | {event.site for event in detail.held_out}
    if not scored:
        empty_state(NOTHING)
    for site in sorted(scored):
        with section(f"Held-out site {site}"):
            _site(detail, site)
    _together(detail)
    _personalised(detail)
    _postprocessing(detail)


def _site(detail: RunDetail, site: str) -> None:
    for note in dict.fromkeys(e.note for e in detail.held_out if e.site == site and e.note):
        html.p(note).classes("says")
    scores = detail.files.scores[detail.files.scores["site"] == site]
    methods = detail.summary.methods
    if len(scores):
        known = [name for name in methods if name in set(scores["method"])]
        floors = [floor for floor in detail.floors if floor.site == site]
        with html.div().classes("pair"):
            for metric, words in METRICS.items():
                with html.div():
                    html.h3(words)
                    told = f"Every case and a box per method and region: {words}; see the table."
                    shown = floors if metric == "dice" else ()
                    show_svg(held_out_svg(scores, metric, known, shown), told)
        others = [name for name in dict.fromkeys(scores["method"]) if name not in methods]
        rows = [_summary_row(one) for one in summarise(scores, [*known, *others])]
    else:
        rows = list(_aggregate_rows(detail.files.aggregates.get(site, ())))
    if not rows:
        is_sum = any(e.metrics == "secure-sum" for e in detail.held_out if e.site == site)
        empty_state(ONLY_A_SUM if is_sum else RANKS_ONLY)
        return
    make_grid(f"Results of {site}", COLUMNS, rows)


def _summary_row(one: RegionSummary) -> Row:
    return {
        "id": f"{one.region} {one.method}",
        "region": one.region,
        "method": method_label(one.method),
        "cases": one.n_cases,
        "dice": one.dice.mean,
        "dice_median": one.dice.median,
        "dice_q": f"{DICE(one.dice.q1)} to {DICE(one.dice.q3)}",
        "hd95": one.hd95.mean,
        "hd95_median": one.hd95.median,
        "hd95_q": f"{MM(one.hd95.q1)} to {MM(one.hd95.q3)}",
        "missed": one.n_missed,
        "false": one.n_false_alarms,
    }


def _aggregate_rows(aggregates: Sequence[Aggregate]) -> Iterator[Row]:
    for one in aggregates:
        yield {
            "id": f"{one.region} {one.method}",
            "region": one.region,
            "method": method_label(one.method),
            "cases": one.n_cases,
            "dice": one.dice.mean,
            "hd95": one.hd95.mean,
        }


def _together(detail: RunDetail) -> None:
    for told in detail.together:
        rows: list[Row] = [
            {
                "id": f"{one.region} {one.method}",
                "region": one.region,
                "method": method_label(one.method),
                "dice": one.dice.mean,
                "dice_sd": one.dice.sd,
                "hd95": one.hd95.mean,
                "hd95_sd": one.hd95.sd,
                "empty": one.n_empty_references,
            }
            for one in told.results
        ]
        title = f"{len(told.sites)} sites together, {told.n_cases} cases"
        with section(title, f"{', '.join(told.sites)}; medians do not follow from sums."):
            make_grid(title, SUM_COLUMNS, rows)


PERSONAL_COLUMNS = (
    Column("method", "Method", "Whose final model was trained further", width=130),
    Column("site", "Site", "That trained it further for itself", width=140),
    Column("region", "Region", "What is segmented", width=90),
    Column("shared", "Dice of the shared model", "On the site's validation cases (no unit)", DICE),
    Column("own", "Dice of its own model", "On the same cases (no unit)", DICE),
)


def _personalised(detail: RunDetail) -> None:
    rows = [
        {
            "id": f"{one.method} {one.site} {region}",
            "method": method_label(one.method),
            "site": one.site,
            "region": region,
            "shared": dice,
            "own": one.own.get(region),
        }
        for one in detail.personalised
        for region, dice in one.shared.items()
    ]
    if rows:
        with section("Sites' own models", "Made from the shared one by further training."):
            make_grid("Sites' own models", PERSONAL_COLUMNS, rows)


def _postprocessing(detail: RunDetail) -> None:
    if detail.postprocessing:
        with section("Post-processing", "What is done to the labels after the network."):
            for one in detail.postprocessing:
                steps = ", then ".join(one.steps) or "nothing helps"
                html.p(f"{method_label(one.method)}: {steps}. {' '.join(one.reasons)}")
