"""The site's log as a person reads it: what was asked, what was answered, what went wrong."""

import re
from collections.abc import Iterator
from pathlib import Path

LINE = re.compile(
    r"(?P<time>\d{4}-\d\d-\d\d \d\d:\d\d:\d\d),\d+ (?P<level>[A-Z]+) (?P<text>.*)", re.DOTALL
)
KIND = re.compile(r"(?P<kind>[a-z_.]+) (?P<what>received|answered|failed)")
REFUSED = re.compile(r"(?P<kind>[a-z_.]+) refused: (?P<why>.*)", re.DOTALL)
WORDS = {
    "query.keys": "make a key for a secure sum",
    "query.agree": "agree to the sites of a secure sum",
    "query.unmask": "take the masks off a secure sum",
    "query.measure": "describe the data",
    "query.prepare": "agree on the plan and prepare the cases",
    "query.first_stage": "predict with the cascade's first stage",
    "train": "train a round",
    "train.personalise": "train the final model for this site",
    "evaluate.validate": "validate the model",
    "evaluate.postprocess": "try steps after the network",
    "evaluate.test": "test the model",
    "evaluate.rank": "rank the tested models",
    "evaluate.floor": "measure the baseline without learning",
}
DONE = {"received": "working", "answered": "answered", "failed": "FAILED"}


def in_words(line: str) -> str | None:
    """Return a line of the log in words; None for the details of an error."""
    found = LINE.fullmatch(line)
    if found is None:
        return None
    text = found["text"]
    if kind := KIND.fullmatch(text):
        about = WORDS.get(kind["kind"], kind["kind"])
        text = f"{DONE[kind['what']]}: {about}"
        if kind["what"] == "failed":
            text += "; only a code was sent, the text stays here (consilium site log --full)"
    elif refused := REFUSED.fullmatch(text):
        about = WORDS.get(refused["kind"], refused["kind"])
        text = f"refused by this site's policy: {about}: {refused['why']}"
    elif found["level"] in {"WARNING", "ERROR"}:
        text = f"{found['level'].lower()}: {text}"
    return f"{found['time']}  {text}"


def last_lines(log: Path, n_lines: int, *, full: bool) -> list[str]:
    """Return the end of a log.

    Args:
        log: need not exist.
        n_lines: how many.
        full: whether as written, with the details of errors, which may name cases.
    """
    written = log.read_text(encoding="utf-8").splitlines() if log.exists() else []
    shown = written if full else [words for line in written if (words := in_words(line))]
    return shown[-n_lines:] if n_lines else []


class Follower:
    """Reads what is added to a log from now on."""

    def __init__(self, log: Path) -> None:
        """Begin at the end of the log, which need not exist yet."""
        self.log = log
        self.position = log.stat().st_size if log.exists() else 0
        self.rest = ""

    def new_lines(self) -> Iterator[str]:
        """Yield the whole lines that were added since the last call."""
        if not self.log.exists():
            return
        if self.log.stat().st_size < self.position:  # begun anew
            self.position, self.rest = 0, ""
        with self.log.open("rb") as file:
            file.seek(self.position)
            added = file.read()
        self.position += len(added)
        *whole, self.rest = (self.rest + added.decode("utf-8", "replace")).split("\n")
        yield from whole
