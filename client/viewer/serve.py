"""Serving the viewer: on this machine only, until Ctrl-C."""

import secrets
import socket
from collections.abc import Callable

import uvicorn

from client.viewer.application import application
from client.viewer.listing import Listing
from common.errors import ConfigError

LOOPBACK = ("127.0.0.1", "::1")
TOKEN_BYTES = 24  # 192 bits: more than anybody can try


def refuse_other_hosts(host: str) -> None:
    """Refuse every address that another machine could reach.

    Raises:
        ConfigError: unless the host is loopback.
    """
    if host not in LOOPBACK:
        raise ConfigError(
            f"--host {host}: expected {' or '.join(LOOPBACK)}, because the pages show patients; "
            "from another machine use ssh -L 8000:127.0.0.1:PORT"
        )


def serve(listing: Listing, host: str, port: int, announce: Callable[[str], None]) -> None:
    """Serve a listing until the process is told to stop.

    Args:
        listing: what is shown.
        host: a loopback address.
        port: 0 takes a free one.
        announce: told the address, with the secret in it, once it is answered.

    Raises:
        ConfigError: for another host, and when the port is in use.
    """
    refuse_other_hosts(host)
    token = secrets.token_urlsafe(TOKEN_BYTES)
    config = uvicorn.Config(
        application(listing, token),
        log_config=None,
        access_log=False,  # addresses hold the secret
        lifespan="off",
        ws="none",
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=1,
    )
    with _listening(host, port) as listener:
        name = f"[{host}]" if ":" in host else host
        announce(f"http://{name}:{listener.getsockname()[1]}/{token}/")
        try:
            uvicorn.Server(config).run(sockets=[listener])
        except KeyboardInterrupt:  # uvicorn has finished and passes Ctrl-C on
            return


def _listening(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except OSError as error:
        raise ConfigError(
            f"--port {port}: expected a free port on {host}, found: {error.strerror}"
        ) from None
