"""What a site refuses in a secure round; four sites mask, of which three must agree."""

import stat
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from client.permission import require_terms
from client.policy import Policy
from client.secure.keys import run_key
from client.secure.masked_update import masked_update, require_secure
from client.secure.unmasking import agree, unmask
from client.site import Agreement, SiteConfig, save_agreement
from common.config import RunConfig
from common.errors import DiskError, MessageError, PolicyError
from common.messages import (
    Agreed,
    AgreeTask,
    KeysTask,
    PrepareTask,
    TrainTask,
    Unmasked,
    UnmaskTask,
    Update,
)
from common.planning.fingerprint import fingerprint_of
from common.planning.planner import plan_run
from common.secure_aggregation import SecureAggregation
from common.secure_round import SecureRound
from common.secure_sum import Roster, public_key_of
from common.task import load_task

NAMES = ("alpha", "beta", "gamma", "delta")
SURVIVORS = NAMES[:3]
NONCE, OTHER = "0" * 32, "1" * 32
TASK = load_task("brats-2021")
MEASURED = fingerprint_of((40, 41, 42), (40, 41, 42), (1.0, 1.0, 1.0), None, TASK)
SENT = {"w": np.array([0.5, -0.25], np.float32)}
KEYS = KeysTask(run="run", nonce=NONCE, sites=NAMES, purpose="updates")


def site_of(home: Path, name: str, **rules: object) -> SiteConfig:
    settings = {
        "metrics": "none",
        "validation_means": False,
        "pictures": False,
        "fingerprint": "exact",
        **rules,
    }
    policy = Policy(**settings)  # type: ignore[arg-type]
    return SiteConfig(name=name, data=str(home), state=str(home / name), policy=policy)


class Round:
    """Four sites of one round, and what a coordinator may ask of them."""

    def __init__(self, home: Path, config: RunConfig, **rules: object) -> None:
        self.sites = {name: site_of(home, name, **rules) for name in NAMES}
        plan = plan_run(MEASURED, config)
        self.terms = PrepareTask(
            run="run", task=TASK, config=config, fingerprint=MEASURED, plan_hash=plan.hash
        )
        self.agreement = Agreement(terms=self.terms, plan=plan, cases=("case",))
        for site in self.sites.values():
            save_agreement(site, self.agreement)
        self.shares: dict[str, dict[str, str]] = {}

    def secure(self, nonce: str = NONCE, **changes: object) -> SecureRound:
        keys = tuple(run_key(site, KEYS) for site in self.sites.values())
        settings = {"roster": Roster(nonce=nonce, keys=keys), "threshold": 3, "total_count": 8}
        return SecureRound(**{**settings, **changes})  # type: ignore[arg-type]

    def task(self, secure: SecureRound | None = None, round_: int = 1) -> TrainTask:
        return TrainTask(
            run="run",
            plan_hash=self.terms.plan_hash,
            method="fedavg",
            round=round_,
            proximal_mu=0.0,
            secure=secure,
        )

    def mask(self, name: str, secure: SecureRound, round_: int = 1, move: float = 1.0) -> None:
        site, task = self.sites[name], self.task(secure, round_)
        require_secure(site, self.agreement, task)
        update = Update(round=round_, n_cases=2, n_steps=1, loss=0.5, seconds=1.0)
        moved = {"w": SENT["w"] + np.float32(move)}
        told, _ = masked_update(site, self.agreement, task, update, SENT, moved)
        assert told.masked is not None
        self.shares[name] = told.masked.shares

    def everyone_masks(self, nonce: str = NONCE, round_: int = 1) -> None:
        secure = self.secure(nonce)
        for name in NAMES:
            self.mask(name, secure, round_)

    def agreeing(self, names: Sequence[str] = SURVIVORS, **changes: object) -> AgreeTask:
        task = AgreeTask(
            run="run",
            plan_hash=self.terms.plan_hash,
            method="fedavg",
            round=1,
            nonce=NONCE,
            survivors=tuple(names),
        )
        return replace(task, **changes)  # type: ignore[arg-type]

    def unmasking(self, receiver: str, names: Sequence[str] = SURVIVORS) -> UnmaskTask:
        """Return the question that an honest coordinator asks after all survivors agreed."""
        agreed = {name: agree(self.sites[name], self.agreeing(names)) for name in names}
        return UnmaskTask(
            **vars(self.agreeing(names)),
            codes={name: a.codes[receiver] for name, a in agreed.items() if name != receiver},
            shares={name: self.shares[name][receiver] for name in names if name != receiver},
        )


