"""Who is asked in a round: the method's choice, less sites that were given up or are still busy.

Everything follows from the configuration and the run's own events, so that a resumed run asks
the same sites.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

from common.errors import FederationError
from common.federation import FEWEST, Federation
from common.messages import TrainTask
from common.random import step_rng
from server.event_log import EventLog, read_events
from server.events import SiteExcluded, SiteFailed, SiteMasked, SiteTrained
from server.planning.cohort import Cohort
from server.strategies import Strategy

Answered: TypeAlias = SiteFailed | SiteTrained | SiteMasked
"""What a site made of a round."""


@dataclass(frozen=True)
class Outcome:
    """What came of asking: names of sites, filled while the answers arrive."""

    accepted: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    """Whose updates did not pass the checks; a site that is only late or silent is not here."""


def sites_of_round(
    strategy: Strategy,
    federation: Federation,
    cohort: Cohort,
    events: Path,
    busy: Mapping[str, TrainTask],
    round_: int,
) -> tuple[str, ...]:
    """Return the sites that are asked to train, in name order.

    Args:
        strategy: the method.
        federation: of the run's configuration.
        cohort: the sites of the run.
        events: the run's log.
        busy: what sites still work on after a deadline.
        round_: from 1.
    """
    left = left_in_run(cohort, events)
    asked = strategy.participants(round_, federation.rounds, left) if left else ()
    wanted = federation.sites_per_round
    if wanted is not None and wanted < len(asked):
        rng = step_rng(federation.seed, "coordinator", round_, 0, "sites")
        drawn = [asked[index] for index in rng.permutation(len(asked))]
        first = [site for site in drawn if site in strategy.required]
        asked = [*first, *(site for site in drawn if site not in strategy.required)][:wanted]
    useful = {
        site
        for site, task in busy.items()
        if task.method == strategy.name and 0 < round_ - task.round <= federation.late_rounds
    }
    return tuple(sorted(set(asked) - useful))


def left_in_run(cohort: Cohort, events: Path) -> tuple[str, ...]:
    """Return the training sites that were not excluded, in name order."""
    excluded = {event.site for _, event in read_events(events) if isinstance(event, SiteExcluded)}
    return tuple(site for site in cohort.training if site not in excluded)


def exclude_failing(limit: int | None, cohort: Cohort, log: EventLog, events: Path) -> None:
    """Give up the sites that failed in so many rounds one after the other, with the reason."""
    if limit is None:
        return
    outcomes = [e for _, e in read_events(events) if isinstance(e, Answered)]
    for site in left_in_run(cohort, events):
        failed = _failed_in_a_row([event for event in outcomes if event.site == site])
        if len(failed) >= limit:
            last = failed[-1]
            reason = f"failed in {len(failed)} rounds in a row, at last: {last.code}"
            log.append(SiteExcluded(site=site, method=last.method, round=last.round, reason=reason))


def require_quorum(
    strategy: Strategy,
    federation: Federation,
    cohort: Cohort,
    asked: Sequence[str],
    outcome: Outcome,
    round_: int,
    where: str,
) -> None:
    """Demand good updates of enough sites, and of sites with enough of the cases.

    To a method that withstands faulty sites a refused update is one of them, found out; up to as
    many as it withstands stand for themselves.

    Args:
        strategy: the method; a round without its required sites does not count.
        federation: of the run's configuration.
        cohort: the sites of the run.
        asked: sites that could have answered.
        outcome: of the round.
        round_: from 1.
        where: method, round and log, for the message.

    Raises:
        FederationError: when it is not reached.
    """
    accepted = outcome.accepted
    meant = strategy.participants(round_, federation.rounds, tuple(cohort.training))
    needed = min(federation.min_sites, len(meant))  # sites that were given up are still missed
    if strategy.name in FEWEST:
        needed = max(1, needed - min(len(set(outcome.refused)), federation.n_faulty or 0))
    if len(accepted) < needed:
        raise FederationError(
            f"{where}: expected good updates of at least {needed} sites, found {len(accepted)}"
        )
    if absent := sorted(set(strategy.required) - set(accepted)):
        raise FederationError(f"{where}: expected a good update of {', '.join(absent)}, found none")
    if federation.min_case_share is None:
        return
    missed = asked if federation.sites_per_round is not None else meant
    n_cases = {site: cohort.most_cases(site) for site in {*missed, *accepted}}
    share = sum(n_cases[site] for site in accepted) / sum(n_cases.values())
    if share < federation.min_case_share:
        raise FederationError(
            f"{where}: expected good updates of sites with at least "
            f"{federation.min_case_share:.0%} of the cases, found {share:.0%}"
        )


def _failed_in_a_row(happened: Sequence[Answered]) -> list[SiteFailed]:
    """Return a site's failures since its last good update, from its events.

    A round that was repeated counts by its last outcome.
    """
    outcomes: dict[tuple[str, int], Answered] = {}
    for event in happened:
        outcomes.pop((event.method, event.round), None)
        outcomes[event.method, event.round] = event
    failed: list[SiteFailed] = []
    for event in outcomes.values():
        failed = [*failed, event] if isinstance(event, SiteFailed) else []
    return failed
