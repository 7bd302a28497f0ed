"""The sum of masked vectors is the plain sum, whoever drops out, and nothing less than it."""

import itertools
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import chisquare

from common.errors import MessageError, PolicyError
from common.fixed_point import add_to, encoded, mean_weights, parts, vector_words
from common.secret_shares import combined, split
from common.secure_aggregation import SecureAggregation
from common.secure_round import (
    Attempt,
    Member,
    SecureRound,
    Shares,
    add_mask,
    agreement_code,
    masked,
    opened,
    sealed,
)
from common.secure_sum import MaskKey, Roster, Words, public_key_of

SETTINGS = SecureAggregation(min_sites=3)
N_SUMS = 1
SENT = {"b": np.zeros((2, 3), np.float32), "a": np.ones(5, np.float32)}


def members(n: int, **changes: object) -> list[Member]:
    private = {f"site-{number:02d}": f"{number + 1:064x}" for number in range(n)}
    keys = tuple(MaskKey(site=s, public_key=public_key_of(key)) for s, key in private.items())
    secure = SecureRound(
        roster=Roster(nonce="0" * 32, keys=keys),
        threshold=SETTINGS.threshold(n),
        total_count=n * (n + 1) // 2,
    )
    secure = replace(secure, **changes)  # type: ignore[type-var]
    attempt = Attempt("run", "fedavg", 1, secure, "a" * 64)
    return [Member(attempt, site, key) for site, key in private.items()]


