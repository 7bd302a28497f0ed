"""The papers that a report's methods cite, and their numbers in the order of the text.

A citation is a key between two characters that Unicode keeps for private use, so that it passes
through joining and escaping; `numbered` makes it the number of the paper in the list.
"""

import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from importlib import resources

OPEN, CLOSE = "\ue003", "\ue004"
_CITED = re.compile(f"{OPEN}([^{CLOSE}]*){CLOSE}")


@cache
def references() -> Mapping[str, str]:
    """Return all papers by key, as a list of references prints them."""
    text = resources.files("server.reporting").joinpath("references.toml").read_text("utf-8")
    return tomllib.loads(text)


def cite(*keys: str) -> str:
    """Return a citation of papers, ready to stand in a sentence.

    Raises:
        KeyError: for a paper that is not in the list.
    """
    return "".join(f"{OPEN}{key}{CLOSE}" for key in keys if references()[key])


def cited_in(texts: Iterable[str]) -> tuple[str, ...]:
    """Return the keys of the papers that texts cite, each once, in their order."""
    return tuple(dict.fromkeys(key for text in texts for key in _CITED.findall(text)))


def numbered(page: str, keys: Sequence[str], form: str = "{}") -> str:
    """Return a page whose citations are numbers in a list of these keys: [1], or [1, 2].

    Args:
        page: text with citations.
        keys: of all papers that it cites.
        form: of a number, for example a link to its place in the list.
    """
    places = {key: form.format(place) for place, key in enumerate(keys, start=1)}

    def group(found: re.Match[str]) -> str:
        return "[" + ", ".join(places[key] for key in _CITED.findall(found.group())) + "]"

    return re.sub(f"(?:{_CITED.pattern})+", group, page)
