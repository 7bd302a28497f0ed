"""Adding the updates of a round so that only their sum is seen, whoever drops out.

Every site has one X25519 key pair per run. For a round, each two sites derive a seed from their
shared secret; of each pair, the site whose name comes first adds the key stream of that seed to
its vector and the other subtracts it. Each site adds the stream of a fresh seed of its own as
well. Beside the masked vector it sends, sealed for every other site of the round, shares of all
its seeds. When the answers are in, the coordinator says who survived. The sites agree to that
first, once per round; then each tells its shares of the survivors' own seeds, and of the seeds
that survivors have with those who dropped out: never both kinds for one site or pair. With
`threshold` answers the coordinator takes the masks off the sum.

Differences from the paper's protocol, and why they are allowed:

* seeds of pairs are shared, and not the private keys that they come from, so that keys serve a
  whole run and a drop-out costs them nothing; shares travel with the update, so that no question
  comes before it;
* agreeing (the paper's round 3, needed against a coordinator that tells sites different survivors)
  uses codes under the pair's secret in the place of signatures: sites trust the same keys;
* seeds depend on the whole question, weights included, against a coordinator that has one site
  train and the others stand still (Pasquini et al. 2022, "Eluding secure aggregation in federated
  learning via model inconsistency"): the masks of sites with different questions do not cancel.

Against whom this protects, in plain words:

* a coordinator that follows the protocol but keeps all it sees, also together with fewer sites
  than the threshold: what it learns is the sum of the others;
* a coordinator that lies, together with fewer than a third of the sites, where the sites know each
  other's long-term keys (`[peers]` in site.toml). Without these it can play the other sites itself.
* Not: what sums tell. Rounds whose survivors differ by one site tell by their difference about
  that site; so do their counts where weights go by cases. A site can subtract its own part.
* Not: a site that sends a wrong vector or wrong shares: it can spoil a round, unseen.
* Not: who breaks into a site during the run, for its key opens what was sealed for it.

Source: Bonawitz et al. 2017, "Practical secure aggregation for privacy-preserving machine
learning", figure 4. The primitives are those of the packages `cryptography` and pycryptodome.
"""

import base64
import hmac
import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from annotated_types import Ge
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import CipherContext
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from numpy.typing import NDArray
from pydantic import StringConstraints

from common.codec import canonical_json, decode, record
from common.errors import ConfigError, PolicyError
from common.federation import SiteName
from common.fixed_point import parts
from common.secret_shares import SECRET_BYTES, split
from common.secure_sum import (
    Key,
    MaskKey,
    Roster,
    Words,
    company_digest,
    derived_key,
    key_stream,
    shared_secret,
)

PROTOCOL = "consilium secure round 1"
SIGNED_AS = "updates"  # in the place of an attempt's number, which has 32 digits
CHUNK_BYTES = 2**20  # of key stream at once, however long the vector
SEAL_BYTES = 12  # nonce of ChaCha20-Poly1305
ZEROS = bytes(CHUNK_BYTES)
STREAM = canonical_json([PROTOCOL, "stream"])  # seeds are bound to everything else

Share = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}$")]
"""Of a seed, in hexadecimal digits."""
Sealed = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9+/=]+$", max_length=1_000_000)]
"""In base64. Of one site for one other; nobody else reads or changes it."""
Purpose = Literal["pair seed", "shares", "agreement"]


@record
class SecureRound:
    """With a round's question: who masks for whom, for this attempt only."""

    roster: Roster
    threshold: Annotated[int, Ge(3)]
    """How many sites must agree and answer before the sum opens."""
    total_count: Annotated[int, Ge(1)]
    """N: at least what all sites of the roster count together (`common.fixed_point`)."""

    @property
    def sites(self) -> tuple[str, ...]:
        """Names, sorted; a site's share has the number of its place, from 1."""
        return self.roster.sites


@record
class Shares:
    """What one site keeps for another, sealed on the way.

    Fewer than `SecureRound.threshold` sites' shares tell nothing about the seeds.
    """

    own: Share
    """Of the sender's own seed."""
    pairs: dict[SiteName, Share]
    """Of the seeds that the sender has with each other site of the roster."""


@dataclass(frozen=True)
class Attempt:
    """One try at one round: everything that keys and codes are bound to."""

    run: str
    method: str
    round: int
    secure: SecureRound
    question: Key
    """Hash of all that a site was asked, the weights and the agreed configuration included: sites
    that were asked different things derive different masks, which do not cancel."""

    def info(self, purpose: Purpose, *names: str) -> bytes:
        """Return what makes keys differ between purposes, attempts, rosters and sites."""
        secure = self.secure
        bound = [secure.roster.nonce, company_digest(secure.roster), secure.threshold]
        where = [PROTOCOL, purpose, self.run, self.method, self.round]
        return canonical_json([*where, *bound, secure.total_count, self.question, *names])


