"""Adding the sites' vectors so that only their sum is seen: pairwise masks that cancel.

Every site makes a fresh X25519 key pair for one sum. Each two sites derive one key stream from
their shared secret (HKDF-SHA256, ChaCha20); of each pair, the site whose name comes first adds it
to its vector and the other subtracts it, modulo 2**64. One masked vector is as good as random; in
the sum of all of them every stream occurs once with each sign.

Law: ``added(masked(v) for every site) == added(v for every site)``, in any order.

Against whom this protects, in plain words:

* a coordinator that follows the protocol but is curious about everything that it receives, also
  together with up to n - 2 of the n sites: what it then learns is the sum of the other sites;
* a coordinator that lies about the sites' keys, to read the masks, only where sites know each
  other's long-term keys (`[peers]` in site.toml) and therefore notice a key that is not genuine.
* Not: what the sum itself tells. A count of 1 in it is one case of one of the sites. Every site
  can subtract its own part. Two sums over almost the same sites, or from before and after a
  change of the data, tell by their difference what was added; a site refuses both within a run.
* Not: a site that lies about its own data, or that never answers; without it there is no sum.

Nothing in here knows what the vector means: fingerprints and held-out metrics are its uses.

Source: Bonawitz et al. 2017, "Practical secure aggregation", protocol 0 (masking with one-time
pads, without recovery from drop-outs). The primitives are those of the package `cryptography`.
"""

import secrets
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
from annotated_types import MaxLen
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext, algorithms
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from numpy.typing import NDArray
from pydantic import StringConstraints

from common.codec import canonical_json, content_hash, record
from common.errors import ConfigError, PolicyError
from common.federation import SiteName

Words = NDArray[np.uint64]
Nonce = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}$")]
Key = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Signature = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{128}$")]

PROTOCOL = "consilium secure sum 1"
SEED_BYTES = 32  # key size of ChaCha20
CHUNK_WORDS = 2**17  # 1 MiB of key stream at once, however long the vector
MAX_SITES = 1000
FIRST_BLOCK = bytes(16)  # counter and nonce of ChaCha20: every key encrypts one stream only


@record
class MaskKey:
    """A site's public key for one sum. May leave the site."""

    site: SiteName
    public_key: Key
    """X25519, in hexadecimal digits."""
    signature: Signature | None = None
    """By the site's long-term Ed25519 key, if it has one, over `statement`."""


@record
class Roster:
    """Who masks together, once; the coordinator sends it to all of them."""

    nonce: Nonce
    keys: Annotated[tuple[MaskKey, ...], MaxLen(MAX_SITES)]

    @property
    def sites(self) -> tuple[str, ...]:
        """Names of the sites, sorted."""
        return tuple(sorted(key.site for key in self.keys))


def new_nonce() -> str:
    """Return the number of an attempt, never used before."""
    return secrets.token_hex(16)


def new_private_key() -> str:
    """Return a fresh X25519 private key in hexadecimal digits; it never leaves the site."""
    return X25519PrivateKey.generate().private_bytes_raw().hex()


def public_key_of(private_key: str) -> str:
    """Return the public half of a private key."""
    return _private(private_key).public_key().public_bytes_raw().hex()


def signature_of(identity: Path, run: str, nonce: str, sites: Iterable[str], key: MaskKey) -> str:
    """Return a site's signature of its key for this run, attempt and company.

    Args:
        identity: PEM file with the site's Ed25519 private key, without password.
        run: name of the run.
        nonce: of the attempt.
        sites: names of all sites that mask together, in any order.
        key: what is signed.

    Raises:
        ConfigError: when the file is no such key.
    """
    try:
        private = load_pem_private_key(identity.read_bytes(), password=None)
    except (OSError, TypeError, ValueError, UnsupportedAlgorithm):
        private = None
    if not isinstance(private, Ed25519PrivateKey):
        raise ConfigError(f"identity: {identity}: expected an Ed25519 key in PEM, without password")
    return private.sign(_statement(run, nonce, sites, key)).hex()


