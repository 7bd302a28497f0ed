"""What every page has around it: heading, ways to the other pages, light and dark, banners."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.resources import files
from urllib.parse import quote

from nicegui import html, ui

from server.dashboard.pages.words import count_text
from server.dashboard.run_data import UNREADABLE
from server.dashboard.views import RunDetail
from server.log_lines import UnreadableLine

THEMES = {"auto": None, "light": False, "dark": True}
THEME_COOKIE = "consilium-theme"  # holds a word of THEMES and nothing else
MOST_LINES = 20  # unreadable lines, or files, that a banner names; the log has all lines


def style_sheet() -> str:
    """Return the pages' own style sheet."""
    return files("server.dashboard.pages").joinpath("style.css").read_text(encoding="utf-8")


@contextmanager
def framed(title: str, *, way: Sequence[tuple[str, str]] = ()) -> Iterator[None]:
    """Build a page's content within its frame.

    Args:
        title: of the page.
        way: (words, address) of the pages above this one.
    """
    ui.page_title(f"{title} \N{MIDDLE DOT} Consilium")
    with html.header().classes("top"):
        with html.nav(**{"aria-label": "Pages"}):
            ui.link("Consilium", "/").classes("brand")
            for words, address in (*way, ("Compare runs", "/compare")):
                ui.link(words, address)
        _theme_button()
    with html.div().classes("page") as content:  # within the main element that Quasar makes
        html.h1(title)
        yield
    ui.skip_link(target=content)


def run_address(name: str, view: str = "") -> str:
    """Return the address of a run's page; the name is looked up there and joins no path."""
    return f"/runs/{quote(name, safe='')}" + (f"/{view}" if view else "")


def section(title: str, says: str = "") -> html.section:
    """Return a part of a page with its heading, to be filled."""
    part = html.section(**{"aria-label": title})
    with part:
        html.h2(title)
        if says:
            html.p(says).classes("says")
    return part


def empty_state(text: str) -> None:
    """Say what is missing here, and why."""
    html.p(text).classes("empty")


def banners(detail: RunDetail) -> None:
    """Say what of a run could not be read; the rest of the page shows what could."""
    n_lines, name = detail.summary.n_unreadable, detail.summary.name
    if n_lines:
        with html.div(role="status").classes("banner"):
            html.strong(
                f"{count_text(n_lines)} line{'s' if n_lines > 1 else ''} of events.jsonl could "
                "not be read. What stands below is made of the other lines."
            )
            _unreadable(detail.unreadable[:MOST_LINES], n_lines, name)
    if errors := detail.files.errors:
        files = "1 file" if len(errors) == 1 else f"{count_text(len(errors))} files"
        with html.div(role="status").classes("banner"):
            html.strong(f"{files} of this run could not be read.")
            with html.ul():
                for error in errors[:MOST_LINES]:
                    html.li(error)


def _unreadable(lines: Sequence[UnreadableLine], n_lines: int, name: str) -> None:
    with html.ul():
        for line in lines:
            with html.li():
                html.span(f"line {line.number}: {line.reason}: ")
                html.code(line.text[:160])
    if n_lines > len(lines):
        html.p(f"These are the first {len(lines)} of {count_text(n_lines)}.")
    ui.link("All of them in the log", run_address(name, "log") + f"?kind={UNREADABLE}")


def _theme_button() -> None:
    request = ui.context.client.request
    chosen = request.cookies.get(THEME_COOKIE, "auto")
    chosen = chosen if chosen in THEMES else "auto"
    dark = ui.dark_mode(THEMES[chosen])

    def choose(theme: str) -> None:
        dark.value = THEMES[theme]
        ui.run_javascript(
            f"document.cookie = '{THEME_COOKIE}={theme}; path=/; SameSite=Strict; max-age=31536000'"
        )

    ui.toggle(
        {name: name.capitalize() for name in THEMES},
        value=chosen,
        on_change=lambda event: choose(event.value),
    ).props('dense unelevated no-caps size=sm aria-label="Colours"')
