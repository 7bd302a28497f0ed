"""The privacy ledger: one file per data set, opened by a person, read whole before it is trusted.

It is the only source of epsilon. Whatever makes its account uncertain (no ledger, a damaged or
shortened one, no head beside it, a line that is not understood) is a refusal and not a zero.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from client.chain.appending import Held, head_file, held
from client.chain.reading import read, verify
from client.privacy.entry import FORMAT, NOISY_STEPS, OPENED, WITHOUT_PRIVACY, Entry, new_entry
from common.errors import ConfigError, DiskError, PolicyError
from common.privacy.mechanism import NoisySteps


@dataclass(frozen=True)
class Account:
    """What a ledger says, folded."""

    path: Path
    entries: tuple[Entry, ...]

    @cached_property
    def budget(self) -> Entry | None:
        """The last line that gave a budget; its epsilon and delta are set."""
        opened = [e for e in self.entries if e.kind == OPENED and e.understood]
        return opened[-1] if opened else None

    @cached_property
    def noisy(self) -> tuple[NoisySteps, ...]:
        """All steps with noise, on every version of the data: they are the same patients."""
        return steps_of(self.entries)

    def of_run(self, run: str) -> tuple[NoisySteps, ...]:
        """Return the steps with noise of the runs of one name."""
        return steps_of(tuple(e for e in self.entries if e.run == run))

    def of_other_runs(self, run: str) -> tuple[NoisySteps, ...]:
        """Return the steps with noise of the runs of every other name."""
        return steps_of(tuple(e for e in self.entries if e.run != run))

    @cached_property
    def not_understood(self) -> tuple[Entry, ...]:
        """Lines whose cost is not known."""
        return tuple(e for e in self.entries if not e.understood)

    @cached_property
    def without_privacy(self) -> tuple[Entry, ...]:
        """Training without noise since a person last gave a budget."""
        first = self.budget.n if self.budget else 0
        return tuple(e for e in self.entries if e.kind == WITHOUT_PRIVACY and e.n > first)


def steps_of(entries: tuple[Entry, ...]) -> tuple[NoisySteps, ...]:
    """Return the steps with noise of entries."""
    return tuple(e.steps for e in entries if e.kind == NOISY_STEPS and e.steps is not None)


def open_ledger(
    path: Path,
    epsilon: float,
    delta: float,
    *,
    data_set: str | None = None,
    reason: str | None = None,
) -> None:
    """Give a data set a budget; what was spent before counts on.

    Args:
        path: of the ledger; made if it is not there.
        epsilon: that all runs together may cost, at `delta`.
        delta: of the budget, at most 1 / number of patients.
        data_set: a name for people.
        reason: why a ledger that is open gets another budget, or is used again after training
            without privacy.

    Raises:
        ConfigError: when the ledger is open and no reason is given, or it is damaged.
        DiskError: when it cannot be written.
    """
    there = path.exists() or head_file(path).exists()
    if there and not reason:
        raise ConfigError(
            f"{path}: expected no ledger; this one is open already, and another budget for it "
            "needs --reason"
        )
    if path.exists() and (wrong := verify(path, FORMAT)):
        raise ConfigError(f"{path}: {'; '.join(wrong)}; {FORMAT.advice}")
    with held(path, FORMAT, make=True) as file:
        if file.head.count and not reason:
            raise ConfigError(f"{path}: was opened by somebody else just now")
        file.append(
            new_entry(OPENED, epsilon=epsilon, delta=delta, data_set=data_set, reason=reason)
        )


def load_account(path: Path) -> Account:
    """Read a whole ledger, without a judgement about what it says.

    Raises:
        PolicyError: with the rule "privacy", when it is missing, damaged or shortened.
    """
    if not path.exists():
        raise PolicyError(
            f"{path}: expected the privacy ledger of this data set, found none; a person opens it "
            f"with `consilium privacy {path} --open --epsilon E --delta D`",
            "privacy",
        )
    try:
        wrong = verify(path, FORMAT)
        if not wrong:
            return Account(path, tuple(read(path, FORMAT)))
    except ConfigError as error:
        wrong = (str(error),)
    raise PolicyError(f"{path}: {'; '.join(wrong)}; {FORMAT.advice}", "privacy")


def require_account(path: Path) -> Account:
    """Return what a ledger says if a private step may rely on it.

    Raises:
        PolicyError: with the rule "privacy", also for a line that is not understood, and for
            training without privacy on the same patients.
    """
    account = load_account(path)
    if account.not_understood:
        line = account.not_understood[0]
        raise PolicyError(
            f"{path}: entry {line.n}: {line.kind!r} is not understood, so what it cost is not "
            "known; update Consilium",
            "privacy",
        )
    if account.budget is None:
        raise PolicyError(f"{path}: expected a budget in the first line, found none", "privacy")
    if account.without_privacy:
        line = account.without_privacy[0]
        raise PolicyError(
            f"{path}: entry {line.n}: run {line.run} trained on these patients without privacy, "
            "so no epsilon holds for them; a person who wants to go on says so with `consilium "
            f"privacy {path} --open --epsilon E --delta D --reason TEXT`",
            "privacy",
        )
    return account


def record_entry(
    path: Path,
    entry: Entry,
    known: int | None = None,
    require: Callable[[Account], None] | None = None,
) -> int:
    """Write an entry to the disk unless the account forbids it; nobody else writes in between.

    Args:
        path: of the ledger.
        entry: what is about to happen.
        known: number of entries up to which the account was looked at; None to look anyhow.
        require: looks at the account if there are more; raises if it forbids the entry; None
            for what costs no epsilon.

    Returns:
        How many entries there are now.

    Raises:
        PolicyError: with the rule "privacy", when the ledger is not sound or cannot be written:
            nothing may happen that is not in it.
    """
    with _writable(path) as file:
        if require is not None and file.head.count != known:
            require(require_account(path))
        return file.append(entry).n


@contextmanager
def _writable(path: Path) -> Iterator[Held[Entry]]:
    try:
        with held(path, FORMAT, make=False) as file:
            yield file
    except DiskError as error:
        raise PolicyError(f"{error}; nothing is trained that is not written down", "privacy") from (
            None
        )
    except ConfigError as error:
        raise PolicyError(str(error), "privacy") from None
