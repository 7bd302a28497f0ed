"""The events of a run in words, the newest first: searched, page by page."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace

from nicegui import html, ui
from nicegui.events import ValueChangeEventArguments

from server.dashboard.log_page import LogPage, LogQuery
from server.dashboard.pages.frame import section
from server.dashboard.pages.grid import Column, Row, make_grid
from server.dashboard.pages.live import Reading
from server.dashboard.pages.words import count_text, time_text
from server.dashboard.run_data import UNREADABLE
from server.dashboard.views import RunDetail
from server.events import EVENT_TYPES

LONGEST_TEXT = 200  # letters of a search
COLUMNS = (
    Column("number", "Line", "Of events.jsonl", width=100, sort="desc"),
    Column("time", "Time (UTC)", "When it was written", time_text, width=165),
    Column("kind", "Event", "Its kind; unreadable lines stand here as well", width=150),
    Column("method", "Method", "Whose round it was", width=105),
    Column("round", "Round", "Number of the round", count_text, width=80),
    Column("site", "Site", "Whose event it is", width=130),
    Column("text", "In words", "What happened", width=340, wide=True),
)
NOTHING = "No line of the log fits. Clear the fields above to see all of them."


@dataclass
class _Place:
    """Where a reader is in the log."""

    query: LogQuery
    newer: list[int | None] = field(default_factory=list)
    """Ends of the pages that lie before this one."""


async def log_view(
    reading: Reading, detail: RunDetail, kind: str
) -> Callable[[RunDetail], Awaitable[None]]:
    """Build the view; return what keeps it up to date."""
    name = detail.summary.name
    place = _Place(LogQuery(kind=kind if kind in _kinds() else ""))
    page = await reading.search(name, place.query)
    with section("Events", "Straight from events.jsonl, the newest first."):
        tools = html.div().classes("tools")
        told = ui.label(_told(page)).classes("says").props('role="status"')
        grid = make_grid("Events", COLUMNS, rows_of(page), empty=NOTHING)
        with html.div().classes("tools"):
            newer = ui.button("Newer").props("no-caps outline")
            older = ui.button("Older").props("no-caps outline")

    async def look() -> None:
        nonlocal page
        page = await reading.search(name, place.query)
        told.text = _told(page)
        grid.show(rows_of(page))
        newer.set_enabled(bool(place.newer))
        older.set_enabled(page is not None and page.next_before is not None)

    async def search(query: LogQuery) -> None:
        place.query, place.newer = replace(query, before=None), []
        await look()

    async def go_older() -> None:
        place.newer.append(place.query.before)
        place.query = replace(place.query, before=page.next_before if page else None)
        await look()

    async def go_newer() -> None:
        place.query = replace(place.query, before=place.newer.pop() if place.newer else None)
        await look()

    async def refresh(_: RunDetail) -> None:
        if place.query.before is None:  # older pages stand still while somebody reads them
            await look()

    _fill(tools, detail, place, search)
    newer.on_click(go_newer)
    older.on_click(go_older)
    newer.set_enabled(False)
    older.set_enabled(page is not None and page.next_before is not None)
    return refresh


def rows_of(page: LogPage | None) -> list[Row]:
    """Return the lines of a page of the log as rows."""
    return [
        {
            "id": str(line.number),
            "number": line.number,
            "time": line.time,
            "kind": line.kind if line.readable else f"{UNREADABLE} {line.kind}".strip(),
            "method": line.method,
            "round": line.round,
            "site": line.site,
            "text": line.text,
        }
        for line in (page.lines if page is not None else ())
    ]


def _told(page: LogPage | None) -> str:
    if page is None or not page.lines:
        return NOTHING
    first, last = page.lines[-1].number, page.lines[0].number
    more = "" if page.complete else " The search took long: go on with Older."
    found = f"{len(page.lines)} lines" if len(page.lines) > 1 else "1 line"
    return f"{found}, from {first} to {last}; the log has {page.n_total}.{more}"


def _kinds() -> list[str]:
    return [*EVENT_TYPES, UNREADABLE]


def _fill(
    tools: html.div,
    detail: RunDetail,
    place: _Place,
    search: Callable[[LogQuery], Awaitable[None]],
) -> None:
    async def seek(event: ValueChangeEventArguments[str | None]) -> None:
        await search(replace(place.query, text=(event.value or "")[:LONGEST_TEXT]))

    async def choose_kind(kind: str) -> None:
        await search(replace(place.query, kind=kind))

    async def choose_site(site: str) -> None:
        await search(replace(place.query, site=site))

    async def choose_method(method: str) -> None:
        await search(replace(place.query, method=method))

    with tools:
        text = ui.input("Search").props('type="search" outlined dense clearable debounce=300')
        text.on_value_change(seek)
        _menu("Event", _kinds(), place.query.kind, choose_kind)
        _menu("Site", [row.site for row in detail.sites], "", choose_site)
        _menu("Method", list(detail.summary.methods), "", choose_method)


def _menu(
    label: str, names: Sequence[str], value: str, choose: Callable[[str], Awaitable[None]]
) -> None:
    ui.select(
        {"": "all", **{name: name for name in names}},
        label=label,
        value=value,
        on_change=lambda event: choose(event.value),
    ).props("outlined dense")
