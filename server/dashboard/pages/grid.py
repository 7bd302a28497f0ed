"""Tables: AG Grid with every cell as text, sorted by the value behind it.

Only field names of ours become keys of what is sent: NiceGUI takes a key that begins with a colon
for a program. Names of sites, methods and files are values only.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from markupsafe import escape
from nicegui import ui

from server.dashboard.pages.words import plain_number, text_or_dash

ROWS_SHOWN = 15  # higher tables scroll within themselves and draw only what is seen
HEIGHT_PX = 560
ROW_PX = 34
LINK = """(p) => { const a = document.createElement('a'); a.textContent = p.value;
a.href = p.data.href; a.tabIndex = -1; return a; }"""
CHOSEN = {
    "rowSelection": {"mode": "multiRow", "headerCheckbox": False},
    "selectionColumnDef": {"pinned": "left", "width": 46},
}
OPEN_WITH_ENTER = """(p) => { if (p.event.key === 'Enter' && p.data.href && p.column.colId ===
p.api.getAllDisplayedColumns().find((c) => c.getColDef().cellRenderer)?.colId)
window.location = p.data.href; }"""


@dataclass(frozen=True)
class Column:
    """One column: what it holds, and what its heading says."""

    field: str
    heading: str
    """With the unit."""
    says: str
    """What the number is, in a sentence, shown at the heading."""
    text: Callable[[Any], str] = text_or_dash
    width: int = 120
    """In pixels, at least."""
    link: bool = False
    wide: bool = False
    """Takes what is left of the width, and breaks long texts into lines."""
    stays: bool = False
    """While one scrolls sideways."""
    sort: Literal["asc", "desc"] | None = None
    """By what rows are in order before anybody sorts."""


Row = Mapping[str, Any]
"""Values by field; `id` tells rows apart, `href` is where a link leads."""


@dataclass
class Grid:
    """A table on a page, and the rows that it shows now."""

    element: ui.aggrid
    columns: Sequence[Column]
    shown: dict[str, dict[str, Any]]

    def show(self, rows: Sequence[Row]) -> None:
        """Send the rows that differ from those shown."""
        wanted = {row["id"]: cells(row, self.columns) for row in rows}
        added = [row for key, row in wanted.items() if key not in self.shown]
        gone = [{"id": key} for key in self.shown if key not in wanted]
        changed = [
            row for key, row in wanted.items() if key in self.shown and row != self.shown[key]
        ]
        self.shown = wanted
        if added or gone or changed:
            change = {"add": added, "update": changed, "remove": gone}
            self.element.run_grid_method("applyTransaction", change)

    def filter(self, text: str) -> None:
        """Show only rows that have a text somewhere."""
        self.element.run_grid_method("setGridOption", "quickFilterText", text[:200])


def make_grid(
    label: str,
    columns: Sequence[Column],
    rows: Sequence[Row],
    *,
    chosen: bool = False,
    empty: str = "Nothing here yet.",
) -> Grid:
    """Put a table on the page.

    Args:
        label: what it is, for those who do not see it.
        columns: from left to right.
        rows: what stands in it.
        chosen: whether rows can be chosen.
        empty: what stands there without rows: what is missing, and why.
    """
    shown = {row["id"]: cells(row, columns) for row in rows}
    element = ui.aggrid(
        {
            "columnDefs": [_definition(column) for column in columns],
            "rowData": list(shown.values()),
            ":getRowId": "(p) => p.data.id",
            ":onCellKeyDown": OPEN_WITH_ENTER,
            "domLayout": "autoHeight" if len(rows) <= ROWS_SHOWN else "normal",
            "ensureDomOrder": True,
            "suppressMovableColumns": True,
            "suppressFieldDotNotation": True,
            "enableCellTextSelection": True,
            "animateRows": False,
            "rowHeight": ROW_PX,
            "overlayNoRowsTemplate": f"<span>{escape(empty)}</span>",
            **(CHOSEN if chosen else {}),
        },
        auto_size_columns=False,
    )
    element.props.update({"role": "region", "aria-label": label})
    element.classes("grid")
    element.style("height: auto" if len(rows) <= ROWS_SHOWN else f"height: {HEIGHT_PX}px")
    return Grid(element, columns, shown)


def cells(row: Row, columns: Sequence[Column]) -> dict[str, Any]:
    """Return a row as it is sent: of every column the value to sort by, and its text."""
    sent = {"id": row["id"]}
    if "href" in row:
        sent["href"] = row["href"]
    for column in columns:
        value = row.get(column.field)
        sent[column.field] = _sortable(value)
        sent[f"{column.field}_text"] = column.text(value)
    return sent


def _definition(column: Column) -> dict[str, Any]:
    text = f"{column.field}_text"
    shape: dict[str, Any] = {"minWidth": column.width}
    if column.wide:
        shape |= {"flex": 1, "wrapText": True, "autoHeight": True}
    return {
        "field": column.field,
        "headerName": column.heading,
        "headerTooltip": column.says,
        "tooltipField": text,
        "wrapHeaderText": True,
        "autoHeaderHeight": True,
        "width": column.width,
        "cellDataType": False,
        ":valueFormatter": f"(p) => p.data ? p.data.{text} : ''",
        ":getQuickFilterText": f"(p) => p.data.{text}",
        **({":cellRenderer": LINK} if column.link else {}),
        **({"pinned": "left"} if column.stays else {}),
        **({"sort": column.sort} if column.sort else {}),
        **shape,
    }


def _sortable(value: Any) -> Any:
    match value:
        case bool() | int() | str() | None:
            return value
        case float():
            return plain_number(value)
        case datetime():
            return value.timestamp()
        case _:
            return str(value)
