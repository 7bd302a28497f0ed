"""A site's part in a secure sum: a fresh key per attempt, and one masked answer per key.

State lies in the run's folder, readable by this user only: `<nonce>.key` is written when a key is
asked for and becomes `<nonce>.used`, without its content, before an answer is made. Who asks twice
is refused; a crash in between costs one attempt.
"""

import hmac
import os
import secrets
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from client.secure.genuine_keys import require_genuine_keys
from client.site import SiteConfig, site_log
from common.axes import Weights
from common.codec import canonical_json, read_json, record
from common.errors import ConfigError, DiskError, PolicyError
from common.files import make_folder
from common.messages import KeysTask
from common.planning.fingerprint import Fingerprint
from common.planning.fingerprint_grid import to_vector
from common.secure_sum import (
    Key,
    MaskKey,
    Roster,
    masked,
    new_private_key,
    public_key_of,
    signature_of,
)

COUNTS = "counts"  # name of the masked vector beside the answer
SECRET_BYTES = 32


@record
class _Attempt:
    """What `<nonce>.key` holds. Never leaves the site."""

    private_key: Key
    sites: tuple[str, ...]


def make_key(site: SiteConfig, task: KeysTask) -> MaskKey:
    """Return this site's public key for one sum, signed if the site has a long-term key.

    Asked again for the same attempt, the site answers the same key until it was used.

    Raises:
        PolicyError: when the policy is another, the company too small or not the one of before,
            or the attempt was answered already.
    """
    if task.purpose != "counts":
        raise PolicyError(f"secure sum: a key for {task.purpose} masks no counts", "privacy")
    if site.policy.fingerprint != "secure-sum":
        raise PolicyError(
            f"policy.fingerprint: {site.policy.fingerprint!r} masks nothing", "privacy"
        )
    _check_company(site, task.run, task.sites)
    path = _folder(site, task.run) / f"{task.nonce}.key"
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
    signature = signature_of(Path(site.identity), task.run, task.nonce, attempt.sites, key)
    return replace(key, signature=signature)


def masked_counts(site: SiteConfig, run: str, roster: Roster, fingerprint: Fingerprint) -> Weights:
    """Return the site's fingerprint masked for the sum of a roster; once per attempt.

    Args:
        site: whose policy is ``secure-sum``.
        run: name of the run.
        roster: what the coordinator says about who masks together.
        fingerprint: as it was measured.

    Returns:
        One array of 64-bit words, `COUNTS`, under a signed type because messages allow no other.

    Raises:
        PolicyError: for another roster than the key was made for, too few sites, a key that is
            not genuine, or an attempt that was answered already.
    """
    path = _folder(site, run) / f"{roster.nonce}.key"
    attempt = _kept(path)
    _check_company(site, run, attempt.sites)
    _check_roster(site, run, roster, attempt)
    vector = to_vector(fingerprint)
    _spend(path)
    write_once(_members(site, run), canonical_json(attempt.sites))
    _check_company(site, run, attempt.sites)  # again: two could have come to this line
    told = masked(vector, site.name, attempt.private_key, run, roster)
    names = ", ".join(attempt.sites)
    site_log(site).info("run %s: counts masked for the sum of %s (%s)", run, names, roster.nonce)
    return {COUNTS: told.view(np.int64)}


def data_digest(site: SiteConfig, run: str, fingerprint: Fingerprint) -> str:
    """Return a keyed hash of the fingerprint: equal while the data are, and only within a run."""
    secret = kept_secret(site.state_folder / "fingerprint.key")
    return hmac.digest(secret, canonical_json([run, fingerprint]), "sha256").hex()


def kept_secret(path: Path) -> bytes:
    """Return a secret word of this site's own, drawn when it is first asked for.

    Raises:
        DiskError: when it cannot be written, or is damaged.
    """
    write_once(path, secrets.token_bytes(SECRET_BYTES))
    secret = path.read_bytes()
    if len(secret) != SECRET_BYTES:
        raise DiskError(f"{path}: expected {SECRET_BYTES} bytes, found {len(secret)}; delete it")
    return secret


def _check_company(site: SiteConfig, run: str, names: Sequence[str]) -> None:
    """Demand enough different sites, this one among them, and always the same ones in a run."""
    if len(set(names)) != len(names) or site.name not in names:
        raise PolicyError(
            f"secure sum: expected {site.name} and others, each once, found {names}", "privacy"
        )
    if len(names) < site.policy.min_secure_sites:
        raise PolicyError(
            f"policy.min_secure_sites: expected at least {site.policy.min_secure_sites} sites that "
            f"mask their fingerprints, found {len(names)}: {', '.join(sorted(names))}",
            "privacy",
        )
    members = _members(site, run)
    if members.exists() and members.read_bytes() != canonical_json(sorted(names)):
        raise PolicyError(
            f"run {run}: counts were masked for the sum of other sites before, found "
            f"{', '.join(sorted(names))}; a difference of two sums could show one site's counts",
            "privacy",
        )


def _check_roster(site: SiteConfig, run: str, roster: Roster, attempt: _Attempt) -> None:
    if roster.sites != attempt.sites:
        raise PolicyError(
            f"secure sum: expected the sites {', '.join(attempt.sites)}, for which the key was "
            f"made, found {', '.join(roster.sites)}",
            "privacy",
        )
    require_genuine_keys(site, run, roster.keys, attempt.private_key, roster.nonce, attempt.sites)


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


def _folder(site: SiteConfig, run: str) -> Path:
    return site.run_folder(run) / "secure-sum"


def _members(site: SiteConfig, run: str) -> Path:
    return _folder(site, run) / "members.json"


def write_once(path: Path, content: bytes) -> None:
    """Write a file that only this user can read, unless it is there; the first writer wins."""
    make_folder(path.parent)
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except FileExistsError:
        return
    except OSError as error:
        raise DiskError(f"{path}: cannot be written: {error.strerror}") from None
