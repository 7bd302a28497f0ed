from dataclasses import replace
from pathlib import Path

import pytest

from client.policy import Policy
from client.proposal_words import describe
from client.proposals import (
    Proposal,
    answer_to,
    approve,
    keep_proposal,
    proposal_of,
    proposals,
    refuse,
)
from client.site import SiteConfig
from common.config import RunConfig
from common.errors import ConfigError, PolicyError
from common.messages import PrepareTask
from common.planning.fingerprint import empty
from common.task import load_task

TASK = load_task("brats-2021")


@pytest.fixture
def site(tmp_path: Path) -> SiteConfig:
    policy = Policy(metrics="ranks", validation_means=False, pictures=False, fingerprint="coarse")
    return SiteConfig(name="alpha", data="data", state=str(tmp_path / "state"), policy=policy)


def proposed(config: RunConfig, plan_hash: str = "1" * 64) -> Proposal:
    terms = PrepareTask(
        run="trial", task=TASK, config=config, fingerprint=empty(TASK), plan_hash=plan_hash
    )
    return proposal_of(terms)


@pytest.fixture
def proposal(tiny_study) -> Proposal:
    return proposed(tiny_study.config)


def test_an_answer_holds_for_exactly_one_plan(site, proposal, tiny_study):
    other = proposed(tiny_study.config, "2" * 64)
    keep_proposal(site, proposal)
    keep_proposal(site, other)
    assert answer_to(site, proposal) == "waiting"
    assert approve(site, proposal.hash[:8]).answer == "approved"
    assert (answer_to(site, proposal), answer_to(site, other)) == ("approved", "waiting")
    assert refuse(site, other.hash).answer == "refused"
    assert refuse(site, proposal.short).answer == "refused"  # also after a yes
    assert [p.answer for p in proposals(site)] == ["refused", "refused"]


def test_a_hash_that_names_none_or_several_is_the_users_mistake(site, proposal):
    with pytest.raises(ConfigError, match=r"one hash \(none\), found 0 that begin so"):
        approve(site, proposal.short)
    keep_proposal(site, proposal)
    with pytest.raises(ConfigError, match=rf"one hash \({proposal.short}\), found 0"):
        approve(site, "xyz")
    with pytest.raises(ConfigError, match="found 0"):
        approve(site, "")


def test_a_proposal_that_was_changed_by_hand_is_not_approved(site, proposal, tiny_study):
    keep_proposal(site, proposal)
    path = site.state_folder / "proposals" / f"{proposal.short}.json"
    path.write_text(path.read_text().replace('"rounds": 2', '"rounds": 9'))
    with pytest.raises(ConfigError, match="was changed by hand"):
        approve(site, proposal.short)
    path.write_text(path.read_text().replace('"waiting"', '"approved"'))
    with pytest.raises(ConfigError, match="expected the proposal"):
        answer_to(site, proposal)


def test_a_coordinator_cannot_fill_the_disk_with_questions(site, tiny_study):
    for number in range(100):
        keep_proposal(site, proposed(tiny_study.config, f"{number:064x}"))
    with pytest.raises(PolicyError, match="100 proposals wait for an answer") as error:
        keep_proposal(site, proposed(tiny_study.config, "f" * 64))
    assert error.value.rule == "approval"
    assert len(proposals(site)) == 100


def test_a_training_site_reads_who_asks_for_what_and_what_would_leave(site, proposal):
    text = "\n".join(describe(site, proposal))
    for line in (
        "asked by: the coordinator, for the run trial, 20",
        "answer so far: waiting",
        "task: brats-2021 version 1, channels ",
        "part of this site: trains on its own cases",
        "methods: fedavg",
        "rounds: up to 2 of every method, 2 steps of this site in each",
        "batch norm: means and variances stay here; scales and shifts leave with the weights",
        "leaves the building: counts of the data set, in bins of several cases",
        (
            "after every round the weights (float32), the number of cases, the mean loss, the time "
            "that it took, and no Dice"
        ),
        "privacy: no differential privacy",
        f"plan: {'1' * 64}",
        f"hash to approve: {proposal.hash}",
    ):
        assert line in text


def test_a_held_out_site_reads_that_nothing_is_trained(site, tiny_study):
    federation = replace(tiny_study.config.federation, held_out=("alpha",), min_sites=1)
    text = "\n".join(describe(site, proposed(tiny_study.config_with(federation=federation))))
    assert "held out; nothing is trained, final models are tested here" in text
    assert "of every final model sums of ranks over all cases, no metric" in text
    assert "no pictures" in text


@pytest.mark.parametrize(
    ("level", "words"),
    [
        ("none", "no metrics"),
        ("secure-sum", "sums of ranks and metrics, only in the sum of several held-out sites"),
        ("ranks", "sums of ranks over all cases, no metric"),
    ],
)
def test_a_person_at_a_held_out_site_reads_what_would_leave(site, tiny_study, level, words):
    federation = replace(tiny_study.config.federation, held_out=("alpha",), min_sites=1)
    testing = replace(site, policy=replace(site.policy, metrics=level))
    lines = describe(testing, proposed(tiny_study.config_with(federation=federation)))
    assert f"leaves the building: of every final model {words}" in lines
