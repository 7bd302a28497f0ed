"""Weighted changes as whole numbers that can be masked, added and read as their mean.

One 32-bit word per parameter, so that a masked update takes the bytes of a plain one:

    word_i = round((trained_i - sent) * n_i / N * 2**28)  modulo 2**32

with n_i what site i counts and N a number of which all sites know that it is at least the sum of
the n_i. The sum of the words is that of the weighted changes, and N over the sum of the n_i of the
sites that took part makes it their mean.

Range: a change of more than 7.75 in any parameter within one round is refused. Then the sum stays
within 7.75 * 2**28 + n / 2 < 2**31 for up to 1000 sites and never wraps.
Error: of a mean over n sites, for every parameter at most n * 2**-29 * N / sum(n_i); for 40 sites
that all take part 7.5e-8, beside the rounding of the weights themselves to float32.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from common.axes import Weights
from common.errors import MessageError
from common.secure_sum import Words

HalfWords = NDArray[np.uint32]
FRACTION_BITS = 28
RANGE = 7.75  # below 2**31 / 2**28 = 8; the rest is for the rounding of 1000 sites
PIECE = 2**17  # elements that stay in a core's cache


def vector_words(n_parameters: int, n_sums: int) -> int:
    """Return how many 64-bit words hold so many parameters, two to a word, and whole numbers."""
    return (n_parameters + 1) // 2 + n_sums


def parts(vector: Words, n_sums: int) -> tuple[HalfWords, Words]:
    """Return views of a vector: parameters modulo 2**32 (and a spare), sums modulo 2**64."""
    n_pairs = vector.size - n_sums
    return vector[:n_pairs].view(np.uint32), vector[n_pairs:]


def add_to(total: Words, vector: Words, n_sums: int) -> None:
    """Add a vector to a total in place, each part modulo its own power of two."""
    words, sums = parts(total, n_sums)
    more_words, more_sums = parts(vector, n_sums)
    words += more_words  # numpy's unsigned numbers wrap
    sums += more_sums


def encoded(sent: Weights, trained: Weights, share: float, sums: Words) -> Words:
    """Return the vector of a site's weighted change and of the sums beside it.

    Args:
        sent: float32 weights before training.
        trained: the same tensors after training.
        share: n_i / N, above 0 and at most 1.
        sums: whole numbers modulo 2**64.

    Raises:
        MessageError: for a change that is not finite or beyond `RANGE`, other tensors or types.
    """
    if set(sent) != set(trained) or not 0 < share <= 1:
        raise MessageError(f"update: expected the tensors that were sent and a share, {share} <= 1")
    vector = np.zeros(vector_words(n_parameters(sent), sums.size), np.uint64)
    words, rest = parts(vector, sums.size)
    rest[:] = sums
    for name, where, piece in _pieces(sent):
        change = trained[name].reshape(-1)[piece].astype(np.float64)
        change -= sent[name].reshape(-1)[piece]
        largest = max(float(change.max()), -float(change.min()))
        if not largest <= RANGE:  # NaN is not
            raise MessageError(
                f"update: {name}: expected a change of at most {RANGE} in a round, found {largest}"
            )
        change *= share * 2.0**FRACTION_BITS
        words[where] = np.rint(change, out=change).astype(np.int32).view(np.uint32)
    return vector


def mean_weights(sent: Weights, words: HalfWords, share: float) -> Weights:
    """Return the weights after the mean change, as float32.

    Args:
        sent: float32 weights before training.
        words: sum of the sites' words, without masks.
        share: the sum of what the sites counted, over N.
    """
    found = {name: np.empty(sent[name].shape, np.float32) for name in sorted(sent)}
    for name, where, piece in _pieces(sent):
        change = words[where].view(np.int32) / (share * 2.0**FRACTION_BITS)
        found[name].reshape(-1)[piece] = sent[name].reshape(-1)[piece] + change
    return found


def n_parameters(weights: Weights) -> int:
    """Return how many numbers all tensors have.

    Raises:
        MessageError: for other types than float32, which have no fixed-point form here.
    """
    if wrong := sorted(n for n, tensor in weights.items() if tensor.dtype != np.float32):
        raise MessageError(f"update: expected float32 tensors, found others: {', '.join(wrong)}")
    return sum(tensor.size for tensor in weights.values())


def _pieces(weights: Weights) -> Iterator[tuple[str, slice, slice]]:
    """Yield name, place among all parameters and place in its tensor, in name order."""
    start = 0
    for name in sorted(weights):
        size = weights[name].size
        for first in range(0, size, PIECE):
            last = min(first + PIECE, size)
            yield name, slice(start + first, start + last), slice(first, last)
        start += size
