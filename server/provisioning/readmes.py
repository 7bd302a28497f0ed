"""The texts of kits for people, from the templates ``kit_*``; plain text, nothing is escaped.

Every value in them was checked before: names, addresses, numbers and one line of a contact.
"""

from datetime import datetime
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape


def rendered(template: str, **words: Any) -> bytes:
    """Return the text of a template."""
    environment = Environment(
        loader=PackageLoader("server", "templates"),
        autoescape=select_autoescape(),  # HTML only
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["day"] = _day
    return environment.get_template(template).render(**words).encode()


def _day(instant: str) -> str:
    return f"{datetime.fromisoformat(instant):%Y-%m-%d %H:%M} UTC"
