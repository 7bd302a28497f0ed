"""What a run cost the patients, in the words of a report."""

from collections.abc import Sequence
from dataclasses import dataclass

from common.privacy.mechanism import Spent
from server.events import SiteTrained

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


def privacy_section(trained: Sequence[SiteTrained]) -> PrivacySection:
    """Return what a report says of privacy; without a cost where there was none."""
    last: dict[str, Spent] = {}
    for event in trained:
        known = last.get(event.site)
        if event.spent is not None and (known is None or event.spent.epsilon > known.epsilon):
            last[event.site] = event.spent
    if not last:
        return PrivacySection("This run was trained without differential privacy.", "", ())
    most = max(last.values(), key=lambda spent: spent.epsilon)
    sentence = (
        f"This run has cost every patient at most epsilon {most.epsilon:.2f} at delta "
        f"{most.delta:g}, as the sites' own ledgers say."
    )
    if any(event.spent is None for event in trained):
        sentence = "Some updates of this run had no differential privacy: no epsilon holds for it."
    costs = tuple(SiteCost(site, spent) for site, spent in sorted(last.items()))
    return PrivacySection(sentence, MEANING, costs)