@dataclass(frozen=True)
class Member:
    """A site within an attempt, with the private key that never leaves it."""

    attempt: Attempt
    site: str
    private_key: str

    @property
    def others(self) -> tuple[MaskKey, ...]:
        """Keys of the other sites, in name order."""
        keys = sorted(self.attempt.secure.roster.keys, key=lambda key: key.site)
        return tuple(key for key in keys if key.site != self.site)

    def pair_seed(self, other: MaskKey) -> bytes:
        """Return the seed of the mask with another site; both derive the same."""
        info = self.attempt.info("pair seed", *sorted((self.site, other.site)))
        return derived_key(shared_secret(self.private_key, other), info, SECRET_BYTES)

    def sealing(self, sender: str, other: MaskKey) -> ChaCha20Poly1305:
        """Return what seals shares between this site and another, in one direction."""
        receiver = other.site if sender == self.site else self.site
        info = self.attempt.info("shares", sender, receiver)
        return ChaCha20Poly1305(derived_key(shared_secret(self.private_key, other), info))


def masked(vector: Words, n_sums: int, member: Member) -> tuple[Words, dict[str, Shares]]:
    """Mask a vector in place; return it with every site's shares of the seeds, the own one's too.

    Args:
        vector: as `common.fixed_point.encoded` makes it.
        n_sums: how many of its words are sums.
        member: whose vector it is. Own seeds are fresh with every call.
    """
    own = secrets.token_bytes(SECRET_BYTES)
    seeds = {other.site: member.pair_seed(other) for other in member.others}
    add_mask(vector, n_sums, own)
    for other, seed in seeds.items():
        add_mask(vector, n_sums, seed, negative=member.site > other)
    return vector, _shares(own, seeds, member.attempt.secure)


def add_mask(vector: Words, n_sums: int, seed: bytes, *, negative: bool = False) -> None:
    """Add a seed's key stream to a vector in place, or subtract it."""
    stream = key_stream(derived_key(seed, STREAM))
    noise = bytearray(CHUNK_BYTES)
    for part in parts(vector, n_sums):
        size = CHUNK_BYTES // part.itemsize
        for start in range(0, part.size, size):
            _add(part[start : start + size], stream, noise, negative=negative)


def sealed(shares: Mapping[str, Shares], member: Member) -> dict[str, Sealed]:
    """Return the other sites' shares, each readable by its receiver only."""
    found = {}
    for other in member.others:
        nonce = secrets.token_bytes(SEAL_BYTES)
        box = member.sealing(member.site, other)
        content = nonce + box.encrypt(nonce, canonical_json(shares[other.site]), None)
        found[other.site] = base64.b64encode(content).decode()
    return found


def opened(content: Sealed, sender: str, member: Member) -> Shares:
    """Return the shares that another site sealed for this one in this attempt.

    Raises:
        PolicyError: when it was made by or for another site, round, attempt or roster, or changed.
    """
    try:
        (key,) = (other for other in member.others if other.site == sender)
        raw = base64.b64decode(content, validate=True)
        box = member.sealing(sender, key)
        text = box.decrypt(raw[:SEAL_BYTES], raw[SEAL_BYTES:], None)
        shares = decode(Shares, json.loads(text), source="shares")
        if set(shares.pairs) != set(member.attempt.secure.sites) - {sender}:
            raise ValueError  # noqa: TRY301 - as unusable as a changed one
    except (InvalidTag, ValueError, ConfigError):
        raise PolicyError(
            f"secure sum: shares from {sender}: expected what it sealed for this site in this "
            "attempt, found something else",
            "privacy",
        ) from None
    return shares


def agreement_code(member: Member, sender: str, other: MaskKey, survivors: Sequence[str]) -> Key:
    """Return the code by which one site tells another to which survivors it agreed.

    Args:
        member: the site that sends or checks it.
        sender: whose code it is; `member` or `other`.
        other: the other of the two.
        survivors: names, in any order.
    """
    receiver = other.site if sender == member.site else member.site
    info = member.attempt.info("agreement", sender, receiver)
    key = derived_key(shared_secret(member.private_key, other), info)
    return hmac.digest(key, canonical_json(sorted(survivors)), "sha256").hex()


def _shares(own: bytes, seeds: Mapping[str, bytes], secure: SecureRound) -> dict[str, Shares]:
    """Return every site's shares of the own seed and of those with others."""
    names = secure.sites
    of_own = split(own, secure.threshold, len(names))
    of_pairs = {other: split(seed, secure.threshold, len(names)) for other, seed in seeds.items()}
    return {
        name: Shares(
            own=of_own[number].hex(),
            pairs={other: shares[number].hex() for other, shares in of_pairs.items()},
        )
        for number, name in enumerate(names, start=1)
    }


def _add(
    part: NDArray[np.unsignedinteger], stream: CipherContext, noise: bytearray, *, negative: bool
) -> None:
    n_bytes = part.nbytes
    view = memoryview(noise)[:n_bytes]
    stream.update_into(ZEROS[:n_bytes], view)
    values = np.frombuffer(view, part.dtype.newbyteorder("<"))
    if negative:
        part -= values  # numpy's unsigned numbers wrap
    else:
        part += values
