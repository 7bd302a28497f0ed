"""The report of a run: `report.html` in one file, and `report.md` with its plots beside it.

Nothing is computed here that a table does not show: this module words sentences, renders plots
and fills two templates. The pages hold no date of their own, so the same run gives the same bytes.
"""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from common.errors import ConfigError
from common.evaluation.aggregates import Aggregate
from common.figures import for_page
from common.files import write_atomically
from server.convergence import convergences
from server.events import PictureReleased, SiteMasked, SiteTrained
from server.reporting.cost_plots import round_times_svg
from server.reporting.cost_words import costs_section
from server.reporting.costs import round_times
from server.reporting.faults import attempts_of
from server.reporting.held_out_data import RegionSummary, summarise
from server.reporting.methods.section import methods_section
from server.reporting.model_size import model_size
from server.reporting.network_plot import network_svg
from server.reporting.pages import environment, markdown_text
from server.reporting.plan_stages import stage_rows
from server.reporting.plots import dice_svg, held_out_svg, loss_svg
from server.reporting.privacy_statement import not_private, secure_words, what_was_seen
from server.reporting.privacy_words import privacy_section
from server.reporting.ranking_plots import ranking_plots
from server.reporting.ranking_words import words_of
from server.reporting.references import cited_in, numbered, references
from server.reporting.report_data import LOCAL_ONLY, ReportData, collect
from server.reporting.report_words import REGION_LABELS, hd95_text, summary_sentences
from server.reporting.reproduction import commands, reproducible
from server.reporting.sources import numbers_csv, numbers_of, without_sources

LINK = '<a href="#ref-{0}">{0}</a>'  # from a citation to the list of references
PICTURE_KINDS = ("best", "median", "worst")


@dataclass(frozen=True)
class HeldOutSection:
    """The results of one held-out site."""

    site: str
    number: int
    """Position, from 1; part of the plots' file names."""
    n_cases: int
    metrics: str
    """How much the site told: secure-sum, ranks, aggregates or cases."""
    aggregates: tuple[Aggregate, ...]
    summaries: tuple[RegionSummary, ...]
    local_summaries: tuple[RegionSummary, ...]
    notes: dict[str, tuple[str, ...]]
    """Methods by what the site said about the test."""

    @property
    def tested(self) -> str:
        """What was tested at the site."""
        cases = "cases" if self.metrics == "secure-sum" else f"{self.n_cases} cases"
        return f"{self.site}: {cases} that took no part in training"

    @property
    def release(self) -> str:
        """What the site let out, where that is not the metrics of cases."""
        if self.metrics == "secure-sum":
            return (
                "The numbers of this site, that of its cases included, are seen only in the sum "
                "below."
            )
        if self.aggregates:
            return "This site released sums of ranks and means and quartiles over its cases."
        return (
            "This site released sums of ranks only, from which the ranking below is made; its "
            "metrics are not released."
        )


@dataclass(frozen=True)
class Pages:
    """A report; its numbers still carry their sources (`server.reporting.sources`)."""

    markdown: str
    html: str
    plots: dict[str, str]
    """SVG text by file stem."""


@dataclass(frozen=True)
class SiteProgress:
    """What one site did for one method."""

    method: str
    site: str
    n_rounds: int
    n_steps: int
    seconds: float
    upload_bytes: int
    download_bytes: int
    last_loss: float | None
    """None where it is private."""
    last_dice: dict[str, float]


def write_report(run_dir: Path) -> Path:
    """Write `report.html`, `report.md`, `report-numbers.csv` and `plots/*.svg` of a run.

    Args:
        run_dir: a run, also one that is unfinished.

    Returns:
        Path of the HTML page.

    Raises:
        ConfigError: when `run_dir` is no run, a file is malformed, or cannot be written.
    """
    pages = pages_of(run_dir)
    for name, svg in pages.plots.items():
        write_atomically(run_dir / "plots" / f"{name}.svg", svg.encode())
    numbers = numbers_csv(numbers_of(pages.markdown))
    write_atomically(run_dir / "report-numbers.csv", numbers.encode())
    write_atomically(run_dir / "report.md", without_sources(pages.markdown).encode())
    write_atomically(run_dir / "report.html", without_sources(pages.html).encode())
    return run_dir / "report.html"


def pages_of(run_dir: Path) -> Pages:
    """Return a run's report with the sources of its numbers; arguments as in `write_report`."""
    data = collect(run_dir)
    sections = held_out_sections(data)
    plots = draw_plots(data, sections)
    context, papers = _context(run_dir, data, sections)
    html = (
        environment()
        .get_template("report.html.j2")
        .render(
            **context,
            plots={name: Markup(for_page(svg)) for name, svg in plots.items()},  # noqa: S704 - our SVG
            picture_uri=lambda picture: _picture_uri(run_dir, picture),
        )
    )
    text = environment(markdown_text).get_template("report.md.j2").render(**context, plots=plots)
    return Pages(numbered(text, papers), numbered(html, papers, LINK), plots)


