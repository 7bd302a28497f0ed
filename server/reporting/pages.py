"""How templates become pages: the filters for numbers, and the escaping of names and notes."""

import re
from collections.abc import Callable
from datetime import UTC
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from server.reporting.ranking_plots import places_text
from server.reporting.report_data import method_label
from server.reporting.report_words import bytes_text, decimals, duration_text, upwards
from server.reporting.sources import sourced, where


def environment(finalize: Callable[[Any], Any] | None = None) -> Environment:
    """Return the templates' environment; every value is escaped, by `finalize` or for HTML."""
    environment = Environment(
        loader=PackageLoader("server", "templates"),
        autoescape=True,
        finalize=finalize,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        dice=lambda value: decimals(value, 3),
        regions=lambda found: ", ".join(f"{name} {decimals(v, 3)}" for name, v in found.items()),
        mm=lambda value: decimals(value, 1),
        p=lambda value: f"{value:.3g}",
        label=method_label,
        bytes=bytes_text,
        duration=duration_text,
        percent=lambda value: f"{value:.0%}",
        places=places_text,
        times=lambda values: " \u00d7 ".join(f"{value:g}" for value in values),
        url=lambda value: Markup(quote(value)),  # noqa: S704 - quoted
        indented=_indented,
        upwards=upwards,
        clock=lambda time: time.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S"),
        src=lambda value, source, **fields: sourced(value, where(source, **fields)),
    )
    return environment


def markdown_text(value: Any) -> Any:
    """Escape what Markdown or HTML would take for markup; a line end would end a table's row."""
    if isinstance(value, Markup):
        return value
    text = re.sub(r"([\\`*_\[\]<>|~#&$])", r"\\\1", " ".join(str(value).splitlines()))
    return Markup(text)  # noqa: S704 - escaped above


def _indented(text: str) -> Markup:
    """Return a code block: four spaces before each line, within which nothing is markup."""
    return Markup("\n".join(f"    {line}" for line in text.splitlines()))  # noqa: S704 - code block
