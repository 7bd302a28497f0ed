"""What the coordinator saw of the sites in a run, and what protected it, line by line.

The lines follow from the run's own events, not from what a policy would have allowed: a number
that no event holds was not seen.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from server.events import SiteJoined, SiteMasked, SiteTrained, SumLost
from server.reporting.methods.told import listed, plural
from server.reporting.report_data import ReportData
from server.reporting.sources import sourced, where

NOT_PRIVATE = (
    "Not protected by any mechanism, because it has no noise and is no part of a sum: which sites "
    "took part, how long each training took, and that a site failed or was late."
)


@dataclass(frozen=True)
class Seen:
    """One thing about a site, and how much of it the coordinator saw."""

    what: str
    how: str


def what_was_seen(data: ReportData) -> tuple[Seen, ...]:
    """Return what left the sites in this run, in plain words and numbers."""
    training = [site for site in data.sites if site.role == "training"]
    return (
        Seen("Images, labels, names of cases and files", "never"),
        Seen("Data set before planning", _fingerprints(data)),
        Seen("Number of cases of a training site", _counts(training)),
        Seen("Weights after a site's training", _weights(data)),
        Seen("Mean training loss", _losses(data)),
        Seen("Mean Dice on a site's validation cases", _validation(data)),
        Seen("What training has cost a site's patients (epsilon)", _spent(data)),
        *(_held_out(data, site) for site in data.held_out_sites),
        Seen("Pictures of held-out cases", _pictures(data)),
    )


def secure_words(data: ReportData) -> str:
    """Return whether the coordinator saw single updates or only sums, in a sentence."""
    if not data.masked:
        if not data.trained:
            return ""
        return (
            "There was no secure aggregation: the coordinator saw every site's update, and could "
            "keep it."
        )
    n_opened = sourced(len(data.sums), "events.jsonl: count of SumOpened.round")
    lost = {(e.method, e.round) for e in data.log.events if isinstance(e, SumLost)}
    n_lost = sourced(len(lost), "events.jsonl: count of SumLost.reason")
    return (
        "Secure aggregation: of each round the coordinator saw one sum of its sites' masked "
        f"updates, {n_opened} in all, and {n_lost} could not be opened. A site's own masked update "
        "is as good as random to whoever lacks the help of more than two thirds of the sites. Two "
        "rounds whose sites differ by one tell about that one."
    )


def not_private(data: ReportData) -> str:
    """Return what had no protection in this run, in sentences."""
    bare = []
    if any(event.loss is not None for event in data.trained):
        bare.append("training losses")
    if data.validated or any(event.dice for event in data.sums):
        bare.append("validation Dice")
    if any(site.n_cases is not None for site in data.sites):
        bare.append("numbers of cases")
    if data.held_out_sites:
        bare.append("what held-out sites released")
    exact = f"Exact, without noise: {listed(bare)}. " if bare else ""
    return exact + NOT_PRIVATE


def _fingerprints(data: ReportData) -> str:
    if data.cohort is None:
        return "not told in the run directory"
    if data.cohort.secure_sum is not None:
        n = sourced(data.cohort.secure_sum.n_cases, "cohort.json: secure_sum.n_cases")
        return f"counts of shapes and spacings of {n} cases only as a sum over sites"
    return "counts of shapes, spacings and extents per site; the run directory keeps their sum"


def _counts(training: Sequence[SiteJoined]) -> str:
    told = sum(site.n_cases is not None for site in training)
    source = where("events.jsonl: count of SiteJoined.n_cases", role="training")
    all_of = sourced(told, source)
    n_sites = sourced(
        len(training), where("events.jsonl: count of SiteJoined.site", role="training")
    )
    return f"exact, of {all_of} of {n_sites} sites"


def _weights(data: ReportData) -> str:
    parts = []
    noise = ""
    if data.config is not None and data.config.privacy is not None:
        noise = " with noise for patient-level privacy"
    if data.trained:
        n = sourced(len(data.trained), "events.jsonl: count of SiteTrained.site")
        parts.append(
            f"{n} {plural(len(data.trained), 'update')} of single sites, {noise.strip() or 'exact'}"
        )
    if data.sums:
        n = sourced(len(data.sums), "events.jsonl: count of SumOpened.round")
        fewest = min(len(event.sites) for event in data.sums)
        of = sourced(fewest, "events.jsonl: shortest of SumOpened.sites")
        parts.append(
            f"only {n} {plural(len(data.sums), 'sum')}, each of at least {of} sites{noise}; of a "
            "site random bytes"
        )
    return "; ".join(parts) or "none yet"


def _losses(data: ReportData) -> str:
    single = sum(event.loss is not None for event in data.trained)
    summed = sum(event.loss is not None for event in data.sums)
    if single:
        n = sourced(single, "events.jsonl: count of SiteTrained.loss")
        return f"exact, {n} {plural(single, 'value')}"
    if summed:
        n = sourced(summed, "events.jsonl: count of SumOpened.loss")
        return f"only of sums, {n} {plural(summed, 'value')}"
    return "not sent"


def _validation(data: ReportData) -> str:
    if data.validated:
        n = sourced(len(data.validated), "events.jsonl: count of SiteValidated.site")
        return f"exact, {n} {plural(len(data.validated), 'time')}; it has no noise"
    summed = sum(event.dice is not None for event in data.sums)
    if summed:
        n = sourced(summed, "events.jsonl: count of SumOpened.dice")
        return f"only as a mean over sites, {n} {plural(summed, 'time')}; it has no noise"
    return "not sent"


def _spent(data: ReportData) -> str:
    if data.config is None or data.config.privacy is None:
        return "no such privacy in this run"
    answers: list[SiteTrained | SiteMasked] = [*data.trained, *data.masked]
    told = [event for event in answers if event.spent is not None]
    if not told:
        return "not told in the log"
    n = sourced(len(told), "events.jsonl: count of SiteTrained|SiteMasked.spent")
    return f"with every update, {n} {plural(len(told), 'time')} (table above)"


def _held_out(data: ReportData, site: str) -> Seen:
    words = {
        "cases": "Dice, HD95, sensitivity and specificity of every numbered case",
        "aggregates": "sums of ranks, and means and quartiles over its cases",
        "ranks": "sums of ranks only",
        "secure-sum": "only their sum with other sites', its number of cases included",
    }
    return Seen(f"Metrics of cases at {site}", words[data.release_of(site)])


def _pictures(data: ReportData) -> str:
    if not data.pictures:
        return "none"
    n = sourced(len(data.pictures), "events.jsonl: count of PictureReleased.file")
    return f"{n} overlay {plural(len(data.pictures), 'picture')} without text"
