"""What a run cost the patients, in the words of a report."""

from collections.abc import Sequence
from dataclasses import dataclass

from common.privacy.mechanism import Spent
from server.events import SitePrivacySpent, SiteTrained

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
    return (
        f"Site-level differential privacy (noise at the coordinator; the unit is a site, not a "
        f"patient): epsilon {last.epsilon:.2f} at delta {last.delta:g} against those who see the "
        f"models. {last.warning}".rstrip()
    )


def privacy_section(
    trained: Sequence[SiteTrained], at_coordinator: Sequence[SitePrivacySpent] = ()
) -> PrivacySection:
    """Return what a report says of privacy; without a cost where there was none."""
    words = site_level_words(at_coordinator)
    last: dict[str, Spent] = {}
    for event in trained:
        known = last.get(event.site)
        if event.spent is not None and (known is None or event.spent.epsilon > known.epsilon):
            last[event.site] = event.spent
    if not last:
        text = "This run was trained without differential privacy of patients."
        return PrivacySection(text, "", (), words)
    most = max(last.values(), key=lambda spent: spent.epsilon)
    sentence = (
        f"This run has cost every patient at most epsilon {most.epsilon:.2f} at delta "
        f"{most.delta:g}, as the sites' own ledgers say."
    )
    if any(event.spent is None for event in trained):
        sentence = "Some updates of this run had no differential privacy: no epsilon holds for it."
    costs = tuple(SiteCost(site, spent) for site, spent in sorted(last.items()))
    return PrivacySection(sentence, MEANING, costs, words)
