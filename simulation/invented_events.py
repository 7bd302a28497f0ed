"""The events of runs that never ran, as a run would have logged them: to try the dashboard with.

Curves, times and faults follow from the numbers in `InventedRun`; same run, same events.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

from common.privacy.mechanism import Spent
from server.events import (
    ApprovalAwaited,
    Event,
    HeldOutScored,
    Note,
    PlanMade,
    RoundFinished,
    RunFinished,
    RunStarted,
    SiteFailed,
    SiteJoined,
    SiteMasked,
    SiteTrained,
    SiteValidated,
    SumOpened,
)

Timed: TypeAlias = tuple[float, Event]
"""Seconds since the run's start, and what was logged then."""
REGIONS = {"WT": 0.9, "TC": 0.82, "ET": 0.76}
"""With the Dice that training approaches."""
N_PARAMETERS_BYTES = 31_200_000 * 4  # nnU-Net's 3d_fullres network with 32 features, float32
HELD_OUT = "held-out-1"


@dataclass(frozen=True)
class InventedRun:
    """What a run is to look like."""

    name: str
    n_sites: int = 4
    n_rounds: int = 10
    methods: tuple[str, ...] = ("fedavg", "fedprox")
    ending: Literal["waiting", "approval", "running", "failed", "finished"] = "finished"
    """Where its log ends: for sites, for a person's approval, in a round, in a round that too few
    sites answer, or whole."""
    n_rounds_left: int = 3
    """Of the last method, where it ends in a round; half of the sites have answered there."""
    masked: bool = False
    """Whether only sums of updates are seen."""
    private: bool = False
    """Whether sites spend epsilon."""
    budget_used: float = 0.6
    """Of the first site's budget, after all rounds."""
    failing: str = ""
    """Site that fails in the last three rounds that finished."""
    diverging: bool = False
    """Whether the loss rises in the last third of the rounds."""
    round_s: float = 300.0
    seed: int = 1

    @property
    def sites(self) -> tuple[str, ...]:
        """Names of the training sites."""
        return tuple(f"site-{n + 1:02d}" for n in range(self.n_sites))

    @property
    def is_whole(self) -> bool:
        """Whether nothing is missing of it."""
        return self.ending == "finished"


def events_of(run: InventedRun) -> Iterator[Timed]:
    """Yield what a run logs, in order."""
    yield 0.0, _started(run)
    yield from _joining(run)
    if run.ending in {"waiting", "approval"}:
        return
    yield 100.0, PlanMade(plan_hash="0123456789abcdef" * 4, n_cases=20 * run.n_sites, limits=())
    yield 101.0, Note(text="a made-up run: nothing was trained")
    now = 120.0
    for now, event in _training(run):
        yield now, event
    if run.is_whole:
        for place, method in enumerate(run.methods):
            note = "statistics of 8 patches"
            scored = HeldOutScored(method=method, site=HELD_OUT, n_cases=24, note=note)
            yield now + 60.0 * place, scored
        yield now + 300.0, RunFinished(seconds=now + 300.0, peak_memory_bytes=3 * 2**30)


def dice_of(run: InventedRun, method: str, round_: int, site: str) -> dict[str, float]:
    """Return the Dice per region that a site's validation approaches with the rounds."""
    skill = 1 - 0.02 * run.methods.index(method) - 0.05 * (hash_of(site) % 5) / 5
    gained = 1 - math.exp(-4.0 * round_ / run.n_rounds)
    return {region: round(best * skill * gained, 4) for region, best in REGIONS.items()}


def hash_of(text: str) -> int:
    """Return a number that is the same in every process."""
    return sum(place * byte for place, byte in enumerate(text.encode(), start=1))


def _started(run: InventedRun) -> RunStarted:
    return RunStarted(
        run=run.name,
        task="brats-2021",
        methods=run.methods,
        seed=run.seed,
        resumed=False,
        versions={"consilium": "0.1.0", "torch": "2.13.0"},
        device="CPU, 2 threads, float32",
    )