@pytest.fixture
def round_of(tiny_study, tmp_path: Path) -> Callable[..., Round]:
    def make(**rules: object) -> Round:
        federation = replace(
            tiny_study.config.federation,
            min_sites=3,
            secure_aggregation=SecureAggregation(min_sites=3),
        )
        return Round(tmp_path, tiny_study.config_with(federation=federation), **rules)

    return make


@pytest.fixture
def four(round_of: Callable[..., Round]) -> Round:
    """Return a round in which all four sites sent masked updates."""
    made = round_of()
    made.everyone_masks()
    return made


def refused(act: Callable[[], object], told: str) -> None:
    with pytest.raises(PolicyError, match=told) as error:
        act()
    assert error.value.rule == "privacy"


# What is told


def test_of_survivors_own_seeds_are_told_and_of_the_dropped_their_pairs(four: Round) -> None:
    told = unmask(four.sites["alpha"], four.unmasking("alpha"))
    assert {*told.own} == {*SURVIVORS}
    assert {*told.pairs} == {*SURVIVORS}
    assert {name for pairs in told.pairs.values() for name in pairs} == {"delta"}


def test_without_a_drop_out_no_seed_of_a_pair_is_told(four: Round) -> None:
    told = unmask(four.sites["alpha"], four.unmasking("alpha", NAMES))
    assert {*told.own} == {*NAMES}
    assert told.pairs == {name: {} for name in NAMES}


def test_the_same_question_gets_the_same_answer(four: Round) -> None:
    alpha, asked = four.sites["alpha"], four.unmasking("alpha")
    assert unmask(alpha, asked) == unmask(alpha, asked)
    assert agree(alpha, four.agreeing()) == agree(alpha, four.agreeing())


@pytest.mark.parametrize("others", [("alpha", "beta", "delta"), NAMES])
def test_other_survivors_are_refused_once_a_site_has_agreed(
    four: Round, others: tuple[str, ...]
) -> None:
    alpha, asked = four.sites["alpha"], four.unmasking("alpha")
    again = replace(asked, survivors=others)
    told = "this site agreed to other survivors"
    refused(lambda: agree(alpha, four.agreeing(others)), told)
    refused(lambda: unmask(alpha, again), told)


def test_a_sites_second_set_of_shares_is_not_told_after_the_first(four: Round) -> None:
    asked = four.unmasking("alpha")
    unmask(four.sites["alpha"], asked)
    kept = four.shares["beta"]["alpha"]
    beta = four.sites["beta"]
    for kind in ("agreed", "told"):
        for path in beta.state_folder.rglob(f"*.{kind}"):
            path.unlink()  # a site that lost its disk masks again under the same number
    four.mask("beta", four.secure())
    assert four.shares["beta"]["alpha"] != kept
    again = replace(asked, shares={**asked.shares, "beta": four.shares["beta"]["alpha"]})
    refused(lambda: unmask(four.sites["alpha"], again), "other shares were told already")


# Who survived


@pytest.mark.parametrize(
    "names",
    [
        ("alpha", "beta"),
        ("alpha", "alpha", "beta"),
        ("beta", "gamma", "delta"),
        ("alpha", "beta", "eve"),
        (),
    ],
)
def test_too_few_double_or_foreign_survivors_are_refused(
    four: Round, names: tuple[str, ...]
) -> None:
    alpha = four.sites["alpha"]
    refused(lambda: agree(alpha, four.agreeing(names)), "alpha and in all at least 3 of alpha, b")
    assert not [*alpha.state_folder.rglob("*.agreed")]


def test_a_hospital_may_want_more_survivors_than_the_run(round_of) -> None:
    strict = round_of(min_secure_sites=4)
    strict.everyone_masks()
    refused(lambda: agree(strict.sites["alpha"], strict.agreeing()), "at least 4")


@pytest.mark.parametrize(
    "changes", [{"nonce": OTHER}, {"round": 2}, {"method": "fedprox"}], ids=str
)
def test_another_attempt_round_or_method_is_refused(four: Round, changes: dict) -> None:
    asked = four.agreeing(**changes)
    refused(lambda: agree(four.sites["alpha"], asked), "expected the attempt that this site masked")


def test_only_the_latest_attempt_of_a_round_is_opened(four: Round) -> None:
    four.everyone_masks(OTHER)
    alpha = four.sites["alpha"]
    refused(lambda: agree(alpha, four.agreeing()), "masked its latest update for")
    assert isinstance(agree(alpha, four.agreeing(nonce=OTHER)), Agreed)


