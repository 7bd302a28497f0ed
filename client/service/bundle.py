"""What a bundle from the coordinator may hold: words and configuration, no code.

A site runs the package that it installed and could read. Flower would unpack what the coordinator
sends and put it first on the path of imports; nothing is unpacked before it was looked at here.
"""

import io
import re
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any

CONFIGURATION, MANIFEST, WORDS = "pyproject.toml", ".info/CONTENT", "README.md"
COMPONENTS = {"serverapp": "server.app:app", "clientapp": "client.app:app"}
LARGEST_BUNDLE_BYTES = 10_485_760  # Flower's own limit, FAB_MAX_SIZE
LARGEST_FILE_BYTES = 4_194_304  # unpacked; Consilium's README takes 26 kB
LARGEST_COUNT = 100
PLAIN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]{0,99}")  # becomes the name of a folder


def defects(content: bytes) -> tuple[str, ...]:
    """Return why a bundle is refused; empty for one that is not.

    Args:
        content: of the bundle, a zip archive.
    """
    if len(content) > LARGEST_BUNDLE_BYTES:
        return (f"expected at most {LARGEST_BUNDLE_BYTES} bytes, found {len(content)}",)
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            listed = tuple(_of_members(archive.infolist()))
            return listed or tuple(_of_configuration(archive.read(CONFIGURATION)))
    except (zipfile.BadZipFile, KeyError, ValueError, OSError, RuntimeError, EOFError) as error:
        # NotImplementedError, a RuntimeError, is an unknown compression
        return (f"expected an archive with {CONFIGURATION}, found {type(error).__name__}",)


def _of_members(members: list[zipfile.ZipInfo]) -> Iterator[str]:
    names = [member.filename for member in members]
    if len(names) > LARGEST_COUNT or len(set(names)) != len(names):
        yield f"expected at most {LARGEST_COUNT} files, each once, found {len(names)}"
        return
    for member in members:
        if not _allowed(member.filename):
            yield f"expected no file but {WORDS} and {CONFIGURATION}, found {member.filename!r}"
        elif member.file_size > LARGEST_FILE_BYTES:
            yield f"{member.filename}: expected at most {LARGEST_FILE_BYTES} bytes unpacked"


def _allowed(name: str) -> bool:
    if name in {CONFIGURATION, MANIFEST}:
        return True
    parts = PurePosixPath(name).parts
    inside = not name.startswith("/") and all(PLAIN_NAME.fullmatch(part) for part in parts)
    return inside and "\\" not in name and bool(parts) and parts[-1] == WORDS


def _of_configuration(text: bytes) -> Iterator[str]:
    """Yield what is wrong with the components that the bundle names, and with its own name."""
    plain: Any = tomllib.loads(text.decode("utf-8"))
    try:
        app, project = plain["tool"]["flwr"]["app"], plain["project"]
        components = app["components"]
        named = {"publisher": app["publisher"], **{k: project[k] for k in ("name", "version")}}
    except (KeyError, TypeError):
        yield f"{CONFIGURATION}: expected project and tool.flwr.app with components"
        return
    if components != COMPONENTS:
        yield f"{CONFIGURATION}: components: expected {COMPONENTS}, found {components}"
    for key, value in named.items():
        if not isinstance(value, str) or not PLAIN_NAME.fullmatch(value):
            yield f"{CONFIGURATION}: {key}: expected letters, digits and . _ + -, found {value!r}"
