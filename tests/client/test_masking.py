"""A site masks once per key, for the company it was told of, and for nobody else."""

import stat
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from client.masking import COUNTS, SumPart, data_digest, make_key, masked_counts, masked_part
from client.policy import Policy
from client.site import SiteConfig, load_site
from common.axes import Weights
from common.codec import write_toml
from common.errors import ConfigError, DiskError, MessageError, PolicyError
from common.messages import KeysTask, MeasureTask
from common.planning.fingerprint import empty, fingerprint_of, merge
from common.planning.fingerprint_grid import from_vector, to_vector
from common.secure_sum import MaskKey, Roster, added, public_key_of
from common.task import load_task

NONCE, OTHER = "0" * 32, "1" * 32
NAMES = ("alpha", "beta", "gamma")
TASK = load_task("brats-2021")
MEASURED = fingerprint_of((40, 41, 42), (40, 41, 42), (1.0, 1.0, 1.0), None, TASK)


def policy(**changes: object) -> Policy:
    settings: dict[str, object] = {
        "metrics": "none",
        "validation_means": False,
        "pictures": False,
        "fingerprint": "secure-sum",
        **changes,
    }
    return Policy(**settings)  # type: ignore[arg-type]


def site_of(home: Path, name: str, **changes: object) -> SiteConfig:
    return SiteConfig(name=name, data=str(home), state=str(home / name), policy=policy(**changes))


@pytest.fixture
def sites(tmp_path: Path) -> dict[str, SiteConfig]:
    return {name: site_of(tmp_path, name) for name in (*NAMES, "delta")}


def task(nonce: str = NONCE, names: Sequence[str] = NAMES, run: str = "run") -> KeysTask:
    return KeysTask(run=run, nonce=nonce, sites=tuple(names))


def roster_of(sites: dict[str, SiteConfig], asked: KeysTask) -> Roster:
    return Roster(
        nonce=asked.nonce, keys=tuple(make_key(sites[name], asked) for name in asked.sites)
    )


def answer(site: SiteConfig, roster: Roster, run: str = "run") -> Weights:
    return masked_counts(site, MeasureTask(run=run, task=TASK, roster=roster), MEASURED)


def folder(site: SiteConfig) -> Path:
    return site.run_folder("run") / "secure-sum"


def log_of(site: SiteConfig) -> str:
    return (site.state_folder / "site.log").read_text()


def test_three_sites_add_up_to_their_sum_and_log_that_they_took_part(
    sites: dict[str, SiteConfig],
) -> None:
    roster = roster_of(sites, task())
    vectors = [answer(sites[name], roster)[COUNTS].view(np.uint64) for name in NAMES]
    total = from_vector(added(vectors, vectors[0].size), empty(TASK))
    assert total == merge(merge(MEASURED, MEASURED), MEASURED)
    line = f"run run: counts masked for the sum of alpha, beta, gamma ({NONCE})"
    assert line in log_of(sites["beta"])


def test_what_a_site_answers_is_not_its_fingerprint(sites: dict[str, SiteConfig]) -> None:
    told = answer(sites["alpha"], roster_of(sites, task()))
    assert [*told] == [COUNTS]
    assert told[COUNTS].dtype == np.int64
    assert not (told[COUNTS].view(np.uint64) == to_vector(MEASURED)).any()


def test_only_this_user_reads_a_key_and_it_is_gone_once_it_was_used(
    sites: dict[str, SiteConfig],
) -> None:
    roster = roster_of(sites, task())
    key, used = folder(sites["alpha"]) / f"{NONCE}.key", folder(sites["alpha"]) / f"{NONCE}.used"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    private = key.read_text()
    answer(sites["alpha"], roster)
    assert not key.exists()
    assert used.read_bytes() == b""
    secret = private.split('"')[3]
    assert len(secret) == 64
    assert [path for path in sites["alpha"].state_folder.rglob("*") if path.is_file()]
    for path in sites["alpha"].state_folder.rglob("*"):
        assert not path.is_file() or secret not in path.read_text()


def test_an_attempt_is_answered_once(sites: dict[str, SiteConfig]) -> None:
    roster = roster_of(sites, task())
    answer(sites["alpha"], roster)
    with pytest.raises(PolicyError, match="expected one with an unused key"):
        answer(sites["alpha"], roster)
    with pytest.raises(PolicyError, match="was answered already"):
        make_key(sites["alpha"], task())


def test_a_key_is_asked_for_twice_and_stays_the_same(sites: dict[str, SiteConfig]) -> None:
    assert make_key(sites["alpha"], task()) == make_key(sites["alpha"], task())