def _joining(run: InventedRun) -> Iterator[Timed]:
    coming = run.sites[: run.n_sites // 2] if run.ending == "waiting" else run.sites
    for n, site in enumerate(coming):
        yield 5.0 + n, SiteJoined(site=site, role="training", n_cases=20 + 7 * n % 60)
    if run.ending != "waiting":
        yield 80.0, SiteJoined(site=HELD_OUT, role="held-out", n_cases=24)
    if run.ending == "approval":
        yield 90.0, ApprovalAwaited(site=run.sites[0])


def _training(run: InventedRun) -> Iterator[Timed]:
    """Yield the rounds of all methods, up to where the run ends."""
    rng, now, spent = np.random.default_rng(run.seed), 120.0, 0.0
    for method in run.methods:
        left = 0 if run.is_whole or method != run.methods[-1] else run.n_rounds_left
        for round_ in range(1, run.n_rounds - left + 1):
            spent += 1 / (run.n_rounds * len(run.methods))
            yield from _round(run, method, round_, now, spent, rng)
            now += run.round_s
        if left:
            yield from _open_round(run, method, run.n_rounds - left + 1, now, spent, rng)
        elif not run.masked:
            for site in run.sites:
                yield now + 20.0, _validated(run, method, run.n_rounds, rng, site)


def _round(
    run: InventedRun, method: str, round_: int, now: float, spent: float, rng: np.random.Generator
) -> Iterator[Timed]:
    """Yield a whole round; the sites validate the weights of the one before it."""
    failing = run.failing and round_ > run.n_rounds - (0 if run.is_whole else run.n_rounds_left) - 3
    answering = tuple(site for site in run.sites if not (failing and site == run.failing))
    if failing:
        yield now + 30.0, _failure(method, round_, run.failing)
    yield from _answers(run, method, round_, now, spent, rng, answering)
    if run.masked:
        yield now + run.round_s - 2, _opened(run, method, round_, answering)
    end = now + run.round_s - 1
    n_sites = len(answering)
    yield end, RoundFinished(method=method, round=round_, n_sites=n_sites, seconds=run.round_s)


def _open_round(
    run: InventedRun, method: str, round_: int, now: float, spent: float, rng: np.random.Generator
) -> Iterator[Timed]:
    """Yield a round that is not finished: half of the sites answered, or they failed."""
    half = run.sites[: run.n_sites // 2]
    yield from _answers(run, method, round_, now, spent, rng, half)
    if run.ending == "failed":
        for site in run.sites[run.n_sites // 2 :]:
            yield now + run.round_s, _failure(method, round_, site)


def _answers(
    run: InventedRun,
    method: str,
    round_: int,
    now: float,
    spent: float,
    rng: np.random.Generator,
    sites: tuple[str, ...],
) -> Iterator[Timed]:
    """Yield the answers of some sites, each at its own pace, as they come."""
    answers = (_trained(run, method, round_, spent, rng, site) for site in sites)
    for answer in sorted(answers, key=lambda answer: answer.seconds):
        at = now + answer.seconds
        if run.masked:
            yield at, _masked(answer)
        else:
            yield at, _validated(run, method, round_ - 1, rng, answer.site)
            yield at, answer


def _trained(
    run: InventedRun,
    method: str,
    round_: int,
    spent: float,
    rng: np.random.Generator,
    site: str,
) -> SiteTrained:
    noise = [float(value) for value in rng.normal(size=3)]
    pace = 0.4 + 0.4 * (hash_of(site) % 7) / 7 + 0.02 * noise[0]
    size = N_PARAMETERS_BYTES + int(1000 * abs(noise[1]))
    return SiteTrained(
        method=method,
        round=round_,
        site=site,
        n_cases=20 + 7 * run.sites.index(site) % 60,
        n_steps=50,
        loss=None if run.private else _loss(run, round_, noise[2]),
        update_norm=round(3.0 / math.sqrt(round_) + 0.05 * abs(noise[1]), 4),
        seconds=round(run.round_s * min(0.9, pace), 3),
        upload_bytes=size,
        download_bytes=size,
        spent=_spent(run, site, spent) if run.private else None,
    )


def _masked(answer: SiteTrained) -> SiteMasked:
    return SiteMasked(
        method=answer.method,
        round=answer.round,
        site=answer.site,
        seconds=answer.seconds,
        upload_bytes=2 * answer.upload_bytes,
        download_bytes=answer.download_bytes,
    )


def _validated(
    run: InventedRun, method: str, round_: int, rng: np.random.Generator, site: str
) -> SiteValidated:
    noisy = {
        region: round(min(1.0, abs(value + 0.01 * float(rng.normal()))), 4)
        for region, value in dice_of(run, method, round_, site).items()
    }
    return SiteValidated(method=method, round=round_, site=site, dice=noisy)


def _opened(run: InventedRun, method: str, round_: int, sites: tuple[str, ...]) -> SumOpened:
    by_site = [dice_of(run, method, round_ - 1, site) for site in sites]
    mean = {region: sum(dice[region] for dice in by_site) / len(sites) for region in REGIONS}
    return SumOpened(
        method=method,
        round=round_,
        sites=sites,
        count=20 * len(sites),
        loss=None if run.private else _loss(run, round_, 0.0),
        dice=mean if round_ > 1 else None,
        update_norm=round(3.0 / math.sqrt(round_), 4),
        seconds=0.5,
    )


def _loss(run: InventedRun, round_: int, noise: float) -> float:
    falling = 1.2 * math.exp(-4.0 * round_ / run.n_rounds) - 0.7
    rising = max(0.0, round_ / run.n_rounds - 0.67) * 6.0 if run.diverging else 0.0
    return round(falling + rising + 0.02 * noise, 4)


def _spent(run: InventedRun, site: str, share: float) -> Spent:
    of_site = 1 - 0.03 * run.sites.index(site) / run.n_sites
    used = min(1.0, run.budget_used * share * of_site)
    return Spent(epsilon=round(0.01 + 8.0 * share * of_site, 6), delta=1e-5, budget_used=used)


def _failure(method: str, round_: int, site: str) -> SiteFailed:
    reason = "the site's log says more"
    return SiteFailed(method=method, round=round_, site=site, code="data", reason=reason)
