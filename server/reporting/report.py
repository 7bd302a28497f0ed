"""The report of a run: `report.html` in one file, and `report.md` with its plots beside it.

Nothing is computed here that a table does not show: this module words sentences, renders plots
and fills two templates. The pages hold no date of their own, so the same run gives the same bytes.
"""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup

from common.errors import ConfigError
from common.evaluation.aggregates import Aggregate
from common.figures import for_page
from common.files import write_atomically
from server.convergence import convergences
from server.events import PictureReleased
from server.reporting.held_out_data import RegionSummary, summarise
from server.reporting.pages import environment, markdown_text
from server.reporting.plots import dice_svg, held_out_svg, loss_svg
from server.reporting.privacy_words import privacy_section
from server.reporting.ranking_plots import ranking_plots
from server.reporting.ranking_words import words_of
from server.reporting.report_data import LOCAL_ONLY, ReportData, collect
from server.reporting.report_words import REGION_LABELS, hd95_text, summary_sentences

PICTURE_KINDS = ("best", "median", "worst")


@dataclass(frozen=True)
class HeldOutSection:
    """The results of one held-out site."""

    site: str
    number: int
    """Position, from 1; part of the plots' file names."""
    n_cases: int
    metrics: str
    """How much the site told: ranks, aggregates or cases."""
    aggregates: tuple[Aggregate, ...]
    summaries: tuple[RegionSummary, ...]
    local_summaries: tuple[RegionSummary, ...]
    notes: dict[str, tuple[str, ...]]
    """Methods by what the site said about the test."""

    @property
    def release(self) -> str:
        """What the site let out, where that is not the metrics of cases."""
        if self.aggregates:
            return "This site released sums of ranks and means and quartiles over its cases."
        return (
            "This site released sums of ranks only, from which the ranking below is made; its "
            "metrics are not released."
        )


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
    """Write `report.html`, `report.md` and `plots/*.svg` into a run directory.

    Args:
        run_dir: a run, also one that is unfinished.

    Returns:
        Path of the HTML page.

    Raises:
        ConfigError: when `run_dir` is no run, a file is malformed, or cannot be written.
    """
    data = collect(run_dir)
    sections = held_out_sections(data)
    plots = draw_plots(data, sections)
    context = {
        "data": data,
        "sections": sections,
        "progress": site_progress(data),
        "pictures": sorted_pictures(data),
        "privacy": privacy_section(data.trained, data.site_privacy),
        "convergences": convergences(data.log.events),
        "summary": summary_sentences(data),
        "hd95_text": hd95_text(data.definition),
        "region_labels": REGION_LABELS,
        "ranking_words": words_of(data.ranking, data.n_ranked_cases) if data.ranking else None,
    }
    for name, svg in plots.items():
        write_atomically(run_dir / "plots" / f"{name}.svg", svg.encode())
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
    write_atomically(run_dir / "report.md", text.encode())
    write_atomically(run_dir / "report.html", html.encode())
    return run_dir / "report.html"


def draw_plots(data: ReportData, sections: Sequence[HeldOutSection]) -> dict[str, str]:
    """Return the run's plots as SVG text by file stem; without data there is no plot."""
    plots = {}
    if any(event.loss is not None for event in data.trained):
        plots["loss"] = loss_svg(data.trained, data.training_sites, data.methods)
    if data.validated:
        plots["dice"] = dice_svg(data.validated, data.training_sites, data.methods)
    for section in sections:
        scores = data.scores[data.scores["site"] == section.site]
        floors = [floor for floor in data.floors if floor.site == section.site]
        stem = f"held-out-{section.number}"
        if section.summaries:
            plots[f"{stem}-dice"] = held_out_svg(scores, "dice", data.methods, floors)
            plots[f"{stem}-hd95"] = held_out_svg(scores, "hd95", data.methods)
    return plots | (ranking_plots(data.ranking) if data.ranking else {})


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
    return max((event.n_cases for event in data.held_out if event.site == site), default=0)


def _picture_uri(run_dir: Path, picture: PictureReleased) -> str:
    path = run_dir / picture.file
    if not path.resolve().is_relative_to(run_dir.resolve()):
        raise ConfigError(f"{run_dir}: expected pictures inside it, found {picture.file!r}")
    if not path.is_file():
        return ""
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()