def test_a_new_attempt_has_a_new_key_and_forgets_the_unused_one(
    sites: dict[str, SiteConfig],
) -> None:
    before = roster_of(sites, task())
    after = roster_of(sites, task(OTHER))
    assert {key.public_key for key in before.keys}.isdisjoint(key.public_key for key in after.keys)
    with pytest.raises(PolicyError, match="expected one with an unused key"):
        answer(sites["alpha"], before)
    answer(sites["alpha"], after)


def test_a_key_that_a_crash_cut_short_costs_the_attempt(sites: dict[str, SiteConfig]) -> None:
    roster_of(sites, task())
    (folder(sites["alpha"]) / f"{NONCE}.key").write_bytes(b'{"private')
    with pytest.raises(PolicyError, match="expected one with an unused key"):
        make_key(sites["alpha"], task())
    assert make_key(sites["alpha"], task(OTHER)).site == "alpha"


# Company


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (("alpha", "beta"), "at least 3 sites that mask their fingerprints, found 2: alpha, beta"),
        (("alpha",), "at least 3"),
        ((), "expected alpha and others, each once"),
        (("beta", "gamma", "delta"), "expected alpha and others, each once"),
        (("alpha", "alpha", "beta"), "expected alpha and others, each once"),
    ],
)
def test_too_small_or_false_company_gets_no_key(
    sites: dict[str, SiteConfig], names: tuple[str, ...], told: str
) -> None:
    with pytest.raises(PolicyError, match=told):
        make_key(sites["alpha"], task(names=names))
    assert not folder(sites["alpha"]).exists()


def test_a_site_may_want_more_company(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match="at least 4 sites"):
        make_key(site_of(tmp_path, "alpha", min_secure_sites=4), task())


def test_less_than_three_sites_cannot_be_a_policy(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="greater than or equal to 3"):
        policy(min_secure_sites=2)


@pytest.mark.parametrize("mode", ["exact", "coarse"])
def test_a_site_of_another_mode_masks_nothing(tmp_path: Path, mode: str) -> None:
    with pytest.raises(PolicyError, match=f"policy.fingerprint: '{mode}' masks nothing"):
        make_key(site_of(tmp_path, "alpha", fingerprint=mode), task())


def test_a_run_keeps_its_company(sites: dict[str, SiteConfig]) -> None:
    answer(sites["alpha"], roster_of(sites, task()))
    for names in ((*NAMES, "delta"), ("alpha", "beta", "delta")):
        with pytest.raises(PolicyError, match="a difference of two sums could show one site's"):
            make_key(sites["alpha"], task(OTHER, names))
    answer(sites["alpha"], roster_of(sites, task(OTHER)))  # the same sites may try again
    make_key(sites["alpha"], task(OTHER, (*NAMES, "delta"), run="next"))  # another run


def test_a_run_keeps_its_data(sites: dict[str, SiteConfig]) -> None:
    answer(sites["alpha"], roster_of(sites, task()))
    roster, more = roster_of(sites, task(OTHER)), merge(MEASURED, MEASURED)
    asked = MeasureTask(run="run", task=TASK, roster=roster)
    with pytest.raises(PolicyError, match="run run: the data changed since fingerprints were mask"):
        masked_counts(sites["alpha"], asked, more)
    answer(sites["alpha"], roster)  # the refusal cost nothing
    later = roster_of(sites, task(run="next"))
    masked_counts(sites["alpha"], MeasureTask(run="next", task=TASK, roster=later), more)


def test_a_name_of_a_run_cannot_leave_the_state_folder(sites: dict[str, SiteConfig]) -> None:
    with pytest.raises(MessageError, match="expected letters, digits"):
        make_key(sites["alpha"], task(run="../../x"))


# Rosters


def changed(roster: Roster, of: str, /, **fields: object) -> Roster:
    keys = [replace(key, **fields) if key.site == of else key for key in roster.keys]
    return replace(roster, keys=tuple(keys))


LIAR = public_key_of("77" * 32)


@pytest.mark.parametrize(
    ("tamper", "told"),
    [
        (lambda r: replace(r, keys=r.keys[:2]), "expected the sites alpha, beta, gamma"),
        (lambda r: replace(r, keys=(*r.keys, r.keys[1])), "found alpha, beta, beta, gamma"),
        (lambda r: changed(r, "beta", site="alpha"), "found alpha, alpha, gamma"),
        (lambda r: changed(r, "beta", site="eve"), "found alpha, eve, gamma"),
        (lambda r: changed(r, "alpha", public_key=LIAR), "another key than this site's own"),
        (
            lambda r: changed(r, "beta", public_key=r.keys[2].public_key),
            "expected every site once, with a key of its own",
        ),
        (lambda r: changed(r, "beta", public_key="0" * 64), "beta: is no usable public key"),
        (lambda r: replace(r, nonce=OTHER), "expected one with an unused key"),
    ],
)
def test_another_roster_than_the_key_was_made_for_is_refused(
    sites: dict[str, SiteConfig], tamper, told: str
) -> None:
    roster = roster_of(sites, task())
    with pytest.raises(PolicyError, match=told):
        answer(sites["alpha"], tamper(roster))


