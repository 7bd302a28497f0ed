"""Run the command line and write every attempt to look up or reach an address to a file."""

import sys
from pathlib import Path

ATTEMPTS = Path(sys.argv.pop(1))
ATTEMPTS.write_text("")
WATCHED = ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto")


def record(event: str, arguments: tuple[object, ...]) -> None:
    if event in WATCHED:
        with ATTEMPTS.open("a") as file:
            file.write(f"{event} {arguments[-1]!r}\n")


sys.addaudithook(record)

import consilium  # noqa: E402 - after the watch began

consilium.main()
