"""A privacy ledger for people: what is spent, what is left, and what that buys."""

from collections.abc import Sequence
from typing import Annotated

from annotated_types import Ge

from client.privacy.entry import OPENED, RELEASED, WITHOUT_PRIVACY, Entry
from client.privacy.ledger import Account, steps_of
from common.codec import record
from common.privacy.accounting import epsilon_of, within
from common.privacy.mechanism import NoisySteps

MOST_FURTHER = 2**24  # steps; more than any run has


@record
class RunCost:
    """What one run cost, all its steps together, at the budget's delta."""

    run: str
    methods: tuple[str, ...]
    rounds: Annotated[int, Ge(0)]
    """How many different ones."""
    steps: Annotated[int, Ge(0)]
    epsilon: float | None
    """None where no bound is known."""


@record
class Summary:
    """A ledger, folded."""

    data_set: str | None
    epsilon: float | None
    """Of the budget."""
    delta: float | None
    spent: float | None
    """None where no bound holds: no budget, a line that is not understood, or training without
    privacy since the budget was given."""
    left: float | None
    further_steps: int | None
    """That the remaining budget buys, at the last run's rate and noise."""
    further_rounds: int | None
    """The same in rounds of the last run, whole ones."""
    runs: tuple[RunCost, ...]
    data_versions: int
    not_private: tuple[str, ...]
    """What left without noise, and when first."""
    warnings: tuple[str, ...]


def summary_of(account: Account) -> Summary:
    """Fold a ledger."""
    budget, warnings = account.budget, tuple(_warnings(account))
    if budget is None or budget.epsilon is None or budget.delta is None:
        return _without_budget(account, warnings)
    known = not account.not_understood and not account.without_privacy
    spent = epsilon_of(account.noisy, budget.delta) if known else None
    finite = spent is not None and spent < float("inf")
    steps, rounds = _further(account, budget.epsilon, budget.delta) if finite else (None, None)
    return Summary(
        data_set=budget.data_set or _first_name(account),
        epsilon=budget.epsilon,
        delta=budget.delta,
        spent=spent if finite else None,
        left=max(0.0, budget.epsilon - spent) if finite and spent is not None else None,
        further_steps=steps,
        further_rounds=rounds,
        runs=tuple(_costs(account, budget.delta)),
        data_versions=len({e.data_version for e in account.entries if e.data_version}),
        not_private=_not_private(account.entries),
        warnings=warnings,
    )


def lines_of(summary: Summary) -> tuple[str, ...]:
    """Return a summary as lines."""
    name = f"data set {summary.data_set}: " if summary.data_set else ""
    if summary.epsilon is None or summary.delta is None:
        return (f"{name}no budget", *_ending(summary))
    spent = (
        f"spent epsilon {summary.spent:.4g}, left {summary.left:.4g}"
        if summary.spent is not None
        else "what was spent has no bound; nothing private is trained"
    )
    head = f"{name}budget epsilon {summary.epsilon:g} at delta {summary.delta:g}; {spent}"
    runs = (
        f"run {cost.run} ({', '.join(cost.methods)}; {cost.rounds} rounds, {cost.steps} steps): "
        + (f"epsilon {cost.epsilon:.4g}" if cost.epsilon is not None else "no bound")
        for cost in summary.runs
    )
    buys = (
        f"at the last run's rate and noise the rest buys {summary.further_steps} further steps, "
        f"{summary.further_rounds} rounds of its length"
    )
    rest = (buys,) if summary.further_steps is not None else ()
    return (head, *runs, *rest, *_ending(summary))


def spending(account: Account) -> tuple[tuple[int, float], ...]:
    """Return (steps so far, epsilon so far) at the ends of up to 60 entries, from (0, 0) on."""
    budget = account.budget
    if budget is None or budget.delta is None or not account.noisy:
        return ((0, 0.0),)
    noisy, points = account.noisy, [(0, 0.0)]
    ends = sorted({max(1, round(len(noisy) * i / 60)) for i in range(1, 61)})
    for end in ends:
        n = sum(steps.steps for steps in noisy[:end])
        points.append((n, epsilon_of(noisy[:end], budget.delta)))
    return tuple(points)


def _without_budget(account: Account, warnings: tuple[str, ...]) -> Summary:
    return Summary(
        data_set=None,
        epsilon=None,
        delta=None,
        spent=None,
        left=None,
        further_steps=None,
        further_rounds=None,
        runs=(),
        data_versions=0,
        not_private=_not_private(account.entries),
        warnings=warnings,
    )


def _first_name(account: Account) -> str | None:
    return next((e.data_set for e in reversed(account.entries) if e.data_set), None)


def _costs(account: Account, delta: float) -> list[RunCost]:
    costs = []
    for run in dict.fromkeys(e.run for e in account.entries if e.steps is not None and e.run):
        entries = tuple(e for e in account.entries if e.run == run and e.steps is not None)
        epsilon = epsilon_of(steps_of(entries), delta)
        costs.append(
            RunCost(
                run=run,
                methods=tuple(dict.fromkeys(e.method for e in entries if e.method)),
                rounds=len({(e.method, e.round) for e in entries}),
                steps=sum(steps.steps for steps in steps_of(entries)),
                epsilon=epsilon if epsilon < float("inf") else None,
            )
        )
    return costs


def _further(account: Account, epsilon: float, delta: float) -> tuple[int | None, int | None]:
    """Return further steps and rounds, as the last run's, that the remaining budget buys."""
    last = next((e for e in reversed(account.entries) if e.steps is not None), None)
    if last is None or last.steps is None:
        return None, None
    rate, noise = last.steps.sampling_rate, last.steps.noise_multiplier

    def affordable(n: int) -> bool:
        more = NoisySteps(sampling_rate=rate, noise_multiplier=noise, steps=n)
        return within((*account.noisy, more), delta, epsilon)

    low, high = 0, 1
    while affordable(high) and high < MOST_FURTHER:
        low, high = high, 2 * high
    while high - low > max(1, high // 100):
        middle = (low + high) // 2
        low, high = (middle, high) if affordable(middle) else (low, middle)
    in_round = [e for e in account.entries if (e.run, e.method) == (last.run, last.method)]
    n_rounds = len({e.round for e in in_round})
    per_round = sum(steps.steps for steps in steps_of(tuple(in_round))) / max(1, n_rounds)
    return low, int(low / per_round) if per_round else 0


def _not_private(entries: Sequence[Entry]) -> tuple[str, ...]:
    first: dict[str, str] = {}
    for e in entries:
        if e.kind in {RELEASED, WITHOUT_PRIVACY}:
            where = f"run {e.run}: {e.what}" if e.run else str(e.what)
            first.setdefault(where, e.time[:10])
    return tuple(f"not private: {what} (first on {day})" for what, day in first.items())


def _warnings(account: Account) -> list[str]:
    found = [
        f"entry {e.n}: {e.kind!r} is not understood; its cost counts as infinite"
        for e in account.not_understood
    ]
    runs = dict.fromkeys(e.run for e in account.without_privacy)
    found += [f"run {run} trained on these patients without privacy" for run in runs]
    opened = [e for e in account.entries if e.kind == OPENED and e.reason]
    found += [f"{e.time[:10]}: the budget was changed: {e.reason}" for e in opened]
    return found


def _ending(summary: Summary) -> tuple[str, ...]:
    return (*summary.not_private, *(f"warning: {line}" for line in summary.warnings))
