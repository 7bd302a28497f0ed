"""The coordinator's status as a person reads it."""

from collections import Counter
from collections.abc import Iterator

from server.coordinator.run_status import Overhead, RunStatus
from server.coordinator.status import SiteStatus, Status


def status_lines(status: Status) -> Iterator[str]:
    """Yield the lines of a status."""
    yield f"federation {status.federation}"
    if not status.running:
        yield "  coordinator: NOT RUNNING; start it with `consilium coordinator start`"
    else:
        yield f"  SuperLink: {'serving' if status.superlink else 'DOES NOT ANSWER'}"
        yield f"  executor: {'running' if status.executor else 'NOT RUNNING'}"
    yield f"  certificate: valid until {status.certificate_until}"
    yield f"  disk: {status.disk_free_gib:g} GiB free"
    yield from (f"  note: {line}" for line in status.trouble)
    yield f"sites: {len(status.sites)}"
    yield from (f"  {site_line(site)}" for site in status.sites)
    yield f"runs: {len(status.runs)}"
    for run in status.runs:
        yield from (f"  {line}" for line in run_lines(run))
    yield from _refusal_lines(status)


def site_line(site: SiteStatus) -> str:
    """Return one line about a site."""
    if site.revoked is not None:
        return f"{site.site}: revoked at {site.revoked}"
    since = f" since {site.since[:19]}" if site.since else ""
    until = f"kit valid until {site.valid_until[:10]}"
    if site.validity == "expired":
        until = f"KIT EXPIRED on {site.valid_until[:10]}"
    elif site.validity == "not-yet-valid":
        until = f"KIT NOT VALID before {site.valid_from[:10]}"
    return f"{site.site}: {site.connection}{since}; {until}"


def run_lines(run: RunStatus) -> Iterator[str]:
    """Yield the lines about a run."""
    state = "is kept going" if run.state == "wanted" else run.state
    yield f"{run.name}: {state}; {run.method}: round {run.round} of {run.n_rounds}"
    if run.reason is not None:
        yield f"  {run.reason}"
    if run.last_failure is not None:
        yield f"  its last attempt ended: {run.last_failure}"
    if run.waits_for:
        yield f"  waits for {run.waits_for}"
    for site in run.sites:
        sent = f"{_mib(site.upload_bytes)} MiB up, {_mib(site.download_bytes)} MiB down"
        yield f"  {site.site}: round {site.round}, trained {site.seconds:.0f} s, {sent}"
    if run.last_overhead is not None and run.overhead is not None:
        yield f"  {overhead_line(run.last_overhead, 'the last round')}"
        if run.overhead.n_rounds > 1:
            yield f"  {overhead_line(run.overhead, f'{run.overhead.n_rounds} rounds')}"


def overhead_line(overhead: Overhead, of: str) -> str:
    """Return what rounds cost beyond training, in words."""
    rest = max(0.0, overhead.round_seconds - overhead.training_seconds)
    return (
        f"of the {overhead.round_seconds:.0f} s of {of}, {rest:.0f} s ({overhead.share:.0%}) were "
        "overhead: transport, starting programs, aggregation; the slowest site trained in the rest"
    )


def _refusal_lines(status: Status) -> Iterator[str]:
    total = sum(refusal.count for refusal in status.refused)
    yield f"refused requests in the last day: {total}"
    counted: Counter[tuple[str, str, str]] = Counter()
    for refusal in status.refused:
        counted[refusal.reason, refusal.site or "no site", refusal.address] += refusal.count
    for (reason, site, address), count in counted.most_common(10):
        yield f"  {reason}: {count} from {address} ({site})"


def _mib(n_bytes: int) -> str:
    return f"{n_bytes / 2**20:.1f}"
