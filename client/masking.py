"""A site's part in a sum to which all answer: a fresh key per attempt, one masked answer per key.

Each kind of sum has a folder in the run's, readable by this user only: `<nonce>.key` is written
when a key is asked for and becomes `<nonce>.used`, without its content, before an answer is made.
Who asks twice is refused; a crash in between costs one attempt. All sums of a run are of the same
sites and the same data, or their difference would tell what was added.
"""

import hmac
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np

from client.kept_secrets import kept_secret, write_once
from client.secure.genuine_keys import require_genuine_keys
from client.site import SiteConfig, site_log
from common.axes import Weights
from common.codec import canonical_json, content_hash, read_json, record
from common.errors import ConfigError, PolicyError
from common.messages import KeysTask, MeasureTask
from common.planning.fingerprint import Fingerprint
from common.planning.fingerprint_grid import to_vector
from common.secure_sum import (
    Key,
    MaskKey,
    Roster,
    Words,
    masked,
    new_private_key,
    public_key_of,
    signature_of,
)

Purpose: TypeAlias = Literal["counts", "metrics"]
"""What a sum in which all sites answer is of."""

MEMBERS, DATA = "members.json", "data.json"  # of a run's first sum
COUNTS: Purpose = "counts"  # also names the masked vector beside the answer


@dataclass(frozen=True)
class _Kind:
    """One kind of sum, with keys, company and data of its own."""

    folder: str
    rule: str
    """Field of the policy that has to say "secure-sum"."""
    what: str
    """Is masked, in words."""


_KINDS: dict[Purpose, _Kind] = {
    "counts": _Kind("secure-sum", "fingerprint", "fingerprints"),
    "metrics": _Kind("secure-sum-of-metrics", "metrics", "metrics"),
}


@record
class _Attempt:
    """What `<nonce>.key` holds. Never leaves the site."""

    private_key: Key
    sites: tuple[str, ...]


@dataclass(frozen=True)
class SumPart:
    """What a site adds to a sum, and what binds it. Leaves the site masked only."""

    purpose: Purpose
    vector: Words
    data: Key
    """Hash or word that stays the same while the data do."""
    question: Key
    """Hash of all that the site was asked, without the roster."""


def make_key(site: SiteConfig, task: KeysTask) -> MaskKey:
    """Return this site's public key for one sum, signed if the site has a long-term key.

    Asked again for the same attempt, the site answers the same key until it was used.

    Raises:
        PolicyError: when the policy is another, the company too small or not the one of before,
            or the attempt was answered already.
    """
    if task.purpose == "updates":
        raise PolicyError("secure sum: a key for updates masks nothing else", "privacy")
    _require_policy(site, task.purpose)
    _check_company(site, task.run, task.purpose, task.sites)
    path = _folder(site, task.run, task.purpose) / f"{task.nonce}.key"
    if path.with_suffix(".used").exists():
        raise PolicyError(f"secure sum: attempt {task.nonce} was answered already", "privacy")
    if not path.exists():
        for unused in path.parent.glob("*.key"):
            unused.unlink(missing_ok=True)  # of attempts that came to nothing
        attempt = _Attempt(private_key=new_private_key(), sites=tuple(sorted(task.sites)))
        write_once(path, canonical_json(attempt))
    attempt = _kept(path)
    key = MaskKey(site=site.name, public_key=public_key_of(attempt.private_key))
    if site.identity is None:
        return key
    signed_as = _signed_as(task.purpose, task.nonce)
    signature = signature_of(Path(site.identity), task.run, signed_as, attempt.sites, key)
    return replace(key, signature=signature)


def masked_part(site: SiteConfig, run: str, roster: Roster, part: SumPart) -> Weights:
    """Return a site's part masked for the sum of a roster; once per attempt.

    Args:
        site: whose policy is ``secure-sum``.
        run: name of the run.
        roster: what the coordinator says about who masks together.
        part: what is added.

    Returns:
        One array of 64-bit words under the purpose's name, of a signed type because messages allow
        no other.

    Raises:
        PolicyError: for another roster than the key was made for, too few sites, a key that is
            not genuine, an attempt that was answered already, or data that changed since a sum.
    """
    purpose = part.purpose
    _require_policy(site, purpose)
    path = _folder(site, run, purpose) / f"{roster.nonce}.key"
    attempt = _kept(path)
    _check_company(site, run, purpose, attempt.sites)
    _check_roster(site, run, purpose, roster, attempt)
    _check_data(site, run, part)
    _spend(path)
    write_once(path.with_name(MEMBERS), canonical_json(attempt.sites))
    write_once(path.with_name(DATA), canonical_json(part.data))
    _check_company(site, run, purpose, attempt.sites)  # again: two could have come to this line
    _check_data(site, run, part)
    told = masked(part.vector, site.name, attempt.private_key, run, roster, part.question)
    names = ", ".join(attempt.sites)
    site_log(site).info(
        "run %s: %s masked for the sum of %s (%s)", run, purpose, names, roster.nonce
    )
    return {purpose: told.view(np.int64)}