def check_signature(
    long_term_key: str, run: str, nonce: str, sites: Iterable[str], key: MaskKey
) -> None:
    """Demand that a key was signed for this run, attempt and company.

    Args:
        long_term_key: the site's Ed25519 public key in hexadecimal digits.
        run: name of the run.
        nonce: of the attempt.
        sites: names of all sites that mask together, in any order.
        key: what is signed, with its signature.

    Raises:
        PolicyError: when the signature is missing or is not this site's.
    """
    try:
        public = Ed25519PublicKey.from_public_bytes(bytes.fromhex(long_term_key))
        public.verify(bytes.fromhex(key.signature or ""), _statement(run, nonce, sites, key))
    except (InvalidSignature, ValueError):
        raise PolicyError(
            f"secure sum: key of {key.site}: expected a signature by its pinned key, found "
            f"{'another' if key.signature else 'none'}",
            "privacy",
        ) from None


def masked(
    values: Words, site: str, private_key: str, run: str, roster: Roster, question: str = ""
) -> Words:
    """Return the vector with this site's masks for all others of the roster.

    Args:
        values: whole numbers modulo 2**64; negative ones as their complement.
        site: whose vector it is; a member of the roster.
        private_key: of the site, for this roster only: a second use would show a difference.
        run: name of the run.
        roster: who masks together; checked before.
        question: hash of what the site was asked. The masks of sites that were asked other things
            do not cancel: else all but one could be asked what the answer is known to.

    Raises:
        PolicyError: for a public key that gives no secret.
    """
    result = values.astype(np.uint64)  # a copy
    for other in roster.keys:
        if other.site == site:
            continue
        secret = shared_secret(private_key, other)
        stream = _stream(secret, [run, question], roster, site, other.site)
        for start in range(0, result.size, CHUNK_WORDS):
            part = result[start : start + CHUNK_WORDS]
            noise = np.frombuffer(stream.update(bytes(part.nbytes)), "<u8")
            if site < other.site:
                part += noise  # numpy's unsigned numbers wrap: addition modulo 2**64
            else:
                part -= noise
    return result


def added(vectors: Iterable[Words], n_words: int) -> Words:
    """Return the sum modulo 2**64 of vectors of `n_words` words; of none, zeros."""
    total = np.zeros(n_words, np.uint64)
    for vector in vectors:
        total += vector
    return total


def shared_secret(private_key: str, other: MaskKey) -> bytes:
    """Return what this site and another can compute and nobody else; only a source of keys.

    Raises:
        PolicyError: for a public key that gives no secret.
    """
    public = X25519PublicKey.from_public_bytes(bytes.fromhex(other.public_key))
    try:
        return _private(private_key).exchange(public)
    except ValueError:  # a point of low order, whose shared secret everybody knows
        raise PolicyError(
            f"secure sum: key of {other.site}: is no usable public key", "privacy"
        ) from None


def derived_key(secret: bytes, info: bytes, n_bytes: int = SEED_BYTES) -> bytes:
    """Return a key for one purpose (HKDF-SHA256); another `info` gives an unrelated one."""
    return HKDF(SHA256(), n_bytes, salt=None, info=info).derive(secret)


def key_stream(key: bytes) -> CipherContext:
    """Return what encrypts with ChaCha20 from its first block; a key is for one stream only."""
    return Cipher(algorithms.ChaCha20(key, FIRST_BLOCK), mode=None).encryptor()


def company_digest(roster: Roster) -> str:
    """Return the hash of all names and keys of a roster, in whatever order they stand."""
    return content_hash(sorted((key.site, key.public_key) for key in roster.keys))


def _stream(
    secret: bytes, asked: Sequence[str], roster: Roster, one: str, other: str
) -> CipherContext:
    """Return the key stream of a pair; equal for both, and for nothing else that was asked."""
    company = company_digest(roster)
    info = canonical_json([PROTOCOL, *asked, roster.nonce, company, *sorted((one, other))])
    return key_stream(derived_key(secret, info))


def _statement(run: str, nonce: str, sites: Iterable[str], key: MaskKey) -> bytes:
    return canonical_json([PROTOCOL, run, nonce, sorted(sites), key.site, key.public_key])


def _private(private_key: str) -> X25519PrivateKey:
    return X25519PrivateKey.from_private_bytes(bytes.fromhex(private_key))
