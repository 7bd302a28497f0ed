"""What a site keeps back of a rounded update, and that a repeated round sends the same."""

from pathlib import Path

import numpy as np
import pytest

from client.policy import Policy
from client.site import SiteConfig
from client.upload import prepare_upload, residual_file
from common.axes import Weights
from common.errors import ConfigError
from common.messages import TrainTask

SENT: Weights = {"w": np.zeros((1, 2), np.float32), "b": np.zeros(2, np.float32)}
TRAINED: Weights = {
    "w": np.array([[127.0, 0.25]], np.float32),
    "b": np.array([0.1, 0.2], np.float32),
}


@pytest.fixture
def site(tmp_path: Path) -> SiteConfig:
    policy = Policy(metrics="none", validation_means=False, pictures=False, fingerprint="exact")
    return SiteConfig(name="s", data=str(tmp_path), state=str(tmp_path / "state"), policy=policy)


def task(round_: int, method: str = "fedavg") -> TrainTask:
    return TrainTask(run="r", plan_hash="0", method=method, round=round_, proximal_mu=0)


def test_whole_weights_leave_nothing_behind(site: SiteConfig) -> None:
    assert prepare_upload(site, task(1), SENT, TRAINED, "float32") == (TRAINED, None)
    assert not site.state_folder.exists()


def test_what_one_round_could_not_say_goes_along_in_the_next(site: SiteConfig) -> None:
    # the unit is 127 / 127 = 1: a quarter is nothing, four quarters are one
    said = []
    for round_ in range(1, 5):
        payload, scales = prepare_upload(site, task(round_), SENT, TRAINED, "int8")
        assert scales == {"w": 1.0}
        said.append(payload["w"].tolist())
    assert said == [[[127, 0]], [[127, 0]], [[127, 1]], [[127, 0]]]
    kept = sorted(path.name for path in residual_file(site, task(4), 4).parent.iterdir())
    assert kept == ["round-0003.safetensors", "round-0004.safetensors"]


def test_a_round_that_is_asked_for_again_gives_the_same_answer(site: SiteConfig) -> None:
    for round_ in (1, 2):
        prepare_upload(site, task(round_), SENT, TRAINED, "int8")
    first, _ = prepare_upload(site, task(3), SENT, TRAINED, "int8")
    again, _ = prepare_upload(site, task(3), SENT, TRAINED, "int8")
    assert first["w"].tolist() == again["w"].tolist() == [[127, 1]]


def test_a_site_that_missed_rounds_goes_on_from_its_last_one(site: SiteConfig) -> None:
    for round_ in (1, 2, 9):
        payload, _ = prepare_upload(site, task(round_), SENT, TRAINED, "int8")
    assert payload["w"].tolist() == [[127, 1]]


def test_methods_have_rests_of_their_own(site: SiteConfig) -> None:
    for method in ("fedavg", "fedprox", "dwa"):
        payload, _ = prepare_upload(site, task(3, method), SENT, TRAINED, "int8")
        assert payload["w"].tolist() == [[127, 0]]


def test_a_damaged_rest_is_named(site: SiteConfig) -> None:
    prepare_upload(site, task(1), SENT, TRAINED, "int8")
    path = residual_file(site, task(1), 1)
    path.write_bytes(path.read_bytes()[:20])
    with pytest.raises(ConfigError, match=r"round-0001.* expected the rest of an update"):
        prepare_upload(site, task(2), SENT, TRAINED, "int8")
