"""The table of a run's sites."""

from datetime import datetime

import numpy as np

from server.dashboard.alarms import Limits
from server.dashboard.cells import DOWNLOAD, SECONDS, UPLOAD, Cells
from server.dashboard.facts import Facts, SiteFacts
from server.dashboard.means import median_of
from server.dashboard.method_rounds import Values
from server.dashboard.standing import site_state
from server.dashboard.views import SiteRow


def site_rows(
    cells: dict[str, Cells], facts: Facts, now: datetime, limits: Limits
) -> tuple[SiteRow, ...]:
    """Return one row per site: training sites by name, then those held out."""
    order = sorted(facts.sites, key=lambda site: (site.member.is_held_out, site.site))
    return tuple(_row(cells, facts, site, now, limits) for site in order)


def _row(
    cells: dict[str, Cells], facts: Facts, site: SiteFacts, now: datetime, limits: Limits
) -> SiteRow:
    member, spent = site.member, site.member.spent
    state, reason = site_state(facts, site, now, limits)
    answers = _answers(cells, site.site)
    seconds = answers[:, SECONDS]
    seconds = seconds[~np.isnan(seconds)]
    n_rounds = len(seconds)
    up, down = float(np.nansum(answers[:, UPLOAD])), float(np.nansum(answers[:, DOWNLOAD]))
    return SiteRow(
        site=site.site,
        role=member.role,
        state=state,
        reason=reason,
        last_seen=member.last_seen,
        n_cases=member.n_cases,
        last_method=member.last_method,
        last_round=member.last_round,
        n_rounds=n_rounds,
        median_s=median_of(seconds),
        last_s=_last_s(cells, site),
        upload_bytes=int(up),
        download_bytes=int(down),
        upload_bytes_per_round=up / n_rounds if n_rounds else None,
        download_bytes_per_round=down / n_rounds if n_rounds else None,
        n_late=member.n_late,
        n_failures=member.n_failures,
        n_failures_in_a_row=member.n_in_a_row,
        last_failure=member.last_failure,
        n_refusals=member.n_refusals,
        last_refusal=member.last_refusal,
        epsilon=spent.epsilon if spent else None,
        delta=spent.delta if spent else None,
        budget_used=member.budget_used,
        last_loss=member.last_loss,
        last_dice=member.last_dice,
    )


def _answers(cells: dict[str, Cells], site: str) -> Values:
    """Return (round, quantity) of one site, all methods one after the other."""
    parts = [
        found.answers[: found.n_rounds, found.sites[site]]
        for found in cells.values()
        if site in found.sites
    ]
    return np.concatenate(parts) if parts else np.full((0, 7), np.nan)


def _last_s(cells: dict[str, Cells], site: SiteFacts) -> float | None:
    """Return the seconds of the last round that a site answered."""
    found, round_ = cells.get(site.member.last_method), site.member.last_round
    if found is None or round_ is None or round_ >= found.n_rounds:
        return None
    return float(found.answers[round_, found.sites[site.site], SECONDS])
