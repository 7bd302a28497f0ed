"""A sum to which every site that masks answers; what a single one adds is never seen here.

Keys first, then masked vectors; when any site fails, all begin again with new keys, because
without every mask there is no sum. What cannot change by asking again is not asked again: a site
whose policy says no, and numbers that do not add up.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

import numpy as np

from common.errors import FederationError, MessageError
from common.messages import KeysTask
from common.secure_sum import MaskKey, Roster, Words, added, new_nonce
from server.event_log import EventLog
from server.events import Note
from server.sites import Answers, Failure, Reply, Sites

T = TypeVar("T")
R = TypeVar("R")
ATTEMPTS = 3


@dataclass(frozen=True)
class WholeSum(Generic[T, R]):
    """What is added, by whom, and how it is asked for and read."""

    purpose: Literal["counts", "metrics"]
    what: str
    """Is added, in words: "the fingerprints"."""
    names: tuple[str, ...]
    """Of all sites that mask together, sorted."""
    n_words: int
    """Length of everyone's vector."""
    ask: Callable[[Roster], Answers[T]]
    """Asks all of them for their masked vectors."""
    check: Callable[[Reply[T]], None]
    """Raises a `MessageError` for an answer that does not fit."""
    read: Callable[[Words], R]
    """Reads the sum; a `MessageError` says that it cannot be one."""
    hints: Sequence[str] = ()
    """Further lines where a site's policy says no."""


def seen_only_as_sum(sites: Sites, wanted: WholeSum[T, R], run: str, log: EventLog) -> R:
    """Return what all sites' vectors add up to.

    Args:
        sites: how they are reached.
        wanted: what is added.
        run: name of the run.
        log: gets a note for every attempt.

    Raises:
        FederationError: when a site refuses, when all attempts failed, or when the numbers do not
            add up.
    """
    for attempt in range(1, ATTEMPTS + 1):
        result = _attempt(sites, wanted, run)
        if not isinstance(result, list):
            return _opened(result, wanted, log)
        lines = [f"{failure.site}: {failure.code} ({failure.reason})" for failure in result]
        if any(failure.code.startswith("policy") for failure in result):
            raise FederationError("\n".join([_could_not(wanted), *lines, *wanted.hints]))
        log.append(Note(text=f"secure sum, attempt {attempt}: {'; '.join(lines)}"))
    raise FederationError("\n".join([_could_not(wanted), *lines]))


def _attempt(sites: Sites, wanted: WholeSum[T, R], run: str) -> Words | list[Failure]:
    """Return the sum of all masked vectors, or why there is none."""
    names, nonce = wanted.names, new_nonce()
    asked = KeysTask(run=run, nonce=nonce, sites=names, purpose=wanted.purpose)
    answers = [checked_key(answer) for answer in sites.keys(asked, names)]
    keys = [answer.value for answer in answers if isinstance(answer, Reply)]
    if len(keys) < len(names):
        return [answer for answer in answers if isinstance(answer, Failure)]
    roster = Roster(nonce=nonce, keys=tuple(sorted(keys, key=lambda key: key.site)))
    return _summed(wanted.ask(roster), wanted)


def _summed(answers: Answers[T], wanted: WholeSum[T, R]) -> Words | list[Failure]:
    """Add masked vectors as they arrive; one is in memory beside the sum."""
    total, failures = added((), wanted.n_words), []
    for answer in answers:
        if isinstance(answer, Failure):
            failures.append(answer)
            continue
        try:
            wanted.check(answer)
            total = added((total, _vector(answer, wanted)), wanted.n_words)
        except MessageError as error:
            failures.append(Failure(answer.site, "message", str(error)))
    return failures or total


def _opened(total: Words, wanted: WholeSum[T, R], log: EventLog) -> R:
    names = ", ".join(wanted.names)
    try:
        result = wanted.read(total)
    except MessageError as error:
        raise FederationError(
            f"secure sum of {names}: {error}; expected masks that cancel: a site masked for "
            f"another roster or question, or sent something else than its {wanted.purpose}"
        ) from None
    log.append(Note(text=f"{wanted.what} of {names} were seen only as their sum"))
    return result


def _vector(answer: Reply[T], wanted: WholeSum[T, R]) -> Words:
    weights = answer.weights or {}
    vector = next(iter(weights.values()), np.empty(0, np.int64))
    if len(weights) != 1 or vector.dtype != np.int64 or vector.shape != (wanted.n_words,):
        raise MessageError(f"{wanted.purpose}: expected one vector of {wanted.n_words} words")
    return vector.view(np.uint64)


def checked_key(answer: Reply[MaskKey] | Failure) -> Reply[MaskKey] | Failure:
    """Turn a key in another site's name into a failure."""
    if isinstance(answer, Reply) and answer.value.site != answer.site:
        return Failure(answer.site, "message", f"expected its own key, found {answer.value.site}'s")
    return answer


def _could_not(wanted: WholeSum[T, R]) -> str:
    return f"secure sum: {wanted.what} could not be added unseen"
