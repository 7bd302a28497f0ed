"""The sites of a run: one line each, everything that the coordinator knows of them."""

from collections.abc import Sequence

from server.dashboard.pages.frame import section
from server.dashboard.pages.grid import Column, Row, make_grid
from server.dashboard.pages.live import Refresh
from server.dashboard.pages.words import (
    count_text,
    number_text,
    seconds_text,
    share_text,
    size_text,
    time_text,
)
from server.dashboard.views import RunDetail, SiteRow
from server.reporting.report_data import method_label

COLUMNS = (
    Column("site", "Site", "Name of the site", width=140, stays=True),
    Column("state", "State", "What it does now", width=115),
    Column("reason", "Why", "Why it is in that state", width=200),
    Column("role", "Role", "Whether it trains or is held out for tests", width=95),
    Column("seen", "Last seen (UTC)", "When it answered last", time_text, width=165),
    Column("cases", "Cases", "As the site told; a dash where it keeps the number", count_text,
           width=80),
    Column("round", "Last round", "Method and round that it answered last", width=140),
    Column("rounds", "Rounds", "With an accepted update, all methods", count_text, width=85),
    Column("median", "Time per round", "Median of the training per round, by the site's clock",
           seconds_text, width=110),
    Column("seconds", "Last time", "Training in its last round", seconds_text, width=100),
    Column("up_round", "From it per round", "Mean size of an accepted update", size_text,
           width=110),
    Column("down_round", "To it per round", "Mean size of a question, repetitions included",
           size_text, width=110),
    Column("up", "From it in all", "Size of all accepted updates", size_text, width=105),
    Column("down", "To it in all", "Size of all that was sent to it", size_text, width=105),
    Column("late", "Late", "Updates that came in a later round than asked for", count_text,
           width=75),
    Column("failures", "Failures", "Answers that were errors or were refused", count_text,
           width=90),
    Column("failure", "Last failure", "Code and reason", width=220),
    Column("refusals", "Policy refusals", "What the site's own policy refused to do", count_text,
           width=90),
    Column("refusal", "Last refusal", "Rule and reason", width=200),
    Column("epsilon", "Epsilon spent", "For its patients, in this run (no unit); a dash without "
           "differential privacy", number_text(2), width=90),
    Column("delta", "Delta", "Of that epsilon (no unit)", number_text(7), width=100),
    Column("used", "Budget used", "Share of the site's own whole budget", share_text, width=90),
    Column("left", "Budget left", "Share of the site's own whole budget", share_text, width=90),
    Column("loss", "Last loss", "Mean training loss of its last round (no unit)", number_text(3),
           width=85),
    Column("dice", "Last Dice", "Last validation, mean over regions (no unit)", number_text(3),
           width=85),
)  # fmt: skip
NO_SITES = "No site has joined yet: sites appear here when they have described their data."


def sites_view(detail: RunDetail) -> Refresh:
    """Build the view; return what keeps it up to date."""
    with section("Sites", "Scroll sideways for bytes, failures and privacy."):
        grid = make_grid("Sites of this run", COLUMNS, rows_of(detail.sites), empty=NO_SITES)

    def refresh(found: RunDetail) -> None:
        grid.show(rows_of(found.sites))

    return refresh


def rows_of(sites: Sequence[SiteRow]) -> list[Row]:
    """Return the lines of the table."""
    return [_row(site) for site in sites]


def _row(site: SiteRow) -> Row:
    last = "" if site.last_round is None else f"{method_label(site.last_method)}, {site.last_round}"
    return {
        "id": site.site,
        "site": site.site,
        "state": site.state,
        "reason": site.reason,
        "role": site.role,
        "seen": site.last_seen,
        "cases": site.n_cases,
        "round": last,
        "rounds": site.n_rounds,
        "median": site.median_s,
        "seconds": site.last_s,
        "up_round": site.upload_bytes_per_round,
        "down_round": site.download_bytes_per_round,
        "up": site.upload_bytes,
        "down": site.download_bytes,
        "late": site.n_late,
        "failures": site.n_failures,
        "failure": site.last_failure,
        "refusals": site.n_refusals,
        "refusal": site.last_refusal,
        "epsilon": site.epsilon,
        "delta": site.delta,
        "used": site.budget_used,
        "left": site.budget_left,
        "loss": site.last_loss,
        "dice": site.last_dice,
    }
