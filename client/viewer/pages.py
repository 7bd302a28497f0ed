"""The viewer's page, its list and what it says of one case, as HTML."""

from functools import lru_cache

from jinja2 import Environment

from client.page_templates import page_templates
from client.scoring.appearance import METRIC_WORDS, colours_of
from client.viewer.listing import ListedCase, Listing
from client.viewer.order import mean_value, worst_first
from client.viewer.volumes import FALSE_ALARM, MISSED, OTHER_LABEL, Labels
from common.evaluation.scores import UNBOUNDED

DIFFERENCES = (  # value, name, colour; of `client.scoring.appearance.COLOURS`
    (MISSED, "missed (only in the reference)", "#D55E00"),
    (FALSE_ALARM, "false alarm (only in the prediction)", "#56B4E9"),
    (OTHER_LABEL, "another label", "#F0E442"),
)


def page(listing: Listing) -> str:
    """Return the page; it asks for everything else."""
    names = {value: name for name, value in listing.task.labels.items()}
    legend = [(value, names[value], colour) for value, colour in colours_of(listing.task).items()]
    template = _templates().get_template("viewer.html.j2")
    return template.render(
        listing=listing,
        legend=legend,
        differences=DIFFERENCES,
        for_script={
            "channels": listing.task.channels,
            "labels": legend,
            "differences": DIFFERENCES,
            "n_cases": len(listing.cases),
        },
    )


def list_of_cases(listing: Listing, metric: str, region: str | None) -> str:
    """Return the list, worst first; arguments as for `client.viewer.order.worst_first`."""
    rows = worst_first(listing, metric, region)
    return _templates().get_template("viewer_list.html.j2").render(rows=rows, metric=metric)


def words_on_case(listing: Listing, one: ListedCase, labels: Labels) -> str:
    """Return what is known of a case: its grid, its scores, what is wrong with its files."""
    metrics = {
        name: {region: mean_value(one, name, region) for region in listing.task.regions}
        for name in listing.metrics
    }
    template = _templates().get_template("viewer_case.html.j2")
    return template.render(listing=listing, one=one, labels=labels, metrics=metrics)


@lru_cache(maxsize=1)
def _templates() -> Environment:
    environment = page_templates()
    environment.filters["number"] = _number
    environment.globals["metric_words"] = METRIC_WORDS
    return environment


def _number(value: float | None, metric: str) -> str:
    """Return a number for a table, a dash where there is none."""
    if value is None:
        return "\N{EN DASH}"
    return f"{value:.1f}" if metric in UNBOUNDED else f"{value:.3f}"
