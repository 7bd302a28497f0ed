"""Site-level differential privacy of a round: clip every site's change, add noise to the sum once.

What it costs is reckoned from the run's own events, one per round that was aggregated, also where
a crash made it be done again. All sites count as asked in every round (no amplification by
sampling), which is an upper bound when fewer are drawn.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from common.axes import Weights
from common.privacy.accounting import epsilon_of
from common.privacy.mechanism import NoisySteps
from common.privacy.noise import secure_normals
from common.privacy.site_level import FEWEST_MEANINGFUL, SiteLevelPrivacy
from server.event_log import read_events
from server.events import SitePrivacySpent
from server.experiment import Experiment
from server.strategies import SiteUpdate, State, Strategy
from server.strategies.fedavg import FEDAVG, GLOBAL

ROUNDING = 2.0**-23  # of float32 weights, relative


def aggregate(
    run: Experiment,
    strategy: Strategy,
    state: State,
    updates: Iterable[SiteUpdate],
    n_asked: int,
    round_: int,
) -> State:
    """Return the next state of a method; under site-level privacy from clipped and noised updates.

    Args:
        run: the experiment; what the round costs is in its events before it is used.
        strategy: the method.
        state: before the round.
        updates: of the round, each site's once.
        n_asked: number of sites that were asked, by which the sum is divided.
        round_: from 1.
    """
    settings = run.config.federation.site_privacy
    if settings is None:
        return strategy.aggregate(state, updates)
    before, n_updates = state[GLOBAL], 0

    def clipped_updates() -> Iterator[SiteUpdate]:
        nonlocal n_updates
        for update in updates:
            n_updates += 1
            weights = clipped(update.weights, before, settings.clip_norm)
            yield replace(update, weights=weights, count=1)

    mean = FEDAVG.aggregate(state, clipped_updates())[GLOBAL]
    if not n_updates:
        return state
    _report(run, settings, strategy.name, round_, n_asked, before)
    share = n_updates / n_asked
    deviation = settings.noise_multiplier * settings.clip_norm / n_asked
    noised = {name: _noised(mean[name], before[name], share, deviation) for name in mean}
    return strategy.aggregate(state, [SiteUpdate("all sites", 1, noised)])


def clipped(weights: Weights, before: Weights, clip_norm: float) -> Weights:
    """Return weights whose change, over all tensors, has at most the L2 norm `clip_norm`."""
    change = {name: np.subtract(w, before[name], dtype=np.float64) for name, w in weights.items()}
    norm = _norm(change)
    rounding = ROUNDING * (_norm(before) + clip_norm)
    factor = 1.0 if norm <= clip_norm else max(0.0, clip_norm - rounding) / norm
    return {
        name: (before[name] + factor * part).astype(before[name].dtype)
        for name, part in change.items()
    }


def site_epsilon(settings: SiteLevelPrivacy, n_rounds: int) -> float:
    """Return what so many rounds cost every site, at the settings' delta."""
    noise = settings.noise_multiplier
    step = NoisySteps(sampling_rate=1.0, noise_multiplier=noise, steps=n_rounds)
    return epsilon_of((step,), settings.delta)


def warning_of(settings: SiteLevelPrivacy, n_sites: int, n_weights: int) -> str:
    """Return why the promise means little with so few sites, or nothing.

    The rule: fewer than `FEWEST_MEANINGFUL` sites, or noise whose expected norm in the mean is
    more than `clip_norm`, so that the noise is longer than any change of the model can be.
    """
    noise_norm = settings.noise_multiplier * settings.clip_norm * math.sqrt(n_weights) / n_sites
    found = []
    if n_sites < FEWEST_MEANINGFUL:
        found.append(f"{n_sites} sites, expected at least {FEWEST_MEANINGFUL}")
    if noise_norm > settings.clip_norm:
        found.append(
            f"noise of norm {noise_norm:.3g} in a mean change of norm up to {settings.clip_norm:g}"
        )
    return f"site-level privacy means little here: {'; '.join(found)}" if found else ""


def _norm(tensors: Mapping[str, NDArray[Any]]) -> float:
    return math.sqrt(sum(float(np.square(t, dtype=np.float64).sum()) for t in tensors.values()))


def _noised(
    mean: NDArray[np.float32], before: NDArray[np.float32], share: float, deviation: float
) -> NDArray[np.float32]:
    change: NDArray[np.float64] = np.subtract(mean, before, dtype=np.float64) * share
    noise = secure_normals(mean.size, torch.device("cpu")).numpy()
    change += noise.reshape(mean.shape) * deviation
    return (before + change).astype(mean.dtype)


def _report(
    run: Experiment,
    settings: SiteLevelPrivacy,
    method: str,
    round_: int,
    n_asked: int,
    before: Weights,
) -> None:
    """Log what the sites will have spent, before the aggregate is used."""
    earlier = sum(isinstance(e, SitePrivacySpent) for _, e in read_events(run.folder.events))
    run.log.append(
        SitePrivacySpent(
            method=method,
            round=round_,
            n_sites=n_asked,
            epsilon=site_epsilon(settings, earlier + 1),
            delta=settings.delta,
            warning=warning_of(settings, n_asked, sum(w.size for w in before.values())),
        )
    )
