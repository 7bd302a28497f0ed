"""Every reason for which a site refuses a noisy step, and what it charges otherwise."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from pydantic import ValidationError

from client.agreement import measure_site, prepare_site
from client.chain.appending import append, head_file
from client.permission import require_training
from client.privacy.budget import charged, require_private, require_whole_run, spent
from client.privacy.entry import FORMAT, new_entry
from client.privacy.ledger import load_account, open_ledger
from client.privacy.releases import note_release
from client.site import Agreement, SiteConfig, load_agreement, load_site
from common.codec import write_toml
from common.config import RunConfig
from common.errors import ConfigError, PolicyError
from common.messages import MeasureTask, PrepareTask, TrainTask, Update, Validated
from common.planning.planner import plan_run
from common.privacy.run_cost import allowed_steps, noise_of, planned_steps
from common.privacy.settings import PatientPrivacy
from common.task import load_task

TASK = load_task("brats-2021")


@dataclass(frozen=True)
class Private:
    site: SiteConfig
    agreement: Agreement

    @property
    def ledger(self) -> Path:
        return self.site.privacy_ledger_file

    def task(self, round_: int = 1) -> TrainTask:
        terms = self.agreement.terms
        return TrainTask(
            run=terms.run,
            plan_hash=terms.plan_hash,
            method="fedavg",
            round=round_,
            proximal_mu=0.0,
        )

    def take(self, n_steps: int, round_: int = 1, n_patients: int = 3) -> None:
        """Do so many noisy steps, were they allowed."""
        with charged(self.site, self.agreement, self.task(round_), n_patients, n_steps) as before:
            for _ in range(n_steps):
                before()

    def with_(self, **fields: object) -> "Private":
        """Return the same with other fields of the site's policy."""
        policy = replace(self.site.policy, **fields)  # type: ignore[arg-type]
        return replace(self, site=replace(self.site, policy=policy))

    def of_run(self, run: str) -> "Private":
        terms = replace(self.agreement.terms, run=run)
        return replace(self, agreement=replace(self.agreement, terms=terms))


def private_config(config: RunConfig, **fields: object) -> RunConfig:
    settings = {"delta": 1e-2, "clip_norm": 1.0, "sampling_rate": 0.5, **fields}
    return replace(
        config,
        federation=replace(config.federation, rounds=5, local_steps=4),
        model=replace(config.model, norm="instance"),
        privacy=PatientPrivacy(**settings),  # type: ignore[arg-type]
    )


@pytest.fixture(scope="module")
def prepared(tiny_study, tmp_path_factory) -> Callable[..., Private]:
    """Return what makes a site that has agreed to a private run."""
    home = tmp_path_factory.mktemp("private")
    site = load_site(tiny_study.write_sites(home)["alpha"])
    fingerprint = measure_site(site, MeasureTask(run="r", task=TASK)).fingerprint

    def make(state: Path, **fields: object) -> Private:
        config = private_config(tiny_study.config, **fields)
        plan = plan_run(fingerprint, config)
        terms = PrepareTask(
            run="r", task=TASK, config=config, fingerprint=fingerprint, plan_hash=plan.hash
        )
        own = replace(site, privacy_ledger=str(state / "privacy.jsonl"))
        open_ledger(own.privacy_ledger_file, 8.0, 1e-2, data_set="alpha")
        prepare_site(own, terms)
        return Private(own, load_agreement(own, "r", plan.hash))

    return make


@pytest.fixture
def private(prepared, tmp_path: Path) -> Private:
    found: Private = prepared(tmp_path, epsilon=8.0)
    return found


def refused(act: Callable[[], object]) -> str:
    with pytest.raises(PolicyError) as refusal:
        act()
    assert refusal.value.rule == "privacy"
    return str(refusal.value)


def test_noise_is_calibrated_for_all_rounds_and_one_that_is_repeated(private):
    config = private.agreement.terms.config
    assert (planned_steps(config), allowed_steps(config)) == (20, 21)
    assert private.agreement.noise_multiplier == noise_of(config)
    # dp-accounting 0.6.0 (PLD): epsilon 7.9869 of 21 steps at 1.0676, rate 0.5, delta 0.01
    assert private.agreement.noise_multiplier == pytest.approx(1.0676, abs=0.0015)


def test_every_step_is_in_the_ledger_before_it_is_done(private):
    with charged(private.site, private.agreement, private.task(), 3, 2) as before:
        for n in (1, 2):
            before()
            assert sum(s.steps for s in load_account(private.ledger).noisy) == n
    entry = load_account(private.ledger).entries[-1]
    assert (entry.run, entry.method, entry.round, entry.patients) == ("r", "fedavg", 1, 3)
    assert entry.steps is not None
    assert entry.steps.sampling_rate == 0.5
    assert entry.steps.noise_multiplier == private.agreement.noise_multiplier
    assert entry.clip_norm == 1.0
    assert entry.data_version is not None
    assert "alpha" not in private.ledger.read_text().replace('"data_set":"alpha"', "")


def test_a_whole_run_fits_and_says_what_it_cost(private):
    for round_ in range(1, 6):
        private.take(4, round_)
    found = spent(private.site, private.agreement)
    assert 7.5 < found.epsilon <= 8.0
    assert found.delta == 1e-2
    assert found.budget_used == pytest.approx(found.epsilon / 8.0)


def test_rounds_that_are_repeated_too_often_are_refused_before_their_first_step(private):
    for _ in range(5):
        private.take(4)
    before = private.ledger.read_bytes()
    words = refused(lambda: private.take(4))
    assert "4 further steps would cost more than the budget of the data set" in words
    assert private.ledger.read_bytes() == before


