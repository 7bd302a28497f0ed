"""A line of the ledger in plain words, for a data-protection officer."""

from client.egress.entry import RECOVERED, WITHOUT_CONTENT, Entry

UNITS = ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB"))


def words(entry: Entry) -> str:
    """Return one line that says when, for which run, and what left the building."""
    return f"{entry.n}. {entry.time[:19].replace('T', ' ')} UTC: {_what(entry)}"


def size_in_words(n_bytes: int) -> str:
    """Return a size for people."""
    for unit, name in UNITS:
        if n_bytes >= unit:
            return f"{n_bytes / unit:.1f} {name}"
    return f"{n_bytes} bytes"


def _what(entry: Entry) -> str:
    if entry.kind == RECOVERED:
        n_bytes = entry.torn.bytes if entry.torn else 0
        return f"a crash cut the line above short after {n_bytes} bytes; nothing was sent for it"
    where = f"run {entry.run}" if entry.run else "no run"
    if entry.method:
        where += f", {entry.method}"
    if entry.round is not None:
        where += f", round {entry.round}"
    if entry.error is not None:
        return f"{where}: {entry.kind} was not done; only the code {entry.error!r} left"
    weights = sum(sent.bytes for sent in entry.objects if sent.kind == WITHOUT_CONTENT)
    told = f"answer to {entry.kind}, {size_in_words(entry.bytes)}"
    return f"{where}: {told}" + (f", of which {size_in_words(weights)} are weights" * bool(weights))
