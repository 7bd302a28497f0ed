"""Events in words, one line each, for people who watch a run."""

from statistics import fmean

from server.events import (
    ApprovalAwaited,
    Event,
    FloorMeasured,
    HeldOutScored,
    Note,
    PlanMade,
    PostprocessingChosen,
    RanksReleased,
    ReplyIgnored,
    RoundFinished,
    RunFinished,
    RunStarted,
    SiteExcluded,
    SiteFailed,
    SiteJoined,
    SiteLeft,
    SiteMasked,
    SitePersonalised,
    SitePrivacySpent,
    SiteTrained,
    SiteValidated,
    SumLost,
    SumOpened,
    SumsReleased,
)


def line_of(event: Event, n_rounds: int) -> str:  # noqa: PLR0911 - one line per kind of event
    """Return one line about an event; empty for events that need none."""
    match event:
        case RunStarted():
            verb = "resumed" if event.resumed else "started"
            return f"run {event.run} {verb}: {event.task}, {', '.join(event.methods)}"
        case SiteJoined() | SiteLeft() | ApprovalAwaited():
            return _line_of_site(event)
        case PlanMade():
            limits = f"; limited: {'; '.join(event.limits)}" if event.limits else ""
            return f"plan {event.plan_hash[:16]} agreed for {event.n_cases} cases{limits}"
        case FloorMeasured():
            return (
                f"{event.site}: learning-free floor on {event.region}: "
                f"mean Dice {event.mean_dice:.3f}"
            )
        case RanksReleased() | SumsReleased():
            return _line_of_release(event)
        case Note():
            return event.text
        case RunFinished():
            gib = event.peak_memory_bytes / 2**30
            return f"run finished in {event.seconds:.0f} s, peak memory {gib:.1f} GiB"
        case _:
            return _line_of_round(event, n_rounds)


def _line_of_round(event: Event, n_rounds: int) -> str:  # noqa: C901, PLR0911 - as above
    match event:
        case SiteTrained():
            where = f"{event.method} round {event.round}/{n_rounds}: {event.site}"
            loss = "private" if event.loss is None else f"{event.loss:.3f}"
            cost = f", epsilon {event.spent.epsilon:.2f}" if event.spent else ""
            return f"{where}: loss {loss} in {event.seconds:.0f} s{cost}"
        case SiteValidated():
            dice = ", ".join(f"{region} {value:.3f}" for region, value in event.dice.items())
            return f"{event.method} after round {event.round}: {event.site}: Dice {dice}"
        case SitePersonalised():
            shared, own = fmean(event.shared.values()), fmean(event.own.values())
            return f"{event.method}: {event.site}: Dice {shared:.3f}, of its own model {own:.3f}"
        case SiteFailed() | ReplyIgnored() | SiteExcluded():
            return _line_of_trouble(event)
        case RoundFinished():
            where = f"{event.method} round {event.round}/{n_rounds}"
            return f"{where}: {event.n_sites} sites, {event.seconds:.0f} s"
        case SitePrivacySpent():
            warning = f"; {event.warning}" if event.warning else ""
            where = f"{event.method} round {event.round}/{n_rounds}"
            return f"{where}: site-level epsilon {event.epsilon:.2f} at {event.delta:g}{warning}"
        case PostprocessingChosen():
            return f"{event.method}: post-processing: {', then '.join(event.steps) or 'none helps'}"
        case HeldOutScored():
            cases = "the cases" if event.n_cases is None else f"{event.n_cases} cases"
            return f"{event.method}: {cases} of {event.site} scored"
        case _:
            return _line_of_sum(event, n_rounds)


def _line_of_release(event: RanksReleased | SumsReleased) -> str:
    if isinstance(event, RanksReleased):
        told = f"rank sums of {event.n_cases} cases and {event.n_aggregates} aggregates"
        return f"{event.site} released {told}"
    sites = ", ".join(event.sites)
    return f"{sites} released sums of ranks and metrics over {event.n_cases} cases together"


def _line_of_site(event: SiteJoined | SiteLeft | ApprovalAwaited) -> str:
    if isinstance(event, ApprovalAwaited):
        return f"{event.site} waits for a person there to approve the run"
    if isinstance(event, SiteLeft):
        return f"{event.site} left the run"
    cases = "cases not told" if event.n_cases is None else f"{event.n_cases} cases"
    return f"{event.site} joined: {event.role}, {cases}"


def _line_of_sum(event: Event, n_rounds: int) -> str:
    match event:
        case SiteMasked():
            where = f"{event.method} round {event.round}/{n_rounds}: {event.site}"
            return f"{where}: masked update in {event.seconds:.0f} s"
        case SumOpened():
            loss = "private" if event.loss is None else f"{event.loss:.3f}"
            where = f"{event.method} round {event.round}/{n_rounds}"
            return f"{where}: sum of {len(event.sites)} sites opened: loss {loss}"
        case SumLost():
            where = f"{event.method} round {event.round}/{n_rounds}"
            return f"{where} LOST, the weights stay: {event.reason}"
        case _:
            return ""


def _line_of_trouble(event: SiteFailed | ReplyIgnored | SiteExcluded) -> str:
    where = f"{event.method} round {event.round}: {event.site}"
    match event:
        case SiteFailed():
            return f"{where} FAILED: {event.code}: {event.reason}"
        case ReplyIgnored():
            return f"{where}: reply ignored: {event.reason}"
        case SiteExcluded():
            return f"{event.site} is no longer asked: {event.reason}"
