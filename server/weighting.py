"""What a site counts in a mean: its training cases, its optimisation steps, or 1.

Cases are FedAvg's definition (McMahan et al. 2017); steps are what NVIDIA FLARE's aggregator
counts; with 1 every institution has the same say, however many cases it has. No site can gain
weight later: its cases are bounded by what it declared before planning, its steps follow from them.
"""

from collections.abc import Sequence

from common.config import RunConfig
from common.errors import ConfigError, MessageError
from common.messages import Update
from common.planning.plan import Plan, configuration_of
from server.exact_sum import MAX_CASES


def count_of(update: Update, config: RunConfig, plan: Plan) -> int:
    """Return how often an update counts, at least 1; only the ratio between sites matters.

    Args:
        update: of a site, checked; its cases are at most those that the site declared.
        config: of the run.
        plan: of the run, for the size of a batch.

    Raises:
        MessageError: under "steps", when the site did not take the steps that it was to take.
    """
    expected = steps_of(config, plan, update.n_cases)
    if config.federation.weighting == "steps" and update.n_steps != expected:
        raise MessageError(
            f"n_steps: expected {expected} of a site with {update.n_cases} cases, "
            f"found {update.n_steps}"
        )
    return config.federation.counted(update.n_cases, expected)


def require_countable(config: RunConfig, plan: Plan, n_cases: Sequence[int]) -> None:
    """Demand that the counts of all sites fit into the exact sum, before anybody trains.

    Cases do (`server.planning.joining`), and so does 1 per site. With `local_steps` all sites
    take the same number of steps, so that 1 stands for it; with `local_epochs` steps are counted.

    Args:
        config: of the run.
        plan: of the run.
        n_cases: most that each training site can have.

    Raises:
        ConfigError: when there would be more than 2**17 steps of all sites in a round.
    """
    if config.federation.weighting != "steps" or config.federation.local_steps is not None:
        return
    found = sum(steps_of(config, plan, n) for n in n_cases)
    if found > MAX_CASES:
        raise ConfigError(
            f"federation.local_epochs: expected at most {MAX_CASES} steps of all sites in a round "
            f"under weighting = 'steps', found {found}"
        )


def steps_of(config: RunConfig, plan: Plan, n_cases: int) -> int:
    """Return the steps that a site with so many cases takes in a round."""
    batch_size = configuration_of(plan, config.model.configuration).batch_size
    return config.federation.steps_per_round(n_cases, batch_size)
