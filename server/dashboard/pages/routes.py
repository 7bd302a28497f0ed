"""Which address shows which page. Names of runs are asked of the store and join no path."""

from nicegui import ui

from server.dashboard.pages.compare_page import compare_page
from server.dashboard.pages.frame import style_sheet
from server.dashboard.pages.live import Reading
from server.dashboard.pages.run_page import run_page
from server.dashboard.pages.runs_page import runs_page

LONGEST_BUILD_S = 60.0  # the first reading of a long run's log on a slow disk


def add_pages(reading: Reading) -> None:
    """Register all pages."""
    ui.add_css(style_sheet(), shared=True)

    @ui.page("/", response_timeout=LONGEST_BUILD_S)
    async def _runs() -> None:
        await reading.look_again()
        await runs_page(reading)

    @ui.page("/compare", response_timeout=LONGEST_BUILD_S)
    async def _compare(a: str = "", b: str = "") -> None:
        await reading.look_again()
        await compare_page(reading, a, b)

    @ui.page("/runs/{name}", response_timeout=LONGEST_BUILD_S)
    async def _run(name: str) -> None:
        await reading.look_again()
        await run_page(reading, name, "")

    @ui.page("/runs/{name}/{view}", response_timeout=LONGEST_BUILD_S)
    async def _view(name: str, view: str, kind: str = "") -> None:
        await reading.look_again()
        await run_page(reading, name, view, kind=kind)
