from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from common.codec import canonical_json, decode
from common.errors import ConfigError, PolicyError
from common.secure_sum import (
    CHUNK_WORDS,
    MaskKey,
    Roster,
    Words,
    added,
    check_signature,
    masked,
    new_nonce,
    new_private_key,
    public_key_of,
    signature_of,
)

NAMES = ("alpha", "beta", "gamma", "delta", "Epsilon", "z-9", "eta", "theta", "iota", "kappa")
NONCE = "0123456789abcdef" * 2


def private_keys(n: int) -> dict[str, str]:
    """Return keys that are the same in every run: the statistics below must not depend on luck."""
    return {name: f"{number + 1:064x}" for number, name in enumerate(NAMES[:n])}


def roster_of(private: dict[str, str], order: Sequence[str] | None = None) -> Roster:
    names = order or [*private]
    keys = [MaskKey(site=name, public_key=public_key_of(private[name])) for name in names]
    return Roster(nonce=NONCE, keys=tuple(keys))


def one_of_three(values: Words, **changes: object) -> Words:
    private = private_keys(3)
    roster = replace(roster_of(private), **changes)
    return masked(values, "alpha", private["alpha"], "run", roster)


@settings(max_examples=40)
@given(st.data(), st.integers(3, 10), st.integers(1, 40))
def test_the_sum_of_masked_vectors_is_the_plain_sum_in_any_order(
    data: st.DataObject, n_sites: int, n_words: int
) -> None:
    word = st.integers(0, 2**64 - 1)
    vectors = data.draw(
        st.lists(
            st.lists(word, min_size=n_words, max_size=n_words), min_size=n_sites, max_size=n_sites
        )
    )
    private = private_keys(n_sites)
    orders = [data.draw(st.permutations([*private])) for _ in private]  # each site's own
    told = [
        masked(np.array(vector, np.uint64), site, private[site], "run", roster_of(private, order))
        for vector, site, order in zip(vectors, private, orders, strict=True)
    ]
    expected = [sum(column) % 2**64 for column in zip(*vectors, strict=True)]
    assert added(data.draw(st.permutations(told)), n_words).tolist() == expected


def test_a_sum_of_signed_numbers_keeps_their_sign() -> None:
    private = private_keys(3)
    told = [
        masked(np.array([value], np.int64).view(np.uint64), site, key, "run", roster_of(private))
        for value, (site, key) in zip((-5, 2, -4), private.items(), strict=True)
    ]
    assert added(told, 1).view(np.int64).tolist() == [-7]


def test_a_vector_of_several_chunks_adds_up() -> None:
    private, n_words = private_keys(4), 2 * CHUNK_WORDS + 17
    values = np.arange(n_words, dtype=np.uint64)
    told = [masked(values, site, key, "run", roster_of(private)) for site, key in private.items()]
    assert (added(told, n_words) == 4 * values).all()


@pytest.mark.parametrize("values", [np.zeros(100_000, np.uint64), np.full(100_000, 2**63, "u8")])
def test_one_masked_vector_looks_random_whatever_it_holds(values: Words) -> None:
    told = one_of_three(values)
    counts = np.bincount(told.view(np.uint8), minlength=256)
    assert chisquare(counts).pvalue > 0.001
    assert len(np.unique(told)) == told.size  # no word twice: no stream is used twice
    assert abs(np.corrcoef(told[1:].astype(float), told[:-1].astype(float))[0, 1]) < 0.02


def test_what_all_but_two_of_the_sites_know_does_not_unmask_the_others() -> None:
    private, zeros = private_keys(5), np.zeros(100_000, np.uint64)
    roster = roster_of(private)
    vectors = {name: masked(zeros, name, key, "run", roster) for name, key in private.items()}
    # Three of five show everything: each one's own vector was 0, so it is its masks with the
    # others. Their sum is what alpha and beta added for them, with the other sign.
    shown = added([vectors[name] for name in ("gamma", "delta", "Epsilon")], zeros.size)
    left = added([vectors["alpha"], vectors["beta"], shown], zeros.size)
    assert not left.any()  # the sum of alpha and beta is known, as it must be
    for name in ("alpha", "beta"):
        for vector in (vectors[name], added([vectors[name], shown], zeros.size)):
            counts = np.bincount(vector.view(np.uint8), minlength=256)
            assert chisquare(counts).pvalue > 0.001


@pytest.mark.parametrize(
    "changes",
    [
        {"nonce": "f" * 32},
        {"keys": roster_of(private_keys(4)).keys},
        {"keys": (*roster_of(private_keys(2)).keys, MaskKey(site="other", public_key="7" * 64))},
    ],
)
def test_masks_change_with_attempt_and_company(changes: dict[str, object]) -> None:
    values = np.zeros(1000, np.uint64)
    one, other = one_of_three(values), one_of_three(values, **changes)
    assert not (one == other).any()


def test_masks_change_with_the_run() -> None:
    private, values = private_keys(3), np.zeros(1000, np.uint64)
    one, other = (
        masked(values, "alpha", private["alpha"], run, roster_of(private)) for run in ("a", "b")
    )
    assert not (one == other).any()


