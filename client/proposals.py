"""What a coordinator asked this site to take part in, and what a person here said to it.

One file per task, configuration and plan in ``state/proposals``, named by the beginning of their
hash. It waits until a person approves or refuses it; the answer holds for exactly that hash.
"""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from client.site import SiteConfig
from common.codec import content_hash, read_json, record, write_json
from common.config import RunConfig
from common.errors import ConfigError, PolicyError
from common.messages import PrepareTask
from common.secure_sum import Key
from common.task import Task

MOST_WAITING = 100  # a coordinator cannot fill the disk with questions
SHORT = 16  # digits of a hash that name a file

Answer = Literal["waiting", "approved", "refused"]


@record
class Proposal:
    """One thing that was asked. Stays at the site."""

    hash: Key
    """Of task, configuration and plan; nothing else is approved with it."""
    run: str
    """Name of the run that asked first."""
    asked: str
    """When, UTC."""
    answer: Answer
    answered: str | None = None
    """When, UTC."""
    summary: tuple[str, ...]
    """`client.proposal_words.describe`, when it was asked."""
    task: Task
    config: RunConfig
    plan_hash: str
    edited: bool
    """Whether a person at the coordinator changed the plan."""

    @property
    def short(self) -> str:
        """What a person types."""
        return self.hash[:SHORT]


def proposal_of(terms: PrepareTask) -> Proposal:
    """Return what a message proposes, unanswered and not yet described."""
    parts = [content_hash(terms.task), content_hash(terms.config), terms.plan_hash]
    return Proposal(
        hash=content_hash(parts),
        run=terms.run,
        asked=_now(),
        answer="waiting",
        summary=(),
        task=terms.task,
        config=terms.config,
        plan_hash=terms.plan_hash,
        edited=terms.edited_plan is not None,
    )


def answer_to(site: SiteConfig, proposal: Proposal) -> Answer | None:
    """Return what was said to exactly this proposal; None if it was never made.

    Raises:
        ConfigError: when its file is damaged, or holds something else under the same short hash.
    """
    path = _file(site, proposal.hash)
    if not path.exists():
        return None
    kept = read_json(Proposal, path)
    if kept.hash != proposal.hash or proposal_hash(kept) != kept.hash:
        raise ConfigError(f"{path}: expected the proposal {proposal.hash}, found another")
    return kept.answer


def proposal_hash(kept: Proposal) -> Key:
    """Return the hash of what a kept proposal says, which has to be the one that it claims."""
    return content_hash([content_hash(kept.task), content_hash(kept.config), kept.plan_hash])


def keep_proposal(site: SiteConfig, proposal: Proposal) -> None:
    """Write down what was asked, for a person to answer.

    Raises:
        PolicyError: when too many wait for an answer already.
    """
    n_waiting = sum(kept.answer == "waiting" for kept in proposals(site))
    if n_waiting >= MOST_WAITING:
        raise PolicyError(
            f"{_folder(site)}: {n_waiting} proposals wait for an answer; expected fewer than "
            f"{MOST_WAITING} before another is written down",
            "approval",
        )
    write_json(_file(site, proposal.hash), proposal)


def proposals(site: SiteConfig) -> tuple[Proposal, ...]:
    """Return everything that was asked of this site for approval, the oldest first."""
    found = [read_json(Proposal, path) for path in sorted(_folder(site).glob("*.json"))]
    return tuple(sorted(found, key=lambda proposal: (proposal.asked, proposal.hash)))


def approve(site: SiteConfig, hash_: str) -> Proposal:
    """Approve a proposal for good.

    Args:
        site: that was asked.
        hash_: of the proposal, or its beginning.

    Raises:
        ConfigError: when none, or more than one, begins so.
    """
    return _answered(site, hash_, "approved")


def refuse(site: SiteConfig, hash_: str) -> Proposal:
    """Refuse a proposal, also one that was approved before; as in `approve`.

    Work that goes on is finished; the next message of the run is refused.
    """
    return _answered(site, hash_, "refused")


def _answered(site: SiteConfig, hash_: str, answer: Answer) -> Proposal:
    wanted = hash_.strip().lower()
    found = [p for p in proposals(site) if wanted and p.hash.startswith(wanted)]
    if len(found) != 1:
        known = ", ".join(p.short for p in proposals(site)) or "none"
        raise ConfigError(
            f"proposal {hash_!r}: expected the beginning of one hash ({known}), "
            f"found {len(found)} that begin so"
        )
    proposal = found[0]
    if proposal_hash(proposal) != proposal.hash:
        path = _file(site, proposal.hash)
        raise ConfigError(f"{path}: was changed by hand; delete it, and it is asked for again")
    kept = replace(proposal, answer=answer, answered=_now())
    write_json(_file(site, kept.hash), kept)
    return kept


def _folder(site: SiteConfig) -> Path:
    return site.state_folder / "proposals"


def _file(site: SiteConfig, hash_: Key) -> Path:
    return _folder(site) / f"{hash_[:SHORT]}.json"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
