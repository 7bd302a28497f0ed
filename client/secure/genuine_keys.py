"""What a site demands of the keys that it masks with, in every kind of secure sum."""

from collections.abc import Sequence

from client.site import SiteConfig
from common.errors import PolicyError
from common.secure_sum import MaskKey, check_signature, public_key_of


def require_genuine_keys(
    site: SiteConfig,
    run: str,
    keys: Sequence[MaskKey],
    private_key: str,
    signed_as: str,
    company: Sequence[str] = (),
) -> None:
    """Demand different sites with different keys, this site's own and those of its peers genuine.

    Args:
        site: that masks.
        run: name of the run.
        keys: of all who mask together.
        private_key: of this site, for this sum.
        signed_as: what the keys were signed for: an attempt's number, or that they serve a run.
        company: names that were signed with each key.

    Raises:
        PolicyError: with the rule "privacy".
    """
    by_name = {key.site: key.public_key for key in keys}
    if len(by_name) != len(keys) or len(set(by_name.values())) != len(keys):
        raise PolicyError("secure sum: expected every site once, with a key of its own", "privacy")
    if by_name.get(site.name) != public_key_of(private_key):
        raise PolicyError(
            "secure sum: the roster holds another key than this site's own", "privacy"
        )
    if site.peers is None:
        return
    for key in keys:
        if key.site == site.name:
            continue
        if key.site not in site.peers:
            raise PolicyError(f"secure sum: {key.site} is not among the pinned peers", "privacy")
        check_signature(site.peers[key.site], run, signed_as, company, key)