def _context(
    run_dir: Path, data: ReportData, sections: Sequence[HeldOutSection]
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Return what both templates show, and the keys of the papers in the order of the text."""
    methods = methods_section(data, model_size(run_dir))
    papers = cited_in(paragraph.text for paragraph in methods)
    answers: list[SiteTrained | SiteMasked] = [*data.trained, *data.masked]
    promised = data.config.privacy if data.config else None
    context = {
        "data": data,
        "methods": methods,
        "stages": stage_rows(data),
        "references": [references()[key] for key in papers],
        "trained_on": {event.site: event.n_cases for event in data.trained},
        "sections": sections,
        "progress": site_progress(data),
        "pictures": sorted_pictures(data),
        "privacy": privacy_section(answers, data.site_privacy, promised),
        "seen": what_was_seen(data),
        "secure_words": secure_words(data),
        "not_private": not_private(data),
        "costs": costs_section(data),
        "attempts": attempts_of(data.log.timed),
        "convergences": convergences(data.log.events),
        "summary": summary_sentences(data),
        "hd95_text": hd95_text(data.definition),
        "region_labels": REGION_LABELS,
        "ranking_words": words_of(data.ranking, data.n_ranked_cases) if data.ranking else None,
        "commands": commands(data),
        "reproducible": reproducible(data),
    }
    return context, papers


def draw_plots(data: ReportData, sections: Sequence[HeldOutSection]) -> dict[str, str]:
    """Return the run's plots as SVG text by file stem; without data there is no plot."""
    plots = _network_plots(data)
    losses = [event.loss for event in data.trained] + [opened.loss for opened in data.sums]
    if any(loss is not None for loss in losses):
        plots["loss"] = loss_svg(data.trained, data.training_sites, data.methods, data.sums)
    if data.validated or any(event.dice for event in data.sums):
        plots["dice"] = dice_svg(data.validated, data.training_sites, data.methods, data.sums)
    if times := round_times(data):
        plots["round-times"] = round_times_svg(times)
    for section in sections:
        scores = data.scores[data.scores["site"] == section.site]
        floors = [floor for floor in data.floors if floor.site == section.site]
        stem = f"held-out-{section.number}"
        if section.summaries:
            plots[f"{stem}-dice"] = held_out_svg(scores, "dice", data.methods, floors)
            plots[f"{stem}-hd95"] = held_out_svg(scores, "hd95", data.methods)
    return plots | (ranking_plots(data.ranking) if data.ranking else {})


def _network_plots(data: ReportData) -> dict[str, str]:
    """Return drawings of what was trained, where the plan decides the network's stages."""
    if data.config is None or data.plan is None or data.task is None:
        return {}
    n_outputs = len(data.task.labels)
    if data.config.model.output == "regions":
        n_outputs = len(data.task.regions)
    return {
        f"network-{name}": network_svg(
            name, data.configurations[name], len(data.plan.channels), n_outputs
        )
        for name in stage_rows(data)
    }


def held_out_sections(data: ReportData) -> tuple[HeldOutSection, ...]:
    """Return the results per held-out site; empty before the first test."""
    return tuple(
        _held_out_section(data, site, number)
        for number, site in enumerate(data.held_out_sites, start=1)
    )


def site_progress(data: ReportData) -> tuple[SiteProgress, ...]:
    """Return one line per method and site that sent an update, in the order of both."""
    rows = []
    for method in data.methods:
        for site in data.training_sites:
            events = [e for e in data.trained if e.method == method and e.site == site]
            tests = [e for e in data.validated if e.method == method and e.site == site]
            if not events:
                continue
            row = SiteProgress(
                method=method,
                site=site,
                n_rounds=len(events),
                n_steps=sum(event.n_steps for event in events),
                seconds=sum(event.seconds for event in events),
                upload_bytes=sum(event.upload_bytes for event in events),
                download_bytes=sum(event.download_bytes for event in events),
                last_loss=max(events, key=lambda event: event.round).loss,
                last_dice=max(tests, key=lambda event: event.round).dice if tests else {},
            )
            rows.append(row)
    return tuple(rows)


def sorted_pictures(data: ReportData) -> tuple[PictureReleased, ...]:
    """Return the pictures by site and kind, so that the methods stand side by side."""
    methods = {method: place for place, method in enumerate(data.methods)}

    def place(picture: PictureReleased) -> tuple[str, int, int]:
        kind = PICTURE_KINDS.index(picture.kind) if picture.kind in PICTURE_KINDS else -1
        return picture.site, kind, methods.get(picture.method, len(methods))

    return tuple(sorted(data.pictures, key=place))


def _held_out_section(data: ReportData, site: str, number: int) -> HeldOutSection:
    scores = data.scores[data.scores["site"] == site]
    local = [name for name in sorted(set(scores["method"])) if name.startswith(f"{LOCAL_ONLY}@")]
    notes: dict[str, tuple[str, ...]] = {}
    for event in data.held_out:
        if event.site == site and event.note:
            notes[event.note] = (*notes.get(event.note, ()), event.method)
    return HeldOutSection(
        site=site,
        number=number,
        n_cases=scores["case"].nunique() or _n_tested(data, site),
        metrics=data.release_of(site),
        aggregates=data.aggregates.get(site, ()),
        summaries=summarise(scores, data.methods),
        local_summaries=summarise(scores, local),
        notes=notes,
    )


def _n_tested(data: ReportData, site: str) -> int:
    return max((event.n_cases or 0 for event in data.held_out if event.site == site), default=0)


def _picture_uri(run_dir: Path, picture: PictureReleased) -> str:
    path = run_dir / picture.file
    if not path.resolve().is_relative_to(run_dir.resolve()):
        raise ConfigError(f"{run_dir}: expected pictures inside it, found {picture.file!r}")
    if not path.is_file():
        return ""
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()
