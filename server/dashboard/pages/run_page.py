"""One run: which of its views is shown, and what stands above each of them."""

from collections.abc import Mapping
from dataclasses import dataclass

from nicegui import html, ui

from server.dashboard.pages.alarms_view import alarms_view
from server.dashboard.pages.frame import banners, empty_state, framed, run_address
from server.dashboard.pages.held_out_view import held_out_view
from server.dashboard.pages.live import Reading, Refresh, View, keep_fresh
from server.dashboard.pages.log_view import log_view
from server.dashboard.pages.overview import overview
from server.dashboard.pages.plan_view import plan_view
from server.dashboard.pages.ranking_view import ranking_view
from server.dashboard.pages.rounds_view import rounds_view
from server.dashboard.pages.sites_view import sites_view
from server.dashboard.pages.updates_view import updates_view
from server.dashboard.pages.words import count_text
from server.dashboard.views import RunDetail


@dataclass(frozen=True)
class Titled:
    """A view and the words that lead to it."""

    words: str
    build: View


VIEWS: Mapping[str, Titled] = {
    "": Titled("Progress", overview),
    "sites": Titled("Sites", sites_view),
    "rounds": Titled("Rounds", rounds_view),
    "updates": Titled("Updates", updates_view),
    "held-out": Titled("Held-out results", held_out_view),
    "ranking": Titled("Ranking", ranking_view),
    "plan": Titled("Plan", plan_view),
    "alarms": Titled("Alarms", alarms_view),
}
LOG = "log"


async def run_page(reading: Reading, name: str, view: str, *, kind: str = "") -> None:
    """Build a view of a run; of a name or a view that is unknown, a page that says so.

    Args:
        reading: where runs are looked up.
        name: as the address has it.
        view: as the address has it; empty for the progress.
        kind: of events, for the log.
    """
    detail = await reading.detail(name)
    if detail is None or (view not in VIEWS and view != LOG):
        ui.context.client.status_code = 404
        with framed("Not found"):
            empty_state("There is no such run in the folder, or no such page of it.")
        return
    words = "Log" if view == LOG else VIEWS[view].words
    with framed(f"{name}: {words}" if view else name):
        _ways(name, view, detail)
        notice = html.div()
        with notice:
            banners(detail)
        refresh = (
            await log_view(reading, detail, kind) if view == LOG else VIEWS[view].build(detail)
        )
    _follow(reading, detail, notice, refresh)


def _ways(name: str, view: str, detail: RunDetail) -> None:
    with html.nav(**{"aria-label": "Views of this run"}).classes("views"):
        for key, titled in (*VIEWS.items(), (LOG, Titled("Log", overview))):
            n_alarms = detail.summary.n_alarms if key == "alarms" else 0
            words = f"{titled.words} ({count_text(n_alarms)})" if n_alarms else titled.words
            link = ui.link(words, run_address(name, key))
            if key == view:
                link.props["aria-current"] = "page"


def _follow(reading: Reading, first: RunDetail, notice: html.div, refresh: Refresh) -> None:
    shown = [first]

    async def look() -> None:
        before = shown[0]
        detail = await reading.detail(before.summary.name)
        if detail is None or detail.summary.revision == before.summary.revision:
            return
        shown[0] = detail
        if _said(detail) != _said(before):
            notice.clear()
            with notice:
                banners(detail)
        done = refresh(detail)
        if done is not None:
            await done

    keep_fresh(reading, look)


def _said(detail: RunDetail) -> tuple[object, ...]:
    return detail.summary.n_unreadable, detail.unreadable, detail.files.errors