def test_after_agreeing_no_further_attempt_of_the_round_is_masked(four: Round) -> None:
    agree(four.sites["alpha"], four.agreeing())
    told = "round 1: its survivors were agreed on"
    refused(lambda: four.mask("alpha", four.secure(OTHER)), told)
    refused(lambda: four.mask("alpha", four.secure()), told)
    four.mask("alpha", four.secure(OTHER), round_=2)  # the next one is


def test_a_promise_that_a_crash_cut_short_is_kept_to_nobody(four: Round) -> None:
    alpha = four.sites["alpha"]
    agree(alpha, four.agreeing())
    (path,) = alpha.state_folder.rglob("*.agreed")
    path.write_bytes(b'{"nonce"')
    refused(lambda: agree(alpha, four.agreeing()), "expected what this site promised, found none")


# Codes and shares


def test_shares_are_told_only_when_enough_sites_agreed_to_the_same(four: Round) -> None:
    asked = four.unmasking("alpha")
    for codes in (
        {},
        {"beta": asked.codes["beta"]},
        {"beta": asked.codes["beta"], "gamma": asked.codes["beta"]},
        {"beta": asked.codes["beta"], "delta": asked.codes["gamma"]},
    ):
        wrong = replace(asked, codes=codes)
        refused(lambda q=wrong: unmask(four.sites["alpha"], q), "expected 3 sites that agreed")
    assert isinstance(unmask(four.sites["alpha"], asked), Unmasked)


def test_codes_for_other_survivors_are_worth_nothing(four: Round) -> None:
    asked = four.unmasking("alpha")
    delta = four.sites["delta"]
    wrong = replace(asked, survivors=NAMES, shares={**asked.shares, "delta": "A" * 80})
    for path in four.sites["alpha"].state_folder.rglob("*.agreed"):
        path.unlink()
    refused(lambda: unmask(four.sites["alpha"], wrong), "found 1")
    assert not [*delta.state_folder.rglob("*.agreed")]


def changed(text: str) -> str:
    return text[:40] + ("A" if text[40] != "A" else "B") + text[41:]


@pytest.mark.parametrize("tamper", ["changed", "swapped", "another receiver's", "another round's"])
def test_shares_that_were_not_sealed_for_this_site_and_attempt_are_refused(
    four: Round, tamper: str
) -> None:
    asked = four.unmasking("alpha")
    shares = {**asked.shares}
    if tamper == "changed":
        shares["beta"] = changed(shares["beta"])
    if tamper == "swapped":
        shares["beta"], shares["gamma"] = shares["gamma"], shares["beta"]
    if tamper == "another receiver's":
        shares["beta"] = four.shares["beta"]["gamma"]
    if tamper == "another round's":
        four.mask("beta", four.secure(), round_=2)
        shares["beta"] = four.shares["beta"]["alpha"]
    wrong = replace(asked, shares=shares)
    refused(lambda: unmask(four.sites["alpha"], wrong), "expected what it sealed for this site")
    assert not [*four.sites["alpha"].state_folder.rglob("*.told")]


def test_shares_of_all_other_survivors_and_nobody_else_are_expected(four: Round) -> None:
    asked = four.unmasking("alpha")
    wrong = replace(asked, shares={"beta": asked.shares["beta"]})
    refused(lambda: unmask(four.sites["alpha"], wrong), "expected shares from every other")


# The question of a round


def test_another_threshold_roster_or_total_than_agreed_is_refused(round_of) -> None:
    made = round_of()
    good = made.secure()
    keys = good.roster.keys
    liar = replace(keys[1], public_key=public_key_of("77" * 32))
    own = replace(keys[0], public_key=liar.public_key)
    point = replace(keys[1], public_key="0" * 64)
    wrong = {
        "expected a threshold of 3 of 4 sites, found 4": replace(good, threshold=4),
        "expected a total of at least this site's own count, 2": replace(good, total_count=1),
        "at least 3 sites that mask their updates, found 2": with_keys(good, keys[:2]),
        "another key than this site's own": with_keys(good, (own, *keys[1:])),
        "every site once": with_keys(good, (*keys, liar)),
        "with a key of its own": with_keys(
            good, (*keys[:3], replace(keys[3], public_key=keys[2].public_key))
        ),
        "beta: is no usable public key": with_keys(good, (keys[0], point, *keys[2:])),
    }
    for told, secure in wrong.items():
        refused(lambda s=secure: made.mask("alpha", s), told)
    assert not [*made.sites["alpha"].state_folder.rglob("*.attempt")]


