"""The sum of the fingerprints that sites let out only masked; one site's is never seen here."""

from collections.abc import Mapping

from common.errors import MessageError
from common.messages import Measured, MeasureTask
from common.planning.fingerprint import Fingerprint, empty
from common.planning.fingerprint_grid import from_vector, n_words
from common.secure_sum import Roster
from common.task import Task
from server.event_log import EventLog
from server.secure.whole_sum import WholeSum, seen_only_as_sum
from server.sites import Answers, Reply, Sites


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
    names = tuple(sorted(members))

    def ask(roster: Roster) -> Answers[Measured]:
        return sites.measure_masked(MeasureTask(run=run, task=task, roster=roster), names)

    def check(answer: Reply[Measured]) -> None:
        if answer.value != members[answer.site]:
            raise MessageError(
                "the site describes itself differently than before; did data change?"
            )

    wanted = WholeSum(
        purpose="counts",
        what="the fingerprints",
        names=names,
        n_words=n_words(task.channels),
        ask=ask,
        check=check,
        read=lambda total: from_vector(total, empty(task)),
        hints=_too_few(members),
    )
    return seen_only_as_sum(sites, wanted, run, log)


def _too_few(members: Mapping[str, Measured]) -> list[str]:
    """Return which sites want more company; they said so when they joined."""
    return [
        f"{site} asks for at least {value.secure_sum.min_sites} sites with secure-sum, found "
        f"{len(members)}: {', '.join(sorted(members))}"
        for site, value in sorted(members.items())
        if value.secure_sum is not None and value.secure_sum.min_sites > len(members)
    ]
