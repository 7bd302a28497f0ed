"""Answering a round with a masked update: what the site demands first, and what it then sends."""

from dataclasses import replace
from typing import cast

import numpy as np

from client.secure.keys import member_of, require_keys
from client.secure.promises import Masked, keep_attempt, round_file
from client.site import Agreement, SiteConfig, site_log
from common.axes import Weights
from common.codec import content_hash
from common.errors import PolicyError
from common.fixed_point import encoded
from common.messages import MaskedUpdate, TrainTask, Update
from common.packing import weights_digest
from common.round_sums import n_sums, to_sums
from common.secure_aggregation import SecureAggregation
from common.secure_round import Attempt, SecureRound, masked, sealed

VECTOR = "masked"  # name of the masked vector beside an answer


def require_secure(site: SiteConfig, agreement: Agreement, task: TrainTask) -> None:
    """Demand a question that keeps what was agreed on: masked for enough sites, or plain.

    Asked before training, and again before the answer leaves.

    Raises:
        PolicyError: with the rule "privacy".
    """
    settings = agreement.terms.config.federation.secure_aggregation
    if (settings is None) != (task.secure is None):
        agreed = "plain" if settings is None else "masked"
        raise PolicyError(f"secure sum: expected to send {agreed} updates, as agreed", "privacy")
    if settings is None or task.secure is None:
        return
    _require_attempt(site, settings, task, task.secure)


def masked_update(
    site: SiteConfig,
    agreement: Agreement,
    task: TrainTask,
    update: Update,
    sent: Weights,
    trained: Weights,
) -> tuple[Update, Weights]:
    """Return what leaves the site of an update in a secure round.

    Args:
        site: whose update it is.
        agreement: of the run.
        task: the question; checked by `require_secure`.
        update: what a plain answer would tell.
        sent: weights that were received.
        trained: the same tensors after training.

    Raises:
        PolicyError: when the round was agreed to in the meantime, or the roster is no good one.
        MessageError: when a change is too large for the fixed-point numbers.
    """
    secure = cast("SecureRound", task.secure)
    regions = tuple(agreement.terms.task.regions)
    count = agreement.terms.config.federation.counted(update.n_cases, update.n_steps)
    if count > secure.total_count:
        raise PolicyError(
            f"secure sum: expected a total of at least this site's own count, {count}, found "
            f"{secure.total_count}",
            "privacy",
        )
    numbers = to_sums(count, update.loss, update.validation, regions)
    vector = encoded(sent, trained, count / secure.total_count, numbers)
    question = content_hash(
        [agreement.terms.task, agreement.terms.config, task, weights_digest(sent)]
    )
    attempt = Attempt(task.run, task.method, task.round, secure, question)
    member = member_of(site, attempt)
    told, shares = masked(vector, n_sums(regions), member)
    for_others = sealed(shares, member)
    keep_attempt(
        round_file(site, task.run, task.method, task.round, "attempt"),
        Masked(secure=secure, question=question, own=shares[site.name]),
    )
    require_secure(site, agreement, task)  # again: the round may have been agreed to meanwhile
    site_log(site).info(
        "run %s: %s, round %d: update masked for the sum of %s",
        *(task.run, task.method, task.round, ", ".join(secure.sites)),
    )
    answer = replace(
        update,
        n_cases=0,
        n_steps=0,
        loss=None,
        validation=None,
        masked=MaskedUpdate(nonce=secure.roster.nonce, shares=for_others),
    )
    return answer, {VECTOR: told.view(np.int64)}


def _require_attempt(
    site: SiteConfig, settings: SecureAggregation, task: TrainTask, secure: SecureRound
) -> None:
    require_keys(site, task.run, secure)
    n_sites = len(secure.sites)
    if n_sites < settings.min_sites:
        raise PolicyError(
            f"secure sum: expected at least {settings.min_sites} sites, found {n_sites}", "privacy"
        )
    if secure.threshold != settings.threshold(n_sites):
        raise PolicyError(
            f"secure sum: expected a threshold of {settings.threshold(n_sites)} of {n_sites} "
            f"sites, found {secure.threshold}",
            "privacy",
        )
    if round_file(site, task.run, task.method, task.round, "agreed").exists():
        raise PolicyError(
            f"secure sum: {task.method}, round {task.round}: its survivors were agreed on; "
            "another attempt could show a difference of two sums",
            "privacy",
        )
