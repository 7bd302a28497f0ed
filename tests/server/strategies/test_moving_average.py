"""The average over rounds: its numbers, what it leaves alone, and that it survives a checkpoint."""

from pathlib import Path

import numpy as np
import pytest

from common.axes import Weights
from common.federation import Federation, MethodName, ServerOptimizer
from server.run_folder import latest_checkpoint, save_checkpoint
from server.strategies import SiteUpdate, State, Strategy, build_strategy
from server.strategies.moving_average import averaged, averaging

SITES = ("a", "b")


def federation(**changes: object) -> Federation:
    settings: dict[str, object] = {
        "seed": 1,
        "methods": ("fedavg",),
        "rounds": 3,
        "local_steps": 1,
        "held_out": (),
        "min_sites": 1,
        "n_faulty": 1,
        "server_optimizer": ServerOptimizer(learning_rate=1.0),
        **changes,
    }
    return Federation(**settings)  # type: ignore[arg-type]


def built(method: MethodName = "fedavg", decay: float = 0.75) -> Strategy:
    return build_strategy(method, federation(final_model="average", average_decay=decay))


def weights(value: float) -> Weights:
    return {"w": np.full(2, value, np.float32), "b": np.array(value, np.float32)}


def after(strategy: Strategy, *rounds: dict[str, float], state: State | None = None) -> State:
    """Return the state after rounds in which sites sent these values."""
    state = strategy.init(weights(0), SITES) if state is None else state
    for sent in rounds:
        updates = [SiteUpdate(site, 1, weights(value)) for site, value in sent.items()]
        state = strategy.aggregate(state, updates)
    return state


ROUNDS = ({"a": 4.0}, {"a": 8.0}, {"a": 0.0, "b": 1.0})


def test_the_average_begins_with_the_first_round_and_forgets_slowly() -> None:
    # 4; 0.75 * 4 + 0.25 * 8 = 5; 0.75 * 5 + 0.25 * 0.5 = 3.875
    strategy = built()
    for n_rounds, value in ((1, 4.0), (2, 5.0), (3, 3.875)):
        final = averaged(after(strategy, *ROUNDS[:n_rounds]))
        model = strategy.models(final)[""]
        assert model["w"].tolist() == [value, value]
        assert (model["b"].shape, float(model["b"])) == ((), value)
        assert {tensor.dtype.name for tensor in model.values()} == {"float32"}


def test_the_rounds_themselves_are_those_without_an_average() -> None:
    strategy, plain = built(), build_strategy("fedavg", federation())
    one, other = after(strategy, *ROUNDS), after(plain, *ROUNDS)
    assert strategy.weights_for(one, "a")["w"].tolist() == [0.5, 0.5]
    assert plain.weights_for(other, "a")["w"].tolist() == [0.5, 0.5]
    assert strategy.models(one)[""]["w"].tolist() == [0.5, 0.5]
    assert strategy.weights_for(one, "a") is strategy.weights_for(one, "b")  # packed once


def test_every_site_s_own_model_has_its_average() -> None:
    strategy = built("local-only", decay=0.5)
    state = after(strategy, {"a": 2.0, "b": 10.0}, {"a": 4.0, "b": 0.0})
    models = strategy.models(averaged(state))
    assert {site: float(model["b"]) for site, model in models.items()} == {"a": 3.0, "b": 5.0}
    assert {site: float(model["b"]) for site, model in strategy.models(state).items()} == {
        "a": 4.0,
        "b": 0.0,
    }


def test_only_models_are_averaged_not_what_else_a_method_remembers() -> None:
    strategy = built("fedavgm")
    state = after(strategy, {"a": 4.0})
    assert sorted(state) == ["average@global", "first-moment", "global"]
    assert sorted(averaged(state)) == ["first-moment", "global"]


def test_a_round_that_changes_nothing_is_not_averaged_again() -> None:
    strategy = built("median")
    state = after(strategy, {"a": 4.0}, {"a": 8.0})
    assert after(strategy, {}, state=state) is state
    robust = built("trimmed-mean")  # one faulty site among at least three
    state = after(robust, {"a": 4.0, "b": 4.0})
    assert averaged(state) == {"global": robust.weights_for(state, "a")}


@pytest.mark.parametrize("method", ["fedavg", "fedavgm", "dwa", "local-only"])
def test_going_on_from_a_checkpoint_gives_the_same_average_bit_for_bit(
    method: MethodName, tmp_path: Path
) -> None:
    strategy = built(method, decay=0.9)
    first = ({"a": 0.1, "b": 0.7}, {"a": 1 / 3, "b": 0.3})
    second = ({"a": 0.9, "b": -0.3}, {"a": 1 / 7, "b": 0.2})
    save_checkpoint(tmp_path, 2, after(strategy, *first))
    kept = latest_checkpoint(tmp_path)
    assert kept is not None
    resumed = averaged(after(strategy, *second, state=kept[1]))
    undisturbed = averaged(after(strategy, *first, *second))
    for owner, model in strategy.models(undisturbed).items():
        for name, tensor in model.items():
            assert strategy.models(resumed)[owner][name].tobytes() == tensor.tobytes()


def test_an_average_of_equal_weights_is_these_weights() -> None:
    strategy = averaging(build_strategy("fedavg", federation()), 0.9)
    state = after(strategy, *({"a": float(np.float32(1 / 3))},) * 5)
    assert float(strategy.models(averaged(state))[""]["b"]) == np.float32(1 / 3)
