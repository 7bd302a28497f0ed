"""Whether noisy steps may be done: asked before each of them, and written down first.

Three limits hold at once: the budget of the data set, which its ledger carries over runs, restarts
and federations; what the run's configuration promises; and what the site's policy allows. A step
that was charged is never given back, so that a crash costs a little too much and never too little.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from client.dataset.layouts import describe
from client.privacy.data_version import data_version
from client.privacy.entry import NOISY_STEPS, new_entry
from client.privacy.ledger import Account, record_entry, require_account
from client.site import Agreement, SiteConfig
from common.config import RunConfig
from common.errors import PolicyError
from common.messages import TrainTask
from common.privacy.accounting import epsilon_of, within
from common.privacy.mechanism import NoisySteps, Spent
from common.privacy.run_cost import allowed_steps, noisy_steps, planned_steps, promised_epsilon
from common.privacy.settings import PatientPrivacy
from common.secure_sum import Key

SLICES = 400  # about so many lines does a run add to the ledger
MOST_STEPS_PER_SLICE = 10  # so many may be charged and not done, after a crash


def require_whole_run(site: SiteConfig, agreement: Agreement) -> None:
    """Demand that the ledger has room for all that is left of a run, before it begins.

    Raises:
        PolicyError: with the rule "privacy".
    """
    account, run = require_account(site.privacy_ledger_file), agreement.terms.run
    n_done = sum(steps.steps for steps in account.of_run(run))
    n_left = max(0, planned_steps(agreement.terms.config) - n_done)
    _require_room(site, agreement, account, n_left)


def require_private(site: SiteConfig, agreement: Agreement, n_patients: int) -> None:
    """Demand that a site may train privately with so many patients at all.

    Raises:
        PolicyError: with the rule "privacy": no ledger that can be relied on, a delta above
            1 / n_patients, no noise, or a run that costs more than the policy allows.
    """
    config = agreement.terms.config
    privacy = _privacy_of(config)
    _noise(agreement)
    account = require_account(site.privacy_ledger_file)
    if n_patients < 1:
        raise PolicyError("privacy: expected at least one patient, found none", "privacy")
    _, budget_delta = _budget(account)
    for name, delta in (
        ("privacy.delta", privacy.delta),
        (f"{account.path}: delta", budget_delta),
    ):
        if delta > 1 / n_patients:
            raise PolicyError(
                f"{name}: expected at most 1 / patients = {1 / n_patients:.3g}, found {delta:g}",
                "privacy",
            )
    require_epsilon(site.policy.max_epsilon, config)


def require_epsilon(limit: float | None, config: RunConfig) -> None:
    """Demand that a whole run costs at most what a policy allows, if it says so.

    Raises:
        PolicyError: with the rule "privacy".
    """
    if limit is None or (config.privacy is not None and promised_epsilon(config) <= limit):
        return
    found = (
        "training without differential privacy"
        if config.privacy is None
        else f"{promised_epsilon(config):.4g} at delta {config.privacy.delta:g}"
    )
    raise PolicyError(
        f"policy.max_epsilon: expected training with an epsilon of at most {limit:g}, "
        f"found {found}",
        "privacy",
    )


@contextmanager
def charged(
    site: SiteConfig, agreement: Agreement, task: TrainTask, n_patients: int, n_steps: int
) -> Iterator[Callable[[], None]]:
    """Yield what is called before every noisy step; when it returns, the step is in the ledger.

    Args:
        site: whose patients.
        agreement: of the run; its `noise_multiplier` is what is charged.
        task: the round.
        n_patients: from whom samples are drawn.
        n_steps: that will be done; for more, the account is looked at again.

    Raises:
        PolicyError: with the rule "privacy", also from what is yielded: for anything that the
            budgets, delta or the ledger do not allow. The step must not be done then.
    """
    require_private(site, agreement, n_patients)
    account = require_account(site.privacy_ledger_file)
    _require_room(site, agreement, account, n_steps)
    cases = describe(site.data_folder, agreement.terms.task, agreement.cases).cases
    version = data_version(site.privacy_ledger_file, cases)
    known = len(account.entries)
    yield _Meter(site, agreement, task, n_patients, version, n_steps, known).before_step


def spent(site: SiteConfig, agreement: Agreement) -> Spent:
    """Return what a run has cost so far, as the ledger says.

    Raises:
        PolicyError: with the rule "privacy", when the ledger is not sound or has no such steps.
    """
    privacy = _privacy_of(agreement.terms.config)
    account = require_account(site.privacy_ledger_file)
    epsilon = epsilon_of(account.of_run(agreement.terms.run), privacy.delta)
    if epsilon <= 0 or math.isinf(epsilon):
        raise PolicyError(
            f"{account.path}: expected steps of run {agreement.terms.run} with a known cost, "
            f"found epsilon {epsilon:g}",
            "privacy",
        )
    limit, delta = _budget(account)
    share = min(1.0, epsilon_of(account.noisy, delta) / limit)
    return Spent(epsilon=epsilon, delta=privacy.delta, budget_used=share)


@dataclass
class _Meter:
    """Charges the steps of one round in slices."""

    site: SiteConfig
    agreement: Agreement
    task: TrainTask
    n_patients: int
    version: Key
    n_left: int
    """Steps that the account was asked for and that are not charged yet."""
    known: int
    """Entries of the ledger up to which the account was looked at."""
    n_charged: int = 0
    """Steps that are charged and not done yet."""

    def before_step(self) -> None:
        """Return when one more step is in the ledger."""
        if self.n_charged == 0:
            self._charge()
        self.n_charged -= 1

    def _charge(self) -> None:
        config = self.agreement.terms.config
        a_slice = min(MOST_STEPS_PER_SLICE, max(1, allowed_steps(config) // SLICES))
        n = max(1, min(a_slice, self.n_left))
        entry = new_entry(
            NOISY_STEPS,
            run=self.agreement.terms.run,
            method=self.task.method,
            round=self.task.round,
            data_version=self.version,
            patients=self.n_patients,
            steps=noisy_steps(config, _noise(self.agreement), n),
            clip_norm=_privacy_of(config).clip_norm,
        )
        asked = max(n, self.n_left)
        seen = self.known if n <= self.n_left else None  # more than was asked for: look again
        self.known = record_entry(
            self.site.privacy_ledger_file,
            entry,
            seen,
            lambda account: _require_room(self.site, self.agreement, account, asked),
        )
        self.n_left, self.n_charged = self.n_left - n, n


def _require_room(site: SiteConfig, agreement: Agreement, account: Account, n_steps: int) -> None:
    """Demand that further steps cost neither data set nor run more than is allowed."""
    config, run = agreement.terms.config, agreement.terms.run
    privacy, noise, path = _privacy_of(config), _noise(agreement), account.path
    whole = noisy_steps(config, noise, allowed_steps(config))
    mine = (*account.of_run(run), noisy_steps(config, noise, n_steps))
    others, (limit, delta) = account.of_other_runs(run), _budget(account)
    if not _fits(others, mine, whole, delta, limit):
        raise PolicyError(
            f"{path}: {n_steps} further steps would cost more than the budget of the data set: "
            f"expected at most epsilon {limit:g} at delta {delta:g}, spent "
            f"{epsilon_of(account.noisy, delta):.4g}, with them "
            f"{epsilon_of((*others, *mine), delta):.4g}",
            "privacy",
        )
    promised = min(privacy.epsilon or math.inf, site.policy.max_epsilon or math.inf)
    if not _fits((), mine, whole, privacy.delta, promised):
        raise PolicyError(
            f"run {run}: {n_steps} further steps would cost more than was promised: expected at "
            f"most epsilon {promised:g} at delta {privacy.delta:g}, with them "
            f"{epsilon_of(mine, privacy.delta):.4g}; rounds that were repeated cost again",
            "privacy",
        )


def _fits(
    others: Sequence[NoisySteps],
    mine: Sequence[NoisySteps],
    whole: NoisySteps,
    delta: float,
    limit: float,
) -> bool:
    """Return whether steps of other runs and of this one cost at most `limit`.

    The whole run is tried first, where it is more: its cost is the same in every round, and known.
    """
    kinds = {(steps.sampling_rate, steps.noise_multiplier) for steps in mine}
    is_more = (
        kinds == {(whole.sampling_rate, whole.noise_multiplier)}
        and sum(steps.steps for steps in mine) <= whole.steps
    )
    if is_more and within((*others, whole), delta, limit):
        return True
    return within((*others, *mine), delta, limit)


def _budget(account: Account) -> tuple[float, float]:
    """Return epsilon and delta of the data set."""
    budget = account.budget
    if budget is None or budget.epsilon is None or budget.delta is None:
        raise PolicyError(f"{account.path}: expected a budget, found none", "privacy")
    return budget.epsilon, budget.delta


def _privacy_of(config: RunConfig) -> PatientPrivacy:
    if config.privacy is None:
        raise PolicyError("privacy: expected in the configuration, found none", "privacy")
    return config.privacy


def _noise(agreement: Agreement) -> float:
    noise = agreement.noise_multiplier
    if noise is None or not noise > 0:
        raise PolicyError(
            f"run {agreement.terms.run}: expected a noise multiplier above 0, found {noise}",
            "privacy",
        )
    return noise
