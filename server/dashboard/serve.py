"""Serving the dashboard: NiceGUI behind the guard, on one socket, until Ctrl-C."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress

import uvicorn
from fastapi import FastAPI
from nicegui import app as nicegui_app
from nicegui import ui
from starlette.middleware.gzip import GZipMiddleware

from common.errors import ConfigError
from common.figures import COLOURS
from server.dashboard.access import Access
from server.dashboard.guard import guarded
from server.dashboard.pages.live import Reading
from server.dashboard.pages.routes import add_pages

LARGEST_MESSAGE_BYTES = 2**18  # of a browser's: a chosen filter or site, at most a few KiB
RECONNECT_S = 30.0  # a laptop that slept for less goes on where it was
FAVICON = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 16 16">'
    '<circle cx="8" cy="8" r="7" fill="#0072B2"/><circle cx="8" cy="8" r="3" fill="#fff"/></svg>'
)
SMALLEST_GZIP_BYTES = 1000  # less does not pay


def serve(reading: Reading, access: Access, started: Callable[[str], None]) -> None:
    """Serve the pages until the process is told to end.

    Args:
        reading: what the pages show.
        access: where, and to whom.
        started: is told the address as soon as browsers can connect.

    Raises:
        ConfigError: when the address cannot be served.
    """
    listener = _listen(access)
    add_pages(reading)
    site = guarded(_site(reading), access)
    config = uvicorn.Config(  # what goes over a network is worth packing
        GZipMiddleware(site, SMALLEST_GZIP_BYTES, compresslevel=5) if access.certificate else site,
        ssl_certfile=access.certificate,
        ssl_keyfile=access.key,
        log_level="warning",
        access_log=False,  # addresses name runs; nothing reads such a log
        server_header=False,
        ws="wsproto",
        ws_max_size=LARGEST_MESSAGE_BYTES,
        timeout_graceful_shutdown=1,
    )
    started(access.url(listener.getsockname()[1]))
    uvicorn.Server(config).run(sockets=[listener])


def _listen(access: Access) -> socket.socket:
    try:
        family = socket.AF_INET6 if ":" in access.host else socket.AF_INET
        return socket.create_server((access.host, access.port), family=family)
    except OSError as error:
        raise ConfigError(
            f"--host {access.host} --port {access.port}: cannot be served: {error.strerror}; "
            "expected an address of this machine and a free port"
        ) from None


def _site(reading: Reading) -> FastAPI:
    """Return the pages' application, which reads the runs as long as it serves."""
    site = FastAPI(docs_url=None, redoc_url=None, openapi_url=None, lifespan=_reading_on(reading))
    nicegui_app.colors(primary=COLOURS[0])
    nicegui_app.config.socket_io_js_transports = ["websocket"]
    ui.run_with(
        site,
        title="Consilium",
        favicon=FAVICON,
        language="en-US",
        dark=None,
        tailwind=False,
        binding_refresh_interval=None,  # nothing is bound: nothing has to be looked at
        reconnect_timeout=RECONNECT_S,
        gzip_middleware_factory=None,
        show_welcome_message=False,
    )
    return site


def _reading_on(reading: Reading) -> Callable[[FastAPI], AbstractAsyncContextManager[None]]:
    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        task = asyncio.create_task(reading.keep_reading())
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    return lifespan
