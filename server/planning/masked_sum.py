"""The sum of the fingerprints that sites let out only masked; one site's is never seen here.

Keys first, then the masked counts; when any site fails, all begin again with new keys, because
without every mask there is no sum. What cannot change by asking again is not asked again: a site
whose policy says no, and counts that do not add up.
"""

from collections.abc import Mapping

import numpy as np

from common.errors import FederationError, MessageError
from common.messages import KeysTask, Measured, MeasureTask
from common.planning.fingerprint import Fingerprint, empty
from common.planning.fingerprint_grid import from_vector, n_words
from common.secure_sum import MaskKey, Roster, Words, added, new_nonce
from common.task import Task
from server.events import EventLog, Note
from server.sites import Answers, Failure, Reply, Sites

ATTEMPTS = 3


def secure_fingerprint(
    sites: Sites, members: Mapping[str, Measured], task: Task, run: str, log: EventLog
) -> Fingerprint:
    """Return the fingerprint of all members together.

    Args:
        sites: how they are reached.
        members: what the training sites with masked fingerprints said of themselves.
        task: what all of them measured.
        run: name of the run.
        log: gets a note for every attempt.

    Raises:
        FederationError: when a member refuses, when all attempts failed, or when the counts do
            not add up.
    """
    for attempt in range(1, ATTEMPTS + 1):
        result = _attempt(sites, members, task, run)
        if not isinstance(result, list):
            return _opened(result, members, task, log)
        lines = [f"{failure.site}: {failure.code} ({failure.reason})" for failure in result]
        if any(failure.code.startswith("policy") for failure in result):
            raise FederationError("\n".join([*_could_not(lines), *_too_few(members)]))
        log.append(Note(text=f"secure sum, attempt {attempt}: {'; '.join(lines)}"))
    raise FederationError("\n".join(_could_not(lines)))


def _attempt(
    sites: Sites, members: Mapping[str, Measured], task: Task, run: str
) -> Words | list[Failure]:
    """Return the sum of all masked vectors, or why there is none."""
    names, nonce = tuple(sorted(members)), new_nonce()
    answers = list(sites.keys(KeysTask(run=run, nonce=nonce, sites=names), names))
    keys = [answer.value for answer in map(_checked_key, answers) if isinstance(answer, Reply)]
    if len(keys) < len(names):
        return [answer for answer in map(_checked_key, answers) if isinstance(answer, Failure)]
    roster = Roster(nonce=nonce, keys=tuple(sorted(keys, key=lambda key: key.site)))
    asked = MeasureTask(run=run, task=task, roster=roster)
    return _summed(sites.measure_masked(asked, names), members, n_words(task.channels))


def _summed(
    answers: Answers[Measured], members: Mapping[str, Measured], size: int
) -> Words | list[Failure]:
    """Add masked vectors as they arrive; one is in memory beside the sum."""
    total, failures = added((), size), []
    for answer in answers:
        if isinstance(answer, Failure):
            failures.append(answer)
            continue
        try:
            total = added((total, _vector(answer, members[answer.site], size)), size)
        except MessageError as error:
            failures.append(Failure(answer.site, "message", str(error)))
    return failures or total


def _opened(
    total: Words, members: Mapping[str, Measured], task: Task, log: EventLog
) -> Fingerprint:
    names = ", ".join(sorted(members))
    try:
        fingerprint = from_vector(total, empty(task))
    except MessageError as error:
        raise FederationError(
            f"secure sum of {names}: {error}; expected masks that cancel: a site masked for "
            "another roster, or sent something else than its counts"
        ) from None
    log.append(Note(text=f"the fingerprints of {names} were seen only as their sum"))
    return fingerprint


def _vector(answer: Reply[Measured], before: Measured, size: int) -> Words:
    if answer.value != before:
        raise MessageError("the site describes itself differently than before; did data change?")
    weights = answer.weights or {}
    vector = next(iter(weights.values()), np.empty(0, np.int64))
    if len(weights) != 1 or vector.dtype != np.int64 or vector.shape != (size,):
        raise MessageError(f"counts: expected one vector of {size} words")
    return vector.view(np.uint64)


def _checked_key(answer: Reply[MaskKey] | Failure) -> Reply[MaskKey] | Failure:
    if isinstance(answer, Reply) and answer.value.site != answer.site:
        return Failure(answer.site, "message", f"expected its own key, found {answer.value.site}'s")
    return answer


def _could_not(lines: list[str]) -> list[str]:
    return ["secure sum: the fingerprints could not be added unseen", *lines]


def _too_few(members: Mapping[str, Measured]) -> list[str]:
    """Return which sites want more company; they said so when they joined."""
    return [
        f"{site} asks for at least {value.secure_sum.min_sites} sites with secure-sum, found "
        f"{len(members)}: {', '.join(sorted(members))}"
        for site, value in sorted(members.items())
        if value.secure_sum is not None and value.secure_sum.min_sites > len(members)
    ]
