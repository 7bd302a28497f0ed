"""The costs of a run as tables of texts, each number with its source, and what cannot be said."""

from dataclasses import dataclass

from server.reporting.costs import (
    SiteCost,
    phases,
    round_costs,
    site_costs,
    total,
    trained_in_turn,
)
from server.reporting.report_data import ReportData, method_label
from server.reporting.report_words import bytes_text, duration_text
from server.reporting.sources import sourced, where

ANSWERS = "SiteTrained|SiteMasked"
IN_TURN = (
    "Overhead is the share of the rounds’ time in which no site trained: transport, checks, masks, "  # noqa: RUF001 - as printed
    "aggregation. The sites of this simulation trained one after another, so that training is the "
    "sum over sites."
)
AT_ONCE = (
    "Overhead is the share of the rounds’ time in which not even the slowest site trained: "  # noqa: RUF001 - as printed
    "transport, waiting, checks, masks, aggregation."
)


@dataclass(frozen=True)
class PhaseRow:
    """One line of the time per phase."""

    name: str
    time: str


@dataclass(frozen=True)
class SiteRow:
    """One line of the costs per site."""

    site: str
    updates: str
    training: str
    uploaded: str
    downloaded: str


@dataclass(frozen=True)
class RoundRow:
    """One line of the rounds per method."""

    method: str
    n_rounds: str
    time: str
    training: str
    overhead: str


@dataclass(frozen=True)
class CostsSection:
    """What a report says of costs."""

    phases: tuple[PhaseRow, ...]
    sites: tuple[SiteRow, ...]
    rounds: tuple[RoundRow, ...]
    overhead_words: str
    energy_words: str


def costs_section(data: ReportData) -> CostsSection:
    """Return the costs of a run as texts."""
    sites = site_costs(data)
    rows = tuple(_site_row(row) for row in sites)
    if len(sites) > 1:
        rows = (*rows, _site_row(total(sites), everyone=True))
    return CostsSection(
        phases=tuple(_phase_rows(data)),
        sites=rows,
        rounds=tuple(_round_rows(data)),
        overhead_words=IN_TURN if trained_in_turn(data) else AT_ONCE,
        energy_words=_energy(sites),
    )


def _phase_rows(data: ReportData) -> list[PhaseRow]:
    found = phases(data.log.timed)
    rows = [
        PhaseRow(
            phase.name,
            sourced(duration_text(phase.seconds), f"events.jsonl: seconds up to {phase.name}"),
        )
        for phase in found
    ]
    if rows:
        seconds = sum(phase.seconds for phase in found)
        rows.append(
            PhaseRow("All", sourced(duration_text(seconds), "events.jsonl: seconds up to all"))
        )
    return rows


def _site_row(cost: SiteCost, *, everyone: bool = False) -> SiteRow:
    site = None if everyone else cost.site

    def of(text: str, how: str, field: str, kinds: str = ANSWERS) -> str:
        return sourced(text, where(f"events.jsonl: every {how} of {kinds}.{field}", site=site))

    with_failures = f"{ANSWERS}|SiteFailed"
    return SiteRow(
        site=cost.site,
        updates=of(str(cost.n_updates), "count", "site"),
        training=of(duration_text(cost.seconds), "sum", "seconds"),
        uploaded=of(bytes_text(cost.upload_bytes), "sum", "upload_bytes"),
        downloaded=of(bytes_text(cost.download_bytes), "sum", "download_bytes", with_failures),
    )


def _round_rows(data: ReportData) -> list[RoundRow]:
    how = "sum" if trained_in_turn(data) else "slowest"
    rows = []
    for cost in round_costs(data):
        method, rounds = cost.method, "RoundFinished.seconds"
        of = f"{how} of {ANSWERS}.seconds"
        training = where(f"events.jsonl: {of}", method=method)
        share = where(f"events.jsonl: share of {rounds} without {of}", method=method)
        rows.append(
            RoundRow(
                method=method_label(method),
                n_rounds=sourced(
                    cost.n_rounds, where(f"events.jsonl: count of {rounds}", method=method)
                ),
                time=sourced(
                    duration_text(cost.seconds),
                    where(f"events.jsonl: sum of {rounds}", method=method),
                ),
                training=sourced(duration_text(cost.training_seconds), training),
                overhead=sourced(f"{100 * cost.overhead:.1f} %", share),
            )
        )
    return rows


def _energy(sites: tuple[SiteCost, ...]) -> str:
    seconds = sum(row.seconds for row in sites)
    text = sourced(duration_text(seconds), f"events.jsonl: every sum of {ANSWERS}.seconds")
    return (
        "Energy is not given: no site measures the power that its device draws, and the rated "
        f"power of a device is not what training takes. All sites trained for {text} together; "
        "times the measured power of one device, that is its energy for training."
    )
