from dataclasses import replace

import numpy as np
import pytest

from common.config import FinishedRun
from common.errors import ConfigError
from common.network import build_network, initial_weights
from common.planning.plan import configuration_of
from server.event_log import read_events
from server.events import Note
from server.run_folder import RunFolder, save_model
from server.start import first_weights, keep_start


@pytest.fixture
def started(toy_experiment, tmp_path):
    """Return an experiment that starts from another run's model, and that run's folder."""
    earlier = tmp_path / "public"
    run = toy_experiment(tmp_path, None, {"a": 3, "b": 4})
    wanted = FinishedRun(run=str(earlier), method="fedavg")
    config = replace(run.config, model=replace(run.config.model, start=wanted))
    return replace(run, config=config), RunFolder(earlier)


def network_of(run):
    return build_network(run.task, configuration_of(run.plan, "3d_fullres"), run.config.model)


def test_training_starts_from_the_tensors_that_fit_and_the_log_says_how_many(started):
    run, earlier = started
    drawn = initial_weights(network_of(run), 1)
    names = sorted(drawn)
    kept = {name: np.full_like(drawn[name], 7.0) for name in names[:2]}
    other_shape = {names[2]: np.zeros(5, np.float32)}
    save_model(earlier.model("fedavg"), {**kept, **other_shape})
    keep_start(run.config.model.start, run.folder)
    found = first_weights(run, network_of(run))
    assert all(np.all(found[name] == 7.0) for name in names[:2])
    assert all(np.array_equal(found[name], drawn[name]) for name in names[2:])
    notes = [event.text for _, event in read_events(run.folder.events) if isinstance(event, Note)]
    assert notes[-1].startswith(f"start: 2 of {len(names)} tensors (")
    assert notes[-1].endswith("of the model of fedavg in public")


def test_a_start_is_kept_with_the_run_when_the_other_run_is_gone(started):
    run, earlier = started
    save_model(earlier.model("fedavg"), initial_weights(network_of(run), 2))
    keep_start(run.config.model.start, run.folder)
    earlier.model("fedavg").unlink()
    keep_start(run.config.model.start, run.folder)
    expected = initial_weights(network_of(run), 2)
    found = first_weights(run, network_of(run))
    assert all(np.array_equal(found[name], expected[name]) for name in expected)


def test_a_run_without_a_model_is_refused_before_anything_is_asked_of_a_site(started):
    run, _ = started
    with pytest.raises(ConfigError, match=r"model\.start: .*expected a finished run with a model"):
        keep_start(run.config.model.start, run.folder)


def test_a_model_of_another_network_is_refused(started):
    run, earlier = started
    save_model(earlier.model("fedavg"), {"strange": np.zeros(3, np.float32)})
    keep_start(run.config.model.start, run.folder)
    with pytest.raises(ConfigError, match="expected a model with tensors of this network"):
        first_weights(run, network_of(run))


def test_a_start_must_have_all_that_is_frozen_but_may_have_other_heads(started):
    run, earlier = started
    training = replace(run.config.training, trained="biases-and-norms")
    run = replace(run, config=replace(run.config, training=training))
    whole = initial_weights(network_of(run), 2)
    other_head = {**whole, "heads.0.weight": np.zeros((3, 4, 1, 1, 1), np.float32)}
    save_model(earlier.model("fedavg"), other_head)
    keep_start(run.config.model.start, run.folder)
    found = first_weights(run, network_of(run))
    drawn = initial_weights(network_of(run), 1)
    assert np.array_equal(found["heads.0.weight"], drawn["heads.0.weight"])
    assert np.array_equal(found["up.0.weight"], whole["up.0.weight"])
    other_images = {**whole, "encoder.0.0.weight": np.zeros((4, 2, 3, 3, 3), np.float32)}
    save_model(run.folder.start, other_images)
    with pytest.raises(ConfigError, match=r"all 7 tensors .* 1 differ, .* encoder\.0\.0\.weight"):
        first_weights(run, network_of(run))


def test_without_a_start_weights_are_random(toy_experiment, tmp_path):
    run = toy_experiment(tmp_path, None, {"a": 3, "b": 4})
    expected = initial_weights(network_of(run), 1)
    found = first_weights(run, network_of(run))
    assert all(np.array_equal(found[name], expected[name]) for name in expected)
