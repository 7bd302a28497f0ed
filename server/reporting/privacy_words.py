"""What a run cost the patients, in the words of a report."""

from collections.abc import Sequence
from dataclasses import dataclass

from common.privacy.mechanism import Spent
from common.privacy.settings import PatientPrivacy
from server.events import SiteMasked, SitePrivacySpent, SiteTrained
from server.reporting.report_words import upwards
from server.reporting.sources import sourced

SPENT = "SiteTrained|SiteMasked.spent"

MEANING = (
    "Differential privacy of the patients of training sites: whoever sees all weights that a site "
    "sent in this run is at most exp(epsilon) times likelier to believe that a given patient's "
    "images were used than that they were not, apart from a failure of probability delta. It "
    "covers the weights only: counts, validation Dice and tests have no noise."
)


@dataclass(frozen=True)
class SiteCost:
    """What the run cost the patients of one site, all methods together."""

    site: str
    spent: Spent


@dataclass(frozen=True)
class PrivacySection:
    """The privacy of a run."""

    sentence: str
    meaning: str
    costs: tuple[SiteCost, ...]
    site_level: str = ""
    """The promise to whole sites; empty if there is none."""


def site_level_words(spent: Sequence[SitePrivacySpent]) -> str:
    """Return what a report says of noise at the coordinator."""
    if not spent:
        return ""
    last = max(spent, key=lambda event: event.epsilon)
    epsilon = sourced(
        upwards(last.epsilon, 2), "events.jsonl: max rounded up of SitePrivacySpent.epsilon"
    )
    delta = sourced(f"{last.delta:g}", "events.jsonl: last of SitePrivacySpent.delta")
    warning = sourced(last.warning, "events.jsonl: last of SitePrivacySpent.warning")
    return (
        f"Site-level differential privacy (noise at the coordinator; the unit is a site, not a "
        f"patient): epsilon {epsilon} at delta {delta} against those who see the models."
        + (f" {warning}" if last.warning else "")
    )


def privacy_section(
    answers: Sequence[SiteTrained | SiteMasked],
    at_coordinator: Sequence[SitePrivacySpent] = (),
    promised: PatientPrivacy | None = None,
) -> PrivacySection:
    """Return what a report says of privacy; without a cost where there was none.

    Args:
        answers: the sites' updates, masked or not.
        at_coordinator: what noise there has cost the sites.
        promised: what the run's configuration promises to patients.
    """
    words = site_level_words(at_coordinator)
    last: dict[str, Spent] = {}
    for event in answers:
        known = last.get(event.site)
        if event.spent is not None and (known is None or event.spent.epsilon > known.epsilon):
            last[event.site] = event.spent
    if not last:
        return PrivacySection(_without_cost(promised), "", (), words)
    most = max(last.values(), key=lambda spent: spent.epsilon)
    epsilon = sourced(upwards(most.epsilon, 2), f"events.jsonl: max rounded up of {SPENT}.epsilon")
    delta = sourced(f"{most.delta:g}", f"events.jsonl: max of {SPENT}.delta")
    sentence = (
        f"This run has cost every patient at most epsilon {epsilon} at delta {delta}, as the "
        "sites' own ledgers say."
    )
    if any(event.spent is None for event in answers):
        sentence = "Some updates of this run had no differential privacy: no epsilon holds for it."
    costs = tuple(SiteCost(site, spent) for site, spent in sorted(last.items()))
    return PrivacySection(sentence, MEANING, costs, words)


def _without_cost(promised: PatientPrivacy | None) -> str:
    if promised is None:
        return "This run was trained without differential privacy of patients."
    return (
        "The configuration promises differential privacy of patients, but the log does not say "
        "what it has cost; the sites' own ledgers do."
    )