def with_keys(secure: SecureRound, keys: tuple) -> SecureRound:
    return replace(secure, roster=replace(secure.roster, keys=keys))


def test_shares_of_a_roster_with_a_false_key_open_nothing(round_of) -> None:
    made = round_of()
    good = made.secure()
    false = replace(good.roster.keys[3], public_key=public_key_of("77" * 32))
    made.mask("alpha", with_keys(good, (*good.roster.keys[:3], false)))
    for name in ("beta", "gamma", "delta"):
        made.mask(name, good)
    agree(made.sites["alpha"], made.agreeing())
    asked = made.unmasking("beta")
    refused(lambda: unmask(made.sites["beta"], asked), "found 2|expected what it sealed")


def test_what_was_agreed_on_stays_masked_and_what_was_not_stays_plain(round_of, tiny_study) -> None:
    made = round_of()
    alpha = made.sites["alpha"]
    refused(lambda: require_secure(alpha, made.agreement, made.task()), "masked updates, as agreed")
    plain = replace(made.agreement, terms=replace(made.terms, config=tiny_study.config))
    asked = made.task(made.secure())
    refused(lambda: require_secure(alpha, plain, asked), "plain updates, as agreed")
    require_secure(alpha, plain, made.task())


def test_a_hospital_can_demand_that_only_sums_of_updates_are_seen(round_of, tiny_study) -> None:
    made = round_of(updates="secure-sum")
    require_terms(made.sites["alpha"], made.terms)
    plain = replace(made.terms, config=tiny_study.config)
    refused(lambda: require_terms(made.sites["alpha"], plain), "policy.updates: expected a run wi")


def test_a_change_beyond_the_fixed_point_range_is_not_sent(round_of) -> None:
    made = round_of()
    with pytest.raises(MessageError, match=r"w: expected a change of at most 7.75"):
        made.mask("alpha", made.secure(), move=9.0)
    assert not [*made.sites["alpha"].state_folder.rglob("*.attempt")]


# Keys


def test_a_site_has_one_key_per_run_that_only_this_user_reads(tmp_path: Path) -> None:
    site = site_of(tmp_path, "alpha")
    key = run_key(site, KEYS)
    assert run_key(site, replace(KEYS, nonce=OTHER)) == key
    assert run_key(site, replace(KEYS, run="next")) != key
    path = site.run_folder("run") / "secure-rounds" / "key"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.write_text("")
    with pytest.raises(DiskError, match="expected 64 hexadecimal digits, found 0; delete it"):
        run_key(site, KEYS)


def test_what_a_site_keeps_of_a_round_only_this_user_reads(four: Round) -> None:
    unmask(four.sites["alpha"], four.unmasking("alpha"))
    kept = [*(four.sites["alpha"].run_folder("run") / "secure-rounds" / "fedavg").iterdir()]
    assert sorted(path.suffix for path in kept) == [".agreed", ".attempt", ".told"]
    assert {stat.S_IMODE(path.stat().st_mode) for path in kept} == {0o600}


@pytest.mark.parametrize("names", [("alpha", "beta"), ("beta", "gamma", "delta"), ()])
def test_too_small_or_foreign_company_gets_no_key(tmp_path: Path, names: tuple[str, ...]) -> None:
    site = site_of(tmp_path, "alpha")
    refused(lambda: run_key(site, replace(KEYS, sites=names)), "in all at least 3 sites")


def test_a_key_that_its_owner_did_not_sign_for_the_run_is_refused(round_of, tmp_path) -> None:
    made = round_of()
    private = {
        n: Ed25519PrivateKey.from_private_bytes(bytes([i] * 32)) for i, n in enumerate(NAMES)
    }
    known = {name: key.public_key().public_bytes_raw().hex() for name, key in private.items()}
    for name, key in private.items():
        file = tmp_path / f"{name}.pem"
        file.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        made.sites[name] = replace(made.sites[name], identity=str(file), peers=known)
    good = made.secure()
    made.mask("alpha", good)
    keys = good.roster.keys
    liar = public_key_of("77" * 32)
    elsewhere = run_key(made.sites["beta"], replace(KEYS, run="other"))
    for false in (replace(keys[1], public_key=liar), replace(keys[1], signature=None), elsewhere):
        wrong = with_keys(good, (keys[0], false, *keys[2:]))
        refused(lambda s=wrong: made.mask("alpha", s), "key of beta: expected a signature")
    alone = {name: key for name, key in known.items() if name != "beta"}
    made.sites["alpha"] = replace(made.sites["alpha"], peers=alone)
    refused(lambda: made.mask("alpha", good), "beta is not among the pinned peers")
