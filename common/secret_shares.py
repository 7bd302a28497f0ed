"""Secrets in shares: any `threshold` of them give it back, fewer tell nothing.

Shamir's scheme over GF(2**128), as the package pycryptodome has it; Flower's own secret sharing
(`flwr.common.secure_aggregation.crypto.shamir`) is that function behind a padding, which would
double the work for secrets that have the right size already.

Source: Shamir 1979, "How to share a secret".
"""

from collections.abc import Mapping

from Crypto.Protocol.SecretSharing import Shamir

from common.errors import MessageError

SECRET_BYTES = 16  # one element of GF(2**128)


def split(secret: bytes, threshold: int, n_shares: int) -> dict[int, bytes]:
    """Return shares by their number, from 1.

    Args:
        secret: `SECRET_BYTES` random bytes.
        threshold: how many shares give it back, from 1 to `n_shares`.
        n_shares: how many there are.
    """
    if len(secret) != SECRET_BYTES or not 1 <= threshold <= n_shares:
        raise ValueError(f"expected {SECRET_BYTES} bytes and 1 <= {threshold} <= {n_shares}")
    return dict(Shamir.split(threshold, n_shares, secret, ssss=False))


def combined(shares: Mapping[int, bytes]) -> bytes:
    """Return the secret of as many shares as its threshold; of fewer, or wrong ones, other bytes.

    Raises:
        MessageError: when a share has another size or a number that none has.
    """
    if any(len(share) != SECRET_BYTES or number < 1 for number, share in shares.items()):
        raise MessageError(f"shares: expected {SECRET_BYTES} bytes each, numbered from 1")
    return Shamir.combine(list(shares.items()), ssss=False)