def change_of(number: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(number)
    return {n: t + rng.normal(0, 0.1, t.shape).astype(np.float32) for n, t in SENT.items()}


def vector_of(number: int, total: int) -> Words:
    count = number + 1
    return encoded(SENT, change_of(number), count / total, np.array([count], np.uint64))


def opened_sum(everyone: Sequence[Member], survivors: Sequence[int], tellers: int) -> Words:
    """Do what all parties do, without messages."""
    attempt, n = everyone[0].attempt, len(everyone)
    total = np.zeros(vector_words(11, N_SUMS), np.uint64)
    shares: dict[str, dict[str, Shares]] = {}
    for number in survivors:
        vector, of_seeds = masked(
            vector_of(number, attempt.secure.total_count), N_SUMS, everyone[number]
        )
        add_to(total, vector, N_SUMS)
        shares[everyone[number].site] = of_seeds
    number_of = {member.site: place for place, member in enumerate(everyone, start=1)}
    asked = [everyone[number].site for number in survivors][:tellers]
    dropped = [everyone[number].site for number in range(n) if number not in survivors]
    for site, of_seeds in shares.items():
        own = {number_of[t]: bytes.fromhex(of_seeds[t].own) for t in asked}
        add_mask(total, N_SUMS, combined(own), negative=True)
        for other in dropped:
            pair = {number_of[t]: bytes.fromhex(of_seeds[t].pairs[other]) for t in asked}
            add_mask(total, N_SUMS, combined(pair), negative=site < other)
    return total


@pytest.mark.parametrize(("n", "n_dropped"), [(3, 0), (4, 1), (10, 0), (10, 3), (40, 2)])
def test_the_mean_is_the_plain_one_within_the_stated_error(n: int, n_dropped: int) -> None:
    fast = {"threshold": 3} if n == 40 else {}  # shares of 27 of 40 take a second per site
    everyone, survivors = members(n, **fast), range(n_dropped, n)
    threshold = everyone[0].attempt.secure.threshold
    total = opened_sum(everyone, survivors, threshold)
    words, (count,) = parts(total, N_SUMS)
    assert count == sum(number + 1 for number in survivors)
    share = count / (n * (n + 1) // 2)
    found = mean_weights(SENT, words, share)
    bound = len(survivors) * 2.0**-29 / share + 2.0**-24  # and the rounding to float32, of 1.x
    for name in SENT:
        plain = sum((k + 1) * change_of(k)[name].astype(np.float64) for k in survivors) / count
        assert np.abs(found[name] - plain).max() <= bound


def test_one_share_less_than_the_threshold_opens_nothing() -> None:
    everyone = members(4)
    words, _ = parts(opened_sum(everyone, range(4), 2), N_SUMS)
    plain = sum(parts(vector_of(k, 10), N_SUMS)[0].astype(np.int64) for k in range(4)) % 2**32
    assert not (words == plain).any()


def test_a_masked_vector_is_uniform_and_never_the_same_twice() -> None:
    alpha = members(3)[0]
    zeros = np.zeros(2**14 + N_SUMS, np.uint64)
    one, _ = masked(zeros.copy(), N_SUMS, alpha)
    two, _ = masked(zeros.copy(), N_SUMS, alpha)
    assert not (one == two).any()
    for told in (one, two, one - two):
        counts = np.bincount(told.view(np.uint8), minlength=256)
        assert chisquare(counts).pvalue > 1e-6


def test_both_sites_of_a_pair_derive_its_seed_and_another_attempt_has_another() -> None:
    one, other, third = members(3)
    keys = {key.site: key for key in one.attempt.secure.roster.keys}
    seed = one.pair_seed(keys[other.site])
    assert seed == other.pair_seed(keys[one.site])
    different = [
        Member(replace(one.attempt, **change), one.site, one.private_key).pair_seed(
            keys[other.site]
        )
        for change in (
            {"run": "next"},
            {"method": "fedprox"},
            {"round": 2},
            {"question": "b" * 64},
            {"secure": replace(one.attempt.secure, threshold=4)},
            {"secure": replace(one.attempt.secure, total_count=7)},
            {"secure": replace(one.attempt.secure, roster=Roster(nonce="1" * 32, keys=()))},
        )
    ]
    assert len({seed, one.pair_seed(keys[third.site]), *different}) == 9


def test_only_its_receiver_opens_what_was_sealed_and_only_as_it_was() -> None:
    one, other, third = members(3)
    _, shares = masked(np.zeros(3, np.uint64), N_SUMS, one)
    box = sealed(shares, one)
    assert set(box) == {other.site, third.site}
    assert opened(box[other.site], one.site, other) == shares[other.site]
    again = sealed(shares, one)
    assert again[other.site] != box[other.site]  # a fresh number every time
    elsewhere = Member(replace(other.attempt, round=2), other.site, other.private_key)
    for content, sender, receiver in (
        (box[other.site], one.site, third),
        (box[other.site], third.site, other),
        (box[other.site], other.site, other),
        (box[other.site], "nobody", other),
        (box[other.site], one.site, elsewhere),
        (box[other.site][:-8], one.site, other),
        ("AAAA", one.site, other),
        ("=", one.site, other),
    ):
        with pytest.raises(PolicyError, match="expected what it sealed for this site"):
            opened(content, sender, receiver)


def test_a_code_says_who_agreed_with_whom_to_what() -> None:
    one, other, third = members(3)
    names = [one.site, other.site, third.site]
    keys = {key.site: key for key in one.attempt.secure.roster.keys}
    code = agreement_code(one, one.site, keys[other.site], names)
    assert code == agreement_code(other, one.site, keys[one.site], names[::-1])
    others = {
        agreement_code(other, other.site, keys[one.site], names),
        agreement_code(third, one.site, keys[one.site], names),
        agreement_code(other, one.site, keys[one.site], names[:2]),
    }
    assert len({code, *others}) == 4


# Shares


def test_any_shares_of_the_threshold_give_the_secret_back_and_fewer_do_not() -> None:
    secret = bytes(range(16))
    shares = split(secret, 3, 5)
    assert sorted(shares) == [1, 2, 3, 4, 5]
    for numbers in itertools.combinations(shares, 3):
        assert combined({number: shares[number] for number in numbers}) == secret
    for numbers in itertools.combinations(shares, 2):
        assert combined({number: shares[number] for number in numbers}) != secret


@pytest.mark.parametrize("shares", [{1: b"short"}, {0: bytes(16)}, {-1: bytes(16)}])
def test_what_is_no_share_is_refused(shares: dict[int, bytes]) -> None:
    with pytest.raises(MessageError, match="shares: expected 16 bytes each"):
        combined(shares)


@pytest.mark.parametrize(("secret", "threshold"), [(b"short", 2), (bytes(16), 4), (bytes(16), 0)])
def test_a_secret_has_one_size_and_a_threshold_that_can_be_met(secret, threshold) -> None:
    with pytest.raises(ValueError, match="expected 16 bytes and 1 <="):
        split(secret, threshold, 3)


# Thresholds


def test_thresholds_are_above_two_thirds_and_never_above_all() -> None:
    assert [SETTINGS.threshold(n) for n in (3, 4, 5, 6, 7, 10, 40)] == [3, 3, 4, 5, 5, 7, 27]
    strict = SecureAggregation(min_sites=3, agreeing_share=0.9)
    assert [strict.threshold(n) for n in (3, 10, 40)] == [3, 9, 36]
    assert SecureAggregation(min_sites=8).fewest_survivors(10) == 8


@pytest.mark.parametrize("settings", [{"min_sites": 2}, {"min_sites": 3, "agreeing_share": 0.6}])
def test_settings_that_would_not_protect_are_refused(settings: dict) -> None:
    with pytest.raises(ValueError, match="greater than"):
        SecureAggregation(**settings)
