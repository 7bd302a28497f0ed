"""A site's key for the secure rounds of a run, and what it demands of the others' keys."""

from dataclasses import replace
from pathlib import Path

from client.kept_secrets import write_once
from client.secure.genuine_keys import require_genuine_keys
from client.site import SiteConfig
from common.errors import DiskError, PolicyError
from common.messages import KeysTask
from common.secure_round import SIGNED_AS, Attempt, Member, SecureRound
from common.secure_sum import MaskKey, new_private_key, public_key_of, signature_of


def run_key(site: SiteConfig, task: KeysTask) -> MaskKey:
    """Return this site's public key for a run, signed if the site has a long-term key.

    Raises:
        PolicyError: when fewer sites than the policy wants are to mask together.
    """
    if site.name not in task.sites or len(set(task.sites)) < site.policy.min_secure_sites:
        raise PolicyError(
            f"policy.min_secure_sites: expected {site.name} and in all at least "
            f"{site.policy.min_secure_sites} sites that mask their updates, found "
            f"{', '.join(sorted(set(task.sites)))}",
            "privacy",
        )
    key = MaskKey(site=site.name, public_key=public_key_of(_private_key(site, task.run)))
    if site.identity is None:
        return key
    signature = signature_of(Path(site.identity), task.run, SIGNED_AS, (), key)
    return replace(key, signature=signature)


def member_of(site: SiteConfig, attempt: Attempt) -> Member:
    """Return the site as a member of an attempt, with its private key."""
    return Member(attempt, site.name, _private_key(site, attempt.run))


def require_keys(site: SiteConfig, run: str, secure: SecureRound) -> None:
    """Demand a roster of enough different sites with genuine keys, this one's own among them.

    Raises:
        PolicyError: with the rule "privacy".
    """
    keys = secure.roster.keys
    require_genuine_keys(site, run, keys, _private_key(site, run), SIGNED_AS)
    if len(keys) < site.policy.min_secure_sites:
        raise PolicyError(
            f"policy.min_secure_sites: expected at least {site.policy.min_secure_sites} sites that "
            f"mask their updates, found {len(keys)}",
            "privacy",
        )


def _private_key(site: SiteConfig, run: str) -> str:
    path = site.run_folder(run) / "secure-rounds" / "key"
    write_once(path, new_private_key().encode())
    key = path.read_text()
    if len(key) != 64 or not set(key) <= set("0123456789abcdef"):
        raise DiskError(f"{path}: expected 64 hexadecimal digits, found {len(key)}; delete it")
    return key
