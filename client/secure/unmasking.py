"""Agreeing to a round's survivors, once, and telling the shares that open their sum.

A site tells of a survivor only shares of its own seed, and of a site that dropped out only shares
of the seeds that survivors have with it.
"""

import hmac
from collections.abc import Mapping

from client.permission import permitted_agreement
from client.secure.keys import member_of, require_keys
from client.secure.promises import Masked, Promise, Told, kept, kept_once, round_file
from client.site import SiteConfig, site_log
from common.codec import content_hash
from common.errors import PolicyError
from common.messages import Agreed, AgreeTask, Unmasked, UnmaskTask
from common.secure_round import Attempt, Member, SecureRound, Shares, agreement_code, opened


def agree(site: SiteConfig, task: AgreeTask) -> Agreed:
    """Agree to the survivors of the round's latest attempt; asked again, to the same ones only.

    Raises:
        PolicyError: for another attempt, too few survivors, others than before, or without this
            site.
    """
    attempt, _ = _attempt(site, task)
    _promise(site, task)
    member = member_of(site, attempt)
    codes = {
        other.site: agreement_code(member, site.name, other, task.survivors)
        for other in member.others
        if other.site in task.survivors
    }
    return Agreed(nonce=task.nonce, codes=codes)


def unmask(site: SiteConfig, task: UnmaskTask) -> Unmasked:
    """Tell this site's shares; once per round, and the same ones if the same is asked again.

    Raises:
        PolicyError: as in `agree`, when fewer than the threshold agreed, or when shares are not
            those that their sender sealed for this site in this attempt.
    """
    attempt, own = _attempt(site, task)
    _promise(site, task)
    member = member_of(site, attempt)
    _require_agreement(member, task)
    if set(task.shares) != set(task.survivors) - {site.name}:
        raise PolicyError("secure sum: expected shares from every other survivor", "privacy")
    received = {name: opened(text, name, member) for name, text in task.shares.items()}
    told = Told(
        question=content_hash([task.nonce, sorted(task.shares.items())]),
        answer=_answer(attempt.secure, {**received, site.name: own}, task),
    )
    path = round_file(site, task.run, task.method, task.round, "told")
    if kept_once(Told, path, told).question != told.question:
        raise PolicyError(
            f"secure sum: {task.method}, round {task.round}: other shares were told already",
            "privacy",
        )
    site_log(site).info(
        "run %s: %s, round %d: shares told for the sum of %s",
        *(task.run, task.method, task.round, ", ".join(sorted(task.survivors))),
    )
    return told.answer


def _attempt(site: SiteConfig, task: AgreeTask | UnmaskTask) -> tuple[Attempt, Shares]:
    """Return the round's latest attempt and this site's own shares of its own seeds."""
    agreement = permitted_agreement(site, task.run, task.plan_hash)
    settings = agreement.terms.config.federation.secure_aggregation
    found = kept(Masked, round_file(site, task.run, task.method, task.round, "attempt"))
    if settings is None or found is None or found.secure.roster.nonce != task.nonce:
        raise PolicyError(
            f"secure sum: {task.method}, round {task.round}: expected the attempt that this site "
            "masked its latest update for",
            "privacy",
        )
    require_keys(site, task.run, found.secure)
    names, secure = task.survivors, found.secure
    fewest = max(settings.fewest_survivors(len(secure.sites)), site.policy.min_secure_sites)
    known = len(set(names)) == len(names) and set(names) <= set(secure.sites)
    if not known or site.name not in names or len(names) < fewest:
        raise PolicyError(
            f"secure sum: expected {site.name} and in all at least {fewest} of "
            f"{', '.join(secure.sites)}, each once, found {', '.join(names) or 'none'}",
            "privacy",
        )
    attempt = Attempt(task.run, task.method, task.round, secure, found.question)
    return attempt, found.own


def _promise(site: SiteConfig, task: AgreeTask | UnmaskTask) -> None:
    """Agree to the survivors on this site's disk, if it did not agree to others before."""
    wanted = Promise(nonce=task.nonce, survivors=tuple(sorted(task.survivors)))
    path = round_file(site, task.run, task.method, task.round, "agreed")
    if kept_once(Promise, path, wanted) != wanted:
        raise PolicyError(
            f"secure sum: {task.method}, round {task.round}: this site agreed to other survivors; "
            "a difference of two sums could show one site's update",
            "privacy",
        )


def _require_agreement(member: Member, task: UnmaskTask) -> None:
    """Demand that enough survivors, this site included, agreed to the same ones."""
    agreed = {
        other.site
        for other in member.others
        if other.site in task.survivors
        and hmac.compare_digest(
            task.codes.get(other.site, ""),
            agreement_code(member, other.site, other, task.survivors),
        )
    }
    threshold = member.attempt.secure.threshold
    if len(agreed) + 1 < threshold:
        raise PolicyError(
            f"secure sum: expected {threshold} sites that agreed to these survivors, found "
            f"{len(agreed) + 1}",
            "privacy",
        )


def _answer(secure: SecureRound, received: Mapping[str, Shares], task: UnmaskTask) -> Unmasked:
    dropped = [name for name in secure.sites if name not in received]
    return Unmasked(
        nonce=task.nonce,
        own={name: shares.own for name, shares in received.items()},
        pairs={
            name: {other: shares.pairs[other] for other in dropped}
            for name, shares in received.items()
        },
    )
