"""A placeholder without any ledger, which part B of issue 9 replaces. Not for use."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from client.site import Agreement, SiteConfig
from common.errors import PolicyError
from common.messages import TrainTask
from common.privacy.mechanism import Spent


@contextmanager
def charged(
    site: SiteConfig,  # noqa: ARG001 - the ledger's
    agreement: Agreement,
    task: TrainTask,  # noqa: ARG001 - the ledger's
    n_patients: int,
    n_steps: int,  # noqa: ARG001 - the ledger's
) -> Iterator[Callable[[], None]]:
    """Give what to call before every noisy step."""
    privacy = agreement.terms.config.privacy
    if privacy is None or privacy.delta > 1 / n_patients:
        raise PolicyError("[privacy]: delta: expected at most 1 / patients", "privacy")
    yield lambda: None


def spent(site: SiteConfig, agreement: Agreement) -> Spent:  # noqa: ARG001 - the ledger's
    """Return that nothing is known of what was spent."""
    privacy = agreement.terms.config.privacy
    delta = privacy.delta if privacy else 0.5
    return Spent(epsilon=sys.float_info.max, delta=delta, budget_used=1.0)