def masked_counts(site: SiteConfig, task: MeasureTask, fingerprint: Fingerprint) -> Weights:
    """Return the site's fingerprint masked for the sum of the task's roster, as `masked_part`.

    Raises:
        PolicyError: as there, and for a task without a roster.
    """
    if task.roster is None:
        raise PolicyError("secure sum: expected a roster, found none", "privacy")
    part = SumPart(
        purpose=COUNTS,
        vector=to_vector(fingerprint),
        data=content_hash(fingerprint),
        question=content_hash(task.task),
    )
    return masked_part(site, task.run, task.roster, part)


def data_digest(site: SiteConfig, run: str, fingerprint: Fingerprint) -> str:
    """Return a keyed hash of the fingerprint: equal while the data are, and only within a run."""
    secret = kept_secret(site.state_folder / "fingerprint.key")
    return hmac.digest(secret, canonical_json([run, fingerprint]), "sha256").hex()


def _require_policy(site: SiteConfig, purpose: Purpose) -> None:
    rule = _KINDS[purpose].rule
    if (found := getattr(site.policy, rule)) != "secure-sum":
        raise PolicyError(f"policy.{rule}: {found!r} masks nothing", "privacy")


def _check_company(site: SiteConfig, run: str, purpose: Purpose, names: Sequence[str]) -> None:
    """Demand enough different sites, this one among them, and always the same ones in a run."""
    what = _KINDS[purpose].what
    if len(set(names)) != len(names) or site.name not in names:
        raise PolicyError(
            f"secure sum: expected {site.name} and others, each once, found {names}", "privacy"
        )
    if len(names) < site.policy.min_secure_sites:
        raise PolicyError(
            f"policy.min_secure_sites: expected at least {site.policy.min_secure_sites} sites that "
            f"mask their {what}, found {len(names)}: {', '.join(sorted(names))}",
            "privacy",
        )
    members = _folder(site, run, purpose) / MEMBERS
    if members.exists() and members.read_bytes() != canonical_json(sorted(names)):
        raise PolicyError(
            f"run {run}: {what} were masked for the sum of other sites before, found "
            f"{', '.join(sorted(names))}; a difference of two sums could show one site's",
            "privacy",
        )


def _check_data(site: SiteConfig, run: str, part: SumPart) -> None:
    """Demand the data of a first sum for every other one in a run."""
    path = _folder(site, run, part.purpose) / DATA
    if path.exists() and path.read_bytes() != canonical_json(part.data):
        raise PolicyError(
            f"run {run}: the data changed since {_KINDS[part.purpose].what} were masked; a "
            "difference of two sums could show what changed; begin another run",
            "privacy",
        )


def _check_roster(
    site: SiteConfig, run: str, purpose: Purpose, roster: Roster, attempt: _Attempt
) -> None:
    if roster.sites != attempt.sites:
        raise PolicyError(
            f"secure sum: expected the sites {', '.join(attempt.sites)}, for which the key was "
            f"made, found {', '.join(roster.sites)}",
            "privacy",
        )
    signed_as = _signed_as(purpose, roster.nonce)
    private_key, company = attempt.private_key, attempt.sites
    require_genuine_keys(site, run, roster.keys, private_key, signed_as, company)


def _signed_as(purpose: Purpose, nonce: str) -> str:
    """Return what a key is signed for: one attempt at one kind of sum."""
    return nonce if purpose == COUNTS else f"{purpose} {nonce}"


def _kept(path: Path) -> _Attempt:
    try:
        return read_json(_Attempt, path)
    except ConfigError:  # never made, used, or cut short by a crash
        raise PolicyError(
            f"secure sum: attempt {path.stem}: expected one with an unused key of this site",
            "privacy",
        ) from None


def _spend(path: Path) -> None:
    """Mark a key as used and forget it; of two who try, one succeeds."""
    used = path.with_suffix(".used")
    try:
        path.rename(used)
    except FileNotFoundError:
        raise PolicyError(
            f"secure sum: attempt {path.stem} was answered already", "privacy"
        ) from None
    os.truncate(used, 0)


def _folder(site: SiteConfig, run: str, purpose: Purpose) -> Path:
    return site.run_folder(run) / _KINDS[purpose].folder
