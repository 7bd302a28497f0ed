"""The connection to the coordinator: a pulse that others see, signing on again, and patience."""

import os
import signal
import time
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

from client.service.hooks.parts import CLIENT, CONNECTION

NOT_KNOWN = {401, 403}  # by the gate or the SuperLink: trying twice does not help
ABSENT_S = 6.0  # the coordinator asks for replies every few seconds


def keep_pulse(pulse: Path) -> None:
    """Touch a file at every heartbeat that the coordinator answers, and never stop trying.

    Flower's thread of heartbeats ends for good at an answer that it does not know, and the site
    looks dead ever after while it polls on. Here such an answer counts as a failed connection, and
    a coordinator that has forgotten this node ends the process, so that it signs on anew.
    """
    fleet: Any = import_module(CLIENT).FleetHttpClient
    httpx: Any = import_module(CONNECTION).httpx
    original = fleet.SendNodeHeartbeat

    def beat(self: Any, request: Any) -> Any:
        try:
            response = original(self, request)
        except httpx.HTTPStatusError as error:
            if error.response.status_code == httpx.codes.UNAUTHORIZED:
                raise  # Flower then ends the process
            raise httpx.ReadError(str(error.response.status_code)) from None
        if not response.success:
            os.kill(os.getpid(), signal.SIGTERM)
            raise httpx.ReadError("this node is not known")
        pulse.touch()
        return response

    fleet.SendNodeHeartbeat = beat


def sign_off_before_signing_on(node: Path) -> None:
    """Let a site come back at once after its process was killed.

    The coordinator takes a node that fell silent for present, for about a minute, and does not let
    it sign on again. Here it is signed off first, by the number that it had; then, for a moment,
    the coordinator can see that what it had asked of the dead process will not be answered.

    Args:
        node: file that keeps this node's number.
    """
    fleet: Any = import_module(CLIENT).FleetHttpClient
    httpx: Any = import_module(CONNECTION).httpx
    request_off: Any = import_module("flwr.proto.fleet_pb2").DeactivateNodeRequest
    original = fleet.ActivateNode

    def activate(self: Any, request: Any) -> Any:
        try:
            response = original(self, request)
        except httpx.HTTPStatusError as error:
            if error.response.status_code in NOT_KNOWN or not node.exists():
                raise
            with suppress(httpx.HTTPError):
                self.DeactivateNode(request_off(node_id=int(node.read_text())))
            time.sleep(ABSENT_S)
            response = original(self, request)
        node.write_text(str(response.node_id))
        return response

    fleet.ActivateNode = activate


def keep_trying() -> None:
    """Go on after a time-out of the TLS handshake, which Flower takes for a wrong certificate."""
    connection: Any = import_module(CONNECTION)
    httpx: Any = connection.httpx
    original = connection.make_simple_http_retry_invoker

    def make() -> Any:
        invoker = original()
        gives_up = invoker.should_giveup
        invoker.should_giveup = lambda error: (
            not isinstance(error, httpx.TimeoutException) and gives_up(error)
        )
        return invoker

    connection.make_simple_http_retry_invoker = make
