"""What keeps an open page up to date; without an open page nothing runs.

Everything that reads runs does so in one thread: the store needs no locks, and the pages stay
quick while it reads.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TypeVar

from nicegui import background_tasks, ui

from server.dashboard.log_page import LogPage, LogQuery
from server.dashboard.store import RunStore
from server.dashboard.views import RunDetail

T = TypeVar("T")
Refresh = Callable[[RunDetail], Awaitable[None] | None]
"""Shows a run as it is now, on a page that was built of an earlier state."""
View = Callable[[RunDetail], Refresh]
"""Builds a part of a page and returns what keeps it up to date."""

LOG = logging.getLogger(__name__)
POLL_S = 1.0  # how soon a page tells what happened
ALARM_POLL_S = 20.0  # while nobody looks but a webhook wants to know of alarms


@dataclass
class Reading:
    """The store, its one thread, and how many pages look at it."""

    store: RunStore
    always: bool = False
    """Whether to read on while no page is open, for alarms."""
    after_poll: Callable[[], None] = lambda: None
    thread: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, "reading"))
    n_pages: int = 0
    opened: asyncio.Event = field(default_factory=asyncio.Event)

    async def ask(self, question: Callable[..., T], *given: object) -> T:
        """Return what the store answers, from its thread."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self.thread, question, *given)

    async def detail(self, name: str) -> RunDetail | None:
        """Return what a run's page shows; None for an unknown name."""
        return await self.ask(self.store.detail, name, datetime.now(UTC))

    async def search(self, name: str, query: LogQuery) -> LogPage | None:
        """Return lines of a run's log; None for an unknown name."""
        return await self.ask(self.store.search, name, query, datetime.now(UTC))

    async def poll(self) -> None:
        """Read what was appended."""
        await self.ask(self.store.poll, datetime.now(UTC))
        self.after_poll()

    async def look_again(self) -> None:
        """Read what was appended while no page was open to ask for it."""
        if not self.n_pages:
            await self.poll()

    async def keep_reading(self) -> None:
        """Read as often as somebody wants to know, until cancelled."""
        while True:
            try:
                await self.poll()
            except Exception:  # reading goes on: the next look may find the disk in order
                LOG.exception("the folder of runs could not be read")
            if self.n_pages:
                await asyncio.sleep(POLL_S)
            elif self.always:
                await _first_of(self.opened, ALARM_POLL_S)
            else:
                await self.opened.wait()

    def open_page(self) -> None:
        """Count a page that looks."""
        self.n_pages += 1
        self.opened.set()

    def close_page(self) -> None:
        """Count it out."""
        self.n_pages -= 1
        if self.n_pages == 0:
            self.opened.clear()


def keep_fresh(reading: Reading, refresh: Callable[[], Awaitable[None]]) -> None:
    """Call `refresh` after every change while this page is open, at most once a second."""
    client, tasks = ui.context.client, list[asyncio.Task[None]]()

    async def follow() -> None:
        revision = -1
        while True:
            revision = await reading.store.changed(since=revision)
            try:
                with client:
                    await refresh()
            except Exception:  # a page that stands still is worse than a line in the log
                LOG.exception("a page could not be brought up to date")
            await asyncio.sleep(POLL_S)

    def start() -> None:
        if not tasks:
            reading.open_page()
            tasks.append(background_tasks.create(follow(), name="follow"))

    def stop() -> None:
        if tasks:
            reading.close_page()
            tasks.pop().cancel()

    client.on_connect(start)
    client.on_disconnect(stop)
    client.on_delete(stop)


async def _first_of(event: asyncio.Event, seconds: float) -> None:
    try:
        await asyncio.wait_for(event.wait(), seconds)
    except TimeoutError:
        return
