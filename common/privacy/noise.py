"""Normal noise that nobody can predict or take off again.

Uniform numbers come from the key stream of ChaCha20, under a fresh key of the operating system for
every block; Box and Muller's transform makes normal ones of them, in float64. 63 bits under the
logarithm reach 9.3 deviations out: what is cut off has a probability of 1e-20 per value.

Floating-point numbers are not real ones: from the exact bits of a single draw an attacker can tell
which sums were impossible (Mironov 2012). Every value is therefore the sum of four draws, halved,
which makes that search infeasible (Holohan and Braghin 2021, Secure random sampling in
differential privacy, section 4; opacus's secure mode does the same). This is a defence against
known attacks, not a proof for floating-point numbers.
"""

import math
import os
from collections.abc import Callable

import torch
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms
from torch import Tensor

Normals = Callable[[int, torch.device], Tensor]
"""From a number and a device to so many independent standard normal values there, float64."""

DRAWS = 4  # per value; Holohan and Braghin 2021
BLOCK_VALUES = 2**18  # 20 MiB of numbers at once, however many parameters a network has
KEY_BYTES, FIRST_BLOCK = 32, bytes(16)  # of ChaCha20; every key encrypts one stream only
MASK = 2**63 - 1  # takes the sign off a 64-bit integer


def secure_normals(n: int, device: torch.device) -> Tensor:
    """Return `n` independent standard normal values that cannot be repeated."""
    values = torch.empty(n, dtype=torch.float64, device=device)
    for start in range(0, n, BLOCK_VALUES):
        part = values[start : start + BLOCK_VALUES]
        part.copy_(_block(len(part), device))
    return values


def _block(n: int, device: torch.device) -> Tensor:
    n_pairs = (n + 1) // 2
    bits = torch.frombuffer(_stream(16 * DRAWS * n_pairs), dtype=torch.int64).to(device)
    radius, angle = normal_pairs(*bits.view(2, DRAWS, n_pairs))
    total = torch.cat([(radius * angle.cos()).sum(0), (radius * angle.sin()).sum(0)])
    return total[:n] / math.sqrt(DRAWS)


def normal_pairs(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Return radius and angle of Box and Muller's points for random 64-bit integers.

    Source: Box and Muller 1958, A note on the generation of random normal deviates.
    """
    share = ((first & MASK).double() + 1) * 2.0**-63  # (0, 1], finest next to 0
    radius = share.log_().mul_(-2).sqrt_()
    return radius, (second & MASK).double() * (2 * math.pi * 2.0**-63)


def _stream(n_bytes: int) -> bytearray:
    """Return the first bytes of a key stream whose key nobody keeps."""
    cipher = Cipher(algorithms.ChaCha20(os.urandom(KEY_BYTES), FIRST_BLOCK), mode=None)
    stream = bytearray(n_bytes)
    cipher.encryptor().update_into(bytes(n_bytes), stream)
    return stream