def test_sites_that_were_asked_other_things_do_not_add_up() -> None:
    private, zeros = private_keys(3), np.zeros(1000, np.uint64)
    asked = {"alpha": "1" * 64, "beta": "1" * 64, "gamma": "2" * 64}
    told = [
        masked(zeros, site, private[site], "run", roster_of(private), question)
        for site, question in asked.items()
    ]
    assert not (added(told, 1000) == 0).any()


def test_the_order_of_a_roster_changes_nothing() -> None:
    private, values = private_keys(3), np.zeros(100, np.uint64)
    told = [
        masked(values, "beta", private["beta"], "run", roster_of(private, order))
        for order in (("alpha", "beta", "gamma"), ("gamma", "beta", "alpha"))
    ]
    assert (told[0] == told[1]).all()


def test_sites_with_different_rosters_do_not_add_up() -> None:
    private, other = private_keys(4), private_keys(3)
    told = [
        masked(
            np.ones(1000, np.uint64),
            site,
            private[site],
            "run",
            roster_of(other if site == "alpha" else private),
        )
        for site in private
    ]
    assert not (added(told, 1000) == 4).any()


def test_the_vector_itself_is_left_alone() -> None:
    values = np.ones(10, np.uint64)
    one_of_three(values)
    assert values.tolist() == [1] * 10


def test_a_key_whose_secret_everybody_knows_is_refused() -> None:
    keys = (*roster_of(private_keys(2)).keys, MaskKey(site="liar", public_key="0" * 64))
    with pytest.raises(PolicyError, match="key of liar: is no usable public key"):
        one_of_three(np.zeros(1, np.uint64), keys=keys)


def test_keys_and_nonces_are_fresh() -> None:
    assert len({new_private_key() for _ in range(20)}) == 20
    assert len({new_nonce() for _ in range(20)}) == 20


@pytest.mark.parametrize(
    "plain",
    [
        {"nonce": "ab", "keys": []},
        {"nonce": "../../../../etc/passwd/aaaaaaaaaa", "keys": []},
        {"nonce": NONCE, "keys": [{"site": "a", "public_key": "00"}]},
        {"nonce": NONCE, "keys": [{"site": "../a", "public_key": "00" * 32}]},
        {"nonce": NONCE, "keys": [{"site": "a", "public_key": "0" * 64}] * 1001},
    ],
)
def test_a_malformed_roster_is_refused(plain: object) -> None:
    with pytest.raises(ConfigError):
        decode(Roster, plain, source="message")


# Long-term keys


def identity(path: Path, seed: int = 1) -> str:
    """Write a long-term private key; return the public one."""
    private = Ed25519PrivateKey.from_private_bytes(bytes([seed] * 32))
    path.write_bytes(private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return private.public_key().public_bytes_raw().hex()


KEY = MaskKey(site="alpha", public_key="12" * 32)


def test_a_signature_is_for_one_run_attempt_company_and_key(tmp_path: Path) -> None:
    public, other = identity(tmp_path / "id.pem"), identity(tmp_path / "other.pem", 2)
    company = ("alpha", "beta", "gamma")
    signature = signature_of(tmp_path / "id.pem", "run", NONCE, company, KEY)
    signed = replace(KEY, signature=signature)
    check_signature(public, "run", NONCE, company[::-1], signed)
    refused = [
        (other, "run", NONCE, company, signed),
        (public, "other", NONCE, company, signed),
        (public, "run", "0" * 32, company, signed),
        (public, "run", NONCE, (*company, "delta"), signed),
        (public, "run", NONCE, company, replace(signed, public_key="34" * 32)),
        (public, "run", NONCE, company, replace(signed, site="beta")),
        (public, "run", NONCE, company, replace(signed, signature="0" * 128)),
    ]
    for arguments in refused:
        with pytest.raises(PolicyError, match="expected a signature by its pinned key, found ano"):
            check_signature(*arguments)
    with pytest.raises(PolicyError, match=r"key of alpha: .* found none"):
        check_signature(public, "run", NONCE, company, KEY)


@pytest.mark.parametrize("content", [None, b"no key", b""])
def test_an_identity_that_is_no_key_is_refused(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "id.pem").write_bytes(content)
    with pytest.raises(ConfigError, match="expected an Ed25519 key in PEM"):
        signature_of(tmp_path / "id.pem", "run", NONCE, (), KEY)


def test_an_identity_of_another_kind_is_refused(tmp_path: Path) -> None:
    pem = X25519PrivateKey.generate().private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
    )
    (tmp_path / "id.pem").write_bytes(pem)
    with pytest.raises(ConfigError, match="expected an Ed25519 key in PEM"):
        signature_of(tmp_path / "id.pem", "run", NONCE, (), KEY)


def test_a_key_without_signature_crosses_the_wire_without_one() -> None:
    assert canonical_json(KEY) == b'{"site":"alpha","public_key":"' + b"12" * 32 + b'"}'
