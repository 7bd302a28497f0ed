"""Sites where a person decides whether to take part: asked, and asked again until one has."""

from collections.abc import Sequence

from common.messages import Prepared, PrepareTask
from server.event_log import EventLog
from server.events import ApprovalAwaited
from server.mailbox import Clock
from server.sites import Answers, Failure, Sites

AWAITED = "policy:approval"
ASK_AGAIN_S = 60.0


def answers_of_people(
    sites: Sites,
    terms: PrepareTask,
    names: Sequence[str],
    log: EventLog,
    timeout_s: float,
    clock: Clock,
) -> Answers[Prepared]:
    """Ask sites to agree, and those again where a person has to approve it first.

    Args:
        sites: how they are reached.
        terms: what is asked.
        names: who is asked.
        log: says once of every site that it waits.
        timeout_s: until when people are waited for.
        clock: that this is measured by.

    Yields:
        One answer per site; a failure where nobody approved in time.
    """
    deadline, waiting, told = clock.monotonic() + timeout_s, list(names), set[str]()
    while True:
        asked, waiting, began = waiting, [], clock.monotonic()
        for answer in sites.prepare(terms, asked):
            if not isinstance(answer, Failure) or answer.code != AWAITED:
                yield answer
                continue
            waiting.append(answer.site)
            if answer.site not in told:
                told.add(answer.site)
                log.append(ApprovalAwaited(site=answer.site))
        if not waiting or began >= deadline:
            break
        clock.sleep(max(0.0, min(ASK_AGAIN_S, deadline - clock.monotonic())))
    for site in waiting:
        reason = f"nobody at {site} approved the run within {timeout_s:.0f} s"
        yield Failure(site, AWAITED, reason)