def test_a_run_keeps_its_promise_where_the_data_set_has_more(private):
    open_ledger(private.ledger, 50.0, 1e-2, reason="a second study")
    for _ in range(5):
        private.take(4)
    assert "more than was promised: expected at most epsilon 8" in refused(lambda: private.take(4))
    private.of_run("second").take(4)


def test_runs_of_several_federations_on_the_same_data_share_one_budget(private):
    private.of_run("elsewhere").take(10)
    assert "more than the budget" in refused(
        lambda: require_whole_run(private.site, private.agreement)
    )
    private.take(4)


def test_steps_beyond_those_that_were_asked_for_are_looked_at_one_by_one(private):
    with charged(private.site, private.agreement, private.task(), 3, 4) as before:
        for _ in range(21):
            before()
        refused(before)
    assert sum(s.steps for s in load_account(private.ledger).noisy) == 21


@pytest.mark.parametrize(
    ("break_it", "words"),
    [
        (lambda path: path.unlink(), "expected the privacy ledger of this data set, found none"),
        (lambda path: head_file(path).unlink(), "privacy.head: is missing"),
        (lambda path: path.write_bytes(b"{}\n"), "the last ones are missing"),
        (lambda path: append(path, new_entry("new"), FORMAT), "'new' is not understood"),
        (
            lambda path: append(path, new_entry("trained-without-privacy", run="x"), FORMAT),
            "run x trained on these patients without privacy",
        ),
    ],
)
def test_without_a_sound_ledger_nothing_is_trained(private, break_it, words: str):
    break_it(private.ledger)
    assert words in refused(lambda: private.take(1))
    assert words in refused(lambda: require_private(private.site, private.agreement, 3))
    assert words in refused(lambda: require_training(private.site, private.agreement, 1))
    assert words in refused(lambda: spent(private.site, private.agreement))


def test_a_ledger_that_disappears_in_the_middle_of_a_round_ends_it(private):
    with charged(private.site, private.agreement, private.task(), 3, 4) as before:
        before()
        private.ledger.unlink()
        assert "found none" in refused(before)


def test_delta_above_one_in_the_number_of_patients_is_refused(private):
    require_private(private.site, private.agreement, 100)
    assert "privacy.delta: expected at most 1 / patients = 0.0099" in refused(
        lambda: private.take(1, n_patients=101)
    )
    assert "expected at least one patient" in refused(lambda: private.take(1, n_patients=0))
    open_ledger(private.ledger, 8.0, 0.1, reason="a mistake")
    assert "privacy.jsonl: delta: expected at most" in refused(
        lambda: private.take(1, n_patients=50)
    )


def test_no_noise_is_refused(private):
    without = replace(private, agreement=replace(private.agreement, noise_multiplier=None))
    assert "expected a noise multiplier above 0, found None" in refused(lambda: without.take(1))
    with pytest.raises(ValidationError):
        replace(private.agreement, noise_multiplier=0.0)


def test_a_policy_limits_epsilon_of_the_whole_run(private):
    private.with_(max_epsilon=8.0).take(1)
    assert "policy.max_epsilon: expected training with an epsilon of at most 7.9, found 8" in (
        refused(lambda: private.with_(max_epsilon=7.9).take(1))
    )


def test_what_configured_noise_costs_is_compared_with_the_policy(prepared, tmp_path: Path):
    private = prepared(tmp_path, noise_multiplier=2.0)  # epsilon 3.4
    private.with_(max_epsilon=4.0).take(4)
    refused(lambda: private.with_(max_epsilon=3.0).take(4))
    assert spent(private.site, private.agreement).epsilon < 2.0


def test_a_run_that_has_no_room_is_refused_before_anything_is_prepared(prepared, tmp_path: Path):
    with pytest.raises(PolicyError, match="20 further steps would cost more than the budget"):
        prepared(tmp_path, epsilon=9.0)


def test_weights_without_privacy_are_noted_and_end_private_training(private):
    update = Update(round=1, n_cases=2, n_steps=4, loss=0.5, seconds=1.0)
    note_release(private.site, "open", update, private.task(3))
    note_release(private.site, "open", update, private.task(3))
    noted = [(e.kind, e.run, e.round) for e in load_account(private.ledger).entries[1:]]
    assert noted == [("released", "open", None), ("trained-without-privacy", "open", 3)]
    refused(lambda: private.take(1))


def test_what_leaves_without_noise_is_noted_once_per_run(private):
    for run in ("r", "r", "s"):
        note_release(private.site, run, Validated(dice={"WT": 0.5}))
    noted = [(e.run, e.what) for e in load_account(private.ledger).entries[1:]]
    assert noted == [(run, "mean Dice of the validation cases") for run in ("r", "s")]
    private.take(1)


def test_a_site_without_a_ledger_notes_nothing(private, tmp_path: Path):
    site = replace(private.site, privacy_ledger=str(tmp_path / "none.jsonl"))
    note_release(site, "r", Validated(dice={"WT": 0.5}))
    assert not (tmp_path / "none.jsonl").exists()


def test_the_ledgers_path_is_relative_to_the_sites_file(private, tmp_path: Path):
    relative = replace(private.site, privacy_ledger="../shared/glioma.jsonl")
    write_toml(tmp_path / "a" / "site.toml", relative)
    found = load_site(tmp_path / "a" / "site.toml").privacy_ledger_file
    assert found.resolve() == tmp_path / "shared" / "glioma.jsonl"
    absent = replace(private.site, privacy_ledger=None)
    assert absent.privacy_ledger_file == absent.state_folder / "privacy.jsonl"


def test_noise_for_a_run_without_privacy_is_a_mistake(tiny_study):
    with pytest.raises(ConfigError, match="the configuration promises no privacy"):
        noise_of(tiny_study.config)