def test_a_roster_of_another_run_is_refused(sites: dict[str, SiteConfig]) -> None:
    with pytest.raises(PolicyError, match="expected one with an unused key"):
        answer(sites["alpha"], roster_of(sites, task()), run="other")


# Pinned peers


def identity(path: Path, seed: int) -> str:
    private = Ed25519PrivateKey.from_private_bytes(bytes([seed] * 32))
    path.write_bytes(private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return private.public_key().public_bytes_raw().hex()


@pytest.fixture
def pinned(tmp_path: Path, sites: dict[str, SiteConfig]) -> dict[str, SiteConfig]:
    """Return sites that sign and know each other, but not delta."""
    files = {name: tmp_path / f"{name}.pem" for name in NAMES}
    known = {name: identity(path, seed) for seed, (name, path) in enumerate(files.items())}
    return {
        name: replace(sites[name], identity=str(files[name]), peers=known) for name in NAMES
    } | {"delta": sites["delta"]}


def test_sites_that_know_each_other_mask_for_each_other(pinned: dict[str, SiteConfig]) -> None:
    roster = roster_of(pinned, task())
    vectors = [answer(pinned[name], roster)[COUNTS].view(np.uint64) for name in NAMES]
    assert from_vector(added(vectors, vectors[0].size), empty(TASK)).n_cases == 3


@pytest.mark.parametrize(
    ("tamper", "told"),
    [
        (lambda r: changed(r, "beta", public_key=LIAR), "found another"),
        (lambda r: changed(r, "beta", signature=None), "found none"),
        (lambda r: changed(r, "beta", public_key=LIAR, signature=None), "found none"),
        (lambda r: changed(r, "gamma", signature=r.keys[1].signature), "key of gamma"),
    ],
)
def test_a_key_that_its_owner_did_not_sign_is_refused(
    pinned: dict[str, SiteConfig], tamper, told: str
) -> None:
    with pytest.raises(PolicyError, match=told):
        answer(pinned["alpha"], tamper(roster_of(pinned, task())))


def test_a_signed_key_of_another_attempt_or_company_is_refused(
    pinned: dict[str, SiteConfig],
) -> None:
    old = make_key(pinned["beta"], task(OTHER))
    roster = roster_of(pinned, task())
    replayed = replace(roster, keys=(roster.keys[0], old, roster.keys[2]))
    with pytest.raises(PolicyError, match="key of beta: expected a signature by its pinned key"):
        answer(pinned["alpha"], replayed)


def test_a_site_that_is_not_pinned_is_refused(pinned: dict[str, SiteConfig]) -> None:
    with pytest.raises(PolicyError, match="delta is not among the pinned peers"):
        answer(pinned["alpha"], roster_of(pinned, task(names=(*NAMES, "delta"))))


def test_a_missing_identity_is_a_mistake_of_the_site(sites: dict[str, SiteConfig]) -> None:
    with pytest.raises(ConfigError, match="expected an Ed25519 key in PEM"):
        make_key(replace(sites["alpha"], identity="/nowhere.pem"), task())


def test_identity_and_peers_are_read_from_the_sites_file(tmp_path: Path) -> None:
    site = replace(site_of(tmp_path, "alpha"), identity="id.pem", peers={"beta": "a" * 64})
    write_toml(tmp_path / "site.toml", site)
    loaded = load_site(tmp_path / "site.toml")
    assert loaded.identity == str(tmp_path / "id.pem")
    assert loaded.peers == {"beta": "a" * 64}


# Sums of metrics


VALUES = np.arange(40, dtype=np.uint64)


def metrics_task(nonce: str = NONCE, names: Sequence[str] = NAMES) -> KeysTask:
    return replace(task(nonce, names), purpose="metrics")


def part(data: str = "a" * 64, question: str = "b" * 64) -> SumPart:
    return SumPart("metrics", VALUES, data=data, question=question)


def masked_metrics(site: SiteConfig, roster: Roster, **changes: str) -> np.ndarray:
    return masked_part(site, "run", roster, part(**changes))["metrics"].view(np.uint64)


@pytest.fixture
def testing(pinned: dict[str, SiteConfig]) -> dict[str, SiteConfig]:
    """Return sites that know each other and mask their metrics, and counts as well."""
    return {
        name: replace(site, policy=policy(metrics="secure-sum")) for name, site in pinned.items()
    }


def test_metrics_add_up_as_counts_do(testing: dict[str, SiteConfig]) -> None:
    roster = roster_of(testing, metrics_task())
    told = [masked_metrics(testing[name], roster) for name in NAMES]
    assert (added(told, VALUES.size) == 3 * VALUES).all()
    line = f"run run: metrics masked for the sum of alpha, beta, gamma ({NONCE})"
    assert line in log_of(testing["beta"])


def test_a_site_masks_what_its_policy_says_and_nothing_else(tmp_path: Path) -> None:
    counts = site_of(tmp_path, "alpha")
    with pytest.raises(PolicyError, match=r"policy\.metrics: 'none' masks nothing"):
        make_key(counts, metrics_task())
    with pytest.raises(PolicyError, match=r"policy\.metrics: 'none' masks nothing"):
        masked_metrics(counts, Roster(nonce=NONCE, keys=()))
    metrics = site_of(tmp_path, "alpha", metrics="secure-sum", fingerprint="exact")
    with pytest.raises(PolicyError, match=r"policy\.fingerprint: 'exact' masks nothing"):
        make_key(metrics, task())
    with pytest.raises(PolicyError, match="a key for updates masks nothing else"):
        make_key(counts, replace(task(), purpose="updates"))


def test_a_key_for_counts_masks_no_metrics(testing: dict[str, SiteConfig]) -> None:
    counts = roster_of(testing, task())
    with pytest.raises(PolicyError, match="expected one with an unused key"):
        masked_metrics(testing["alpha"], counts)
    own, *_ = roster_of(testing, metrics_task()).keys
    with pytest.raises(PolicyError, match="key of beta: expected a signature by its pinned key"):
        masked_metrics(testing["alpha"], replace(counts, keys=(own, *counts.keys[1:])))


def test_counts_and_metrics_of_a_run_may_have_other_company(
    testing: dict[str, SiteConfig], sites: dict[str, SiteConfig]
) -> None:
    answer(testing["alpha"], roster_of(testing, task()))
    four = metrics_task(names=(*NAMES, "delta"))
    assert make_key(testing["alpha"], four).site == "alpha"


def test_a_second_sum_of_metrics_is_of_the_same_sites_and_data(
    testing: dict[str, SiteConfig],
) -> None:
    masked_metrics(testing["alpha"], roster_of(testing, metrics_task()))
    again = roster_of(testing, metrics_task(OTHER))
    with pytest.raises(PolicyError, match="the data changed since metrics were masked"):
        masked_metrics(testing["alpha"], again, data="c" * 64)
    with pytest.raises(PolicyError, match="metrics were masked for the sum of other sites before"):
        make_key(testing["alpha"], metrics_task("2" * 32, (*NAMES, "delta")))
    masked_metrics(testing["alpha"], again, question="c" * 64)  # of other models it may be


def test_sites_that_tested_other_models_do_not_add_up(testing: dict[str, SiteConfig]) -> None:
    roster = roster_of(testing, metrics_task())
    other = {"gamma": {"question": "c" * 64}}
    told = [masked_metrics(testing[name], roster, **other.get(name, {})) for name in NAMES]
    assert not (added(told, VALUES.size) == 3 * VALUES).any()


# The keyed hash


def test_the_hash_of_the_data_tells_only_whether_they_are_the_same_within_a_run(
    sites: dict[str, SiteConfig],
) -> None:
    alpha, beta = sites["alpha"], sites["beta"]
    told = data_digest(alpha, "run", MEASURED)
    assert told == data_digest(alpha, "run", MEASURED)
    others = (
        data_digest(alpha, "run", merge(MEASURED, MEASURED)),
        data_digest(alpha, "next", MEASURED),
        data_digest(beta, "run", MEASURED),
    )
    assert len({told, *others}) == 4
    secret = alpha.state_folder / "fingerprint.key"
    assert stat.S_IMODE(secret.stat().st_mode) == 0o600


def test_a_damaged_secret_is_named(sites: dict[str, SiteConfig]) -> None:
    data_digest(sites["alpha"], "run", MEASURED)
    (sites["alpha"].state_folder / "fingerprint.key").write_bytes(b"")
    with pytest.raises(DiskError, match="expected 32 bytes, found 0; delete it"):
        data_digest(sites["alpha"], "run", MEASURED)


def test_a_key_names_its_site(sites: dict[str, SiteConfig]) -> None:
    key = make_key(sites["alpha"], task())
    assert key == MaskKey(site="alpha", public_key=key.public_key)
