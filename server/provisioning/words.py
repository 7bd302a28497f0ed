"""What `consilium provision` says of every kit, in the words of the one who carries it."""

from collections.abc import Iterator

from common.kit_checksums import spoken
from server.provisioning.federation_file import COORDINATOR
from server.provisioning.provision import KitReport, Provisioned

SITE_WORDS = {
    "new": "new: give it to the hospital",
    "new-keys": "new keys: give it to the hospital again; its old keys are refused from now on",
    "unchanged": "as before",
    "revoked": "revoked: refused as soon as the coordinator has its new kit",
    "not-here": "its keys are not in this folder any more, so nothing was written",
}
COORDINATOR_WORDS = {
    "new": "new: carry it to the coordinator's machine",
    "new-keys": "new keys: carry it to the coordinator's machine again and start it again",
    "unchanged": "as before",
}


def lines_of(made: Provisioned) -> Iterator[str]:
    """Yield one paragraph per kit: what to do, until when it is valid, its checksum."""
    for kit in made.kits:
        yield f"{kit.name}: {_what(kit)}"
        yield f"    folder       {kit.folder}"
        yield f"    valid until  {kit.valid_until[:10]}"
        if kit.sha256 is not None:
            yield f"    SHA-256      {spoken(kit.sha256)}"
    if made.anything_changed:
        yield "Read each SHA-256 out over the telephone: `sha256sum SHA256SUMS` in the kit says it."
    else:
        yield f"{made.federation}: nothing to change"


def _what(kit: KitReport) -> str:
    words = COORDINATOR_WORDS if kit.name == COORDINATOR else SITE_WORDS
    if kit.state != "changed":
        return words[kit.state]
    changed = ", ".join(kit.changed)
    if kit.name == COORDINATOR:
        return (
            f"changed ({changed}): carry it to the coordinator's machine again and start it again"
        )
    if kit.for_secure_sums_only:
        return "the other sites' keys changed: send it again if you use secure sums"
    return f"changed ({changed}): send it to the hospital again"
