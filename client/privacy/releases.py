"""What leaves a site without noise, written into the privacy ledger where there is one.

No epsilon covers it: counts of the data set, Dice of validation cases, metrics and pictures of
held-out cases. Each is noted once per run. Weights that were trained without noise end every
guarantee for these patients.
"""

from client.privacy.entry import RELEASED, WITHOUT_PRIVACY, Entry, new_entry
from client.privacy.ledger import load_account, record_entry
from client.site import SiteConfig
from common.evaluation.postprocess_choice import ValidationSums
from common.messages import (
    FloorMeasured,
    Measured,
    Personalised,
    Prepared,
    Ranked,
    Tested,
    Update,
    Validated,
)


def note_release(site: SiteConfig, run: str | None, answer: object, task: object = None) -> None:
    """Write down what an answer tells without noise, before it leaves.

    A site without a ledger has none of its patients' costs to keep, and nothing is written.

    Raises:
        PolicyError: with the rule "privacy", when the ledger is damaged or cannot be written: the
            answer must not leave then.
    """
    path = site.privacy_ledger_file
    entries = _entries(site, run, answer, task)
    if not entries or not path.exists():
        return
    noted = {(e.kind, e.run, e.method, e.round, e.what) for e in load_account(path).entries}
    for entry in entries:
        if (entry.kind, entry.run, entry.method, entry.round, entry.what) not in noted:
            record_entry(path, entry)


def told(  # noqa: C901, PLR0911 - one line per kind of answer
    site: SiteConfig, answer: object
) -> tuple[str, ...]:
    """Return in words what an answer tells without noise, apart from weights."""
    match answer:
        case Measured():
            how = {
                "exact": "as they are",
                "coarse": "in bins of several cases",
                "secure-sum": "in a sum of several sites",
            }[site.policy.fingerprint]
            return (f"counts and histograms of the data set, {how}",)
        case Prepared() if answer.n_training_cases:
            return ("the numbers of training and validation cases",)
        case Update():
            dice = ("mean Dice of the validation cases",) if answer.validation else ()
            return ("the number of training cases, and the time of a round", *dice)
        case Validated():
            return ("mean Dice of the validation cases",) if answer.dice else ()
        case Personalised():
            return ("mean Dice of the validation cases, of a model trained here",)
        case ValidationSums():
            return ("sums of metrics of the validation cases",)
        case Tested():
            metrics = {
                "secure-sum": "that held-out cases were tested",
                "ranks": "that held-out cases were tested, and how many",
                "aggregates": "that held-out cases were tested, and how many",
                "cases": "metrics of every held-out case",
            }[answer.metrics]
            pictures = ("pictures of held-out cases",) if answer.pictures else ()
            return (metrics, *pictures)
        case Ranked() if not answer.sums.institutions:
            return ("sums of ranks and metrics over held-out cases, in a sum of several sites",)
        case Ranked():
            means = ("means and quartiles over held-out cases",) if answer.aggregates else ()
            return ("sums of ranks over held-out cases", *means)
        case FloorMeasured():
            return ("mean Dice of a threshold on held-out cases",)
        case _:
            return ()


def _entries(site: SiteConfig, run: str | None, answer: object, task: object) -> tuple[Entry, ...]:
    noted = tuple(new_entry(RELEASED, run=run, what=what) for what in told(site, answer))
    if not isinstance(answer, Update) or answer.spent is not None:
        return noted
    method, round_ = getattr(task, "method", None), getattr(task, "round", None)
    trained = new_entry(
        WITHOUT_PRIVACY, run=run, method=method, round=round_, what="weights, and the mean loss"
    )
    return (*noted, trained)
