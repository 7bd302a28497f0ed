"""What a whole run costs the patients of one site, and the noise that keeps its promise."""

import math

from common.config import RunConfig
from common.errors import ConfigError
from common.privacy.accounting import epsilon_of, noise_for
from common.privacy.mechanism import NoisySteps
from common.privacy.settings import PatientPrivacy

SPARE_FRACTION = 0.05  # of a run's steps: a round that is asked for again costs again


def privacy_of(config: RunConfig) -> PatientPrivacy:
    """Return what a run promises.

    Raises:
        ConfigError: when it promises nothing.
    """
    if config.privacy is None:
        raise ConfigError("privacy: missing; the configuration promises no privacy")
    return config.privacy


def planned_steps(config: RunConfig) -> int:
    """Return the noisy steps of a training site in a whole run: methods x rounds x local steps."""
    federation = config.federation
    if federation.local_steps is None:
        raise ConfigError("federation.local_steps: missing; [privacy] needs it")
    return len(federation.methods) * federation.rounds * federation.local_steps


def allowed_steps(config: RunConfig) -> int:
    """Return the steps that a run's noise is calibrated for: the planned ones and some to spare."""
    n_steps = planned_steps(config)
    return n_steps + math.ceil(SPARE_FRACTION * n_steps)


def noise_of(config: RunConfig) -> float:
    """Return the noise multiplier of a private run: as configured, or calibrated to its epsilon.

    Raises:
        ConfigError: for a run without privacy, or when no noise is enough.
    """
    privacy = privacy_of(config)
    if privacy.noise_multiplier is not None:
        return privacy.noise_multiplier
    target = privacy.epsilon or 0.0  # either is set
    return noise_for(target, privacy.delta, privacy.sampling_rate, allowed_steps(config))


def noisy_steps(config: RunConfig, noise_multiplier: float, n_steps: int) -> NoisySteps:
    """Return steps of a private run."""
    return NoisySteps(
        sampling_rate=privacy_of(config).sampling_rate,
        noise_multiplier=noise_multiplier,
        steps=n_steps,
    )


def promised_epsilon(config: RunConfig) -> float:
    """Return what a whole run costs at most, at its own delta; infinity without privacy."""
    if config.privacy is None:
        return math.inf
    if config.privacy.epsilon is not None:
        return config.privacy.epsilon
    steps = noisy_steps(config, noise_of(config), allowed_steps(config))
    return epsilon_of((steps,), config.privacy.delta)
