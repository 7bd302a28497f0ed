"""Flower's SuperLink with a hello in front, as the coordinator's gate gives it.

Run as `python link_with_hello.py ANSWER.json [arguments of flower-superlink]`. The answer file
holds status and body for every request; while its status is 200, all but hello passes.
"""

import json
import sys
from datetime import UTC, datetime
from pathlib import Path

from starlette.middleware import Middleware
from starlette.responses import JSONResponse

ANSWER = Path(sys.argv.pop(1))


class Hello:
    def __init__(self, app):
        self.app = app

    async def __call__(self, scope, receive, send):
        status, body = json.loads(ANSWER.read_text())
        if scope["type"] != "http" or (status == 200 and scope["path"] != "/consilium/hello"):
            await self.app(scope, receive, send)
            return
        if status == 200:
            body["time"] = datetime.now(UTC).isoformat(timespec="seconds")
        await JSONResponse(body, status)(scope, receive, send)


if __name__ == "__main__":
    from flwr.superlink import extensions

    extensions.get_middleware = lambda: (Middleware(Hello),)
    from flwr.superlink.cli.flower_superlink import flower_superlink

    flower_superlink()
