"""What every strategy must hold, whatever its paper; a new one is tested by being registered."""

import weakref
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from common.axes import Weights
from common.config import Federation, MethodName
from server.run_folder import latest_checkpoint, save_checkpoint
from server.strategies import BUILDERS, SiteUpdate, State, Strategy, build_strategy

SITES = ("a", "b", "c")
METHODS = sorted(BUILDERS)
FEDERATED = ["fedavg", "fedprox"]
INITIAL: Weights = {
    "w": np.array([[0.5, -0.25]], np.float32),
    "b": np.array(1.0, np.float32),
}
VALUES = st.floats(-1000, 1000, width=32).filter(lambda v: abs(v) > 2**-50)
ANY_WEIGHTS = st.fixed_dictionaries(
    {
        "w": arrays(np.float32, (1, 2), elements=VALUES),
        "b": arrays(np.float32, (), elements=VALUES),
    }
)
ANY_UPDATES = st.lists(
    st.tuples(st.integers(1, 500), ANY_WEIGHTS), min_size=len(SITES), max_size=len(SITES)
).map(lambda drawn: [SiteUpdate(s, n, w) for s, (n, w) in zip(SITES, drawn, strict=True)])


def federation(mu: float = 0.25) -> Federation:
    return Federation(
        seed=1,
        methods=("fedavg",),
        rounds=2,
        local_steps=1,
        held_out=(),
        min_sites=1,
        proximal_mu=mu,
    )


def strategy(method: str) -> Strategy:
    return build_strategy(method, federation())  # type: ignore[arg-type]


def started(method: str) -> tuple[Strategy, State]:
    built = strategy(method)
    return built, built.init(INITIAL, SITES)


def weights(value: float) -> Weights:
    return {"w": np.full((1, 2), value, np.float32), "b": np.array(-value, np.float32)}


def bits(
    groups: Mapping[str, Weights],
) -> dict[tuple[str, str], tuple[str, tuple[int, ...], bytes]]:
    """Return every tensor of a state with its type, shape and bytes."""
    return {
        (group, name): (tensor.dtype.name, tensor.shape, tensor.tobytes())
        for group, tensors in groups.items()
        for name, tensor in tensors.items()
    }


def test_every_method_of_a_configuration_has_a_builder() -> None:
    assert sorted(get_args(MethodName)) == METHODS


@pytest.mark.parametrize("method", METHODS)
def test_a_strategy_has_the_name_of_its_method(method: str) -> None:
    assert strategy(method).name == method


@pytest.mark.parametrize("method", METHODS)
def test_every_site_starts_from_the_initial_weights(method: str) -> None:
    built, state = started(method)
    for site in SITES:
        assert bits({"": built.weights_for(state, site)}) == bits({"": INITIAL})


@pytest.mark.parametrize("method", METHODS)
@settings(max_examples=30)
@given(updates=ANY_UPDATES, order=st.permutations(range(len(SITES))))
def test_the_order_of_the_updates_is_irrelevant_bit_for_bit(
    method: str, updates: list[SiteUpdate], order: list[int]
) -> None:
    built, state = started(method)
    one = built.aggregate(state, updates)
    other = built.aggregate(state, [updates[index] for index in order])
    assert bits(one) == bits(other)


@pytest.mark.parametrize("method", METHODS)
@settings(max_examples=30)
@given(sent=ANY_WEIGHTS, n_cases=st.integers(1, 500))
def test_a_site_that_is_alone_gets_its_own_weights_back(
    method: str, sent: Weights, n_cases: int
) -> None:
    built, state = started(method)
    state = built.aggregate(state, [SiteUpdate("b", n_cases, sent)])
    assert bits({"": built.weights_for(state, "b")}) == bits({"": sent})


@pytest.mark.parametrize("method", METHODS)
def test_without_updates_nothing_changes(method: str) -> None:
    built, state = started(method)
    assert bits(built.aggregate(state, iter(()))) == bits(state)


@pytest.mark.parametrize("method", METHODS)
def test_aggregating_changes_neither_the_old_state_nor_the_updates(method: str) -> None:
    built, state = started(method)
    updates = [SiteUpdate("a", 1, weights(3)), SiteUpdate("b", 2, weights(6))]
    before, sent = bits(state), [bits({"": update.weights}) for update in updates]
    built.aggregate(state, updates)
    assert bits(state) == before
    assert [bits({"": update.weights}) for update in updates] == sent


@pytest.mark.parametrize("method", FEDERATED)
def test_memory_does_not_grow_with_the_number_of_sites(method: str) -> None:
    built, state = started(method)
    sent: list[weakref.ref[np.ndarray]] = []
    most_alive = 0

    def arriving() -> Iterator[SiteUpdate]:
        nonlocal most_alive
        for site in range(6):
            tensors = weights(site)
            sent.append(weakref.ref(tensors["w"]))
            most_alive = max(most_alive, sum(tensor() is not None for tensor in sent))
            yield SiteUpdate(str(site), 1, tensors)
            del tensors

    state = built.aggregate(state, arriving())
    assert len(sent) == 6
    assert most_alive <= 2  # the one being folded, while the next arrives
    assert built.weights_for(state, "a")["w"].tolist() == [[2.5, 2.5]]


@pytest.mark.parametrize("method", METHODS)
def test_names_shapes_and_types_of_the_tensors_stay(method: str) -> None:
    built, state = started(method)
    state = built.aggregate(state, [SiteUpdate(site, 7, weights(0.3)) for site in SITES])
    for site in SITES:
        found = built.weights_for(state, site)
        assert {name: (t.shape, t.dtype.name) for name, t in found.items()} == {
            "w": ((1, 2), "float32"),
            "b": ((), "float32"),
        }


@pytest.mark.parametrize("method", METHODS)
def test_two_rounds_from_a_checkpoint_equal_two_rounds_in_one_go(
    method: str, tmp_path: Path
) -> None:
    built, state = started(method)
    first = [SiteUpdate("a", 3, weights(0.1)), SiteUpdate("c", 7, weights(-0.7))]
    second = [SiteUpdate("b", 5, weights(0.9)), SiteUpdate("a", 1, weights(1 / 3))]
    after_one = built.aggregate(state, first)
    save_checkpoint(tmp_path, 1, after_one)
    kept = latest_checkpoint(tmp_path)
    assert kept is not None
    assert kept[0] == 1
    assert bits(kept[1]) == bits(after_one)
    resumed, in_one_go = built.aggregate(kept[1], second), built.aggregate(after_one, second)
    assert bits(resumed) == bits(in_one_go)
    for site in SITES:
        assert bits({"": built.weights_for(kept[1], site)}) == bits(
            {"": built.weights_for(after_one, site)}
        )


@pytest.mark.parametrize("method", METHODS)
def test_after_a_truncated_checkpoint_the_round_before_is_taken(
    method: str, tmp_path: Path
) -> None:
    built, state = started(method)
    after_one = built.aggregate(state, [SiteUpdate("a", 1, weights(1))])
    save_checkpoint(tmp_path, 1, after_one)
    save_checkpoint(tmp_path, 2, built.aggregate(after_one, [SiteUpdate("a", 1, weights(2))]))
    newest = tmp_path / "round-0002.safetensors"
    newest.write_bytes(newest.read_bytes()[:-3])
    kept = latest_checkpoint(tmp_path)
    assert kept is not None
    assert kept[0] == 1
    assert bits(kept[1]) == bits(after_one)


@pytest.mark.parametrize("method", METHODS)
def test_every_tensor_of_the_state_has_its_own_name_in_a_checkpoint(
    method: str, tmp_path: Path
) -> None:
    _, state = started(method)
    save_checkpoint(tmp_path, 1, state)
    kept = latest_checkpoint(tmp_path)
    assert kept is not None
    assert bits(kept[1]) == bits(state)


@pytest.mark.parametrize("method", FEDERATED)
def test_cases_weigh_the_sites(method: str) -> None:
    built, state = started(method)
    # n = 10, 30, 60: 0.1 * 1 + 0.3 * 2 + 0.6 * 3 = 2.5
    updates = [
        SiteUpdate(s, n, weights(v)) for s, n, v in (("a", 10, 1), ("b", 30, 2), ("c", 60, 3))
    ]
    state = built.aggregate(state, updates)
    assert built.weights_for(state, "a")["w"].tolist() == [[2.5, 2.5]]
    assert built.weights_for(state, "a")["b"] == -2.5


@pytest.mark.parametrize("method", FEDERATED)
def test_a_federated_method_has_one_model_for_all(method: str) -> None:
    built, state = started(method)
    state = built.aggregate(state, [SiteUpdate("a", 1, weights(2))])
    models = built.models(state)
    assert list(models) == [""]
    for site in SITES:
        assert bits({"": built.weights_for(state, site)}) == bits(models)


@settings(max_examples=30)
@given(updates=ANY_UPDATES)
def test_fedprox_aggregates_as_fedavg_does(updates: list[SiteUpdate]) -> None:
    averaged, proximal = strategy("fedavg"), strategy("fedprox")
    one = averaged.aggregate(averaged.init(INITIAL, SITES), updates)
    other = proximal.aggregate(proximal.init(INITIAL, SITES), updates)
    assert bits(averaged.models(one)) == bits(proximal.models(other))


def test_only_fedprox_sends_a_proximal_term() -> None:
    sent = {method: build_strategy(method, federation(mu=0.25)).proximal_mu for method in BUILDERS}
    assert sent == {"fedavg": 0.0, "fedprox": 0.25, "local-only": 0.0}


def test_local_only_keeps_the_sites_apart() -> None:
    built, state = started("local-only")
    state = built.aggregate(
        state, [SiteUpdate("a", 1, weights(1)), SiteUpdate("c", 1000, weights(3))]
    )
    assert built.weights_for(state, "a")["w"].tolist() == [[1, 1]]
    assert bits({"": built.weights_for(state, "b")}) == bits({"": INITIAL})
    assert built.weights_for(state, "c")["w"].tolist() == [[3, 3]]
    assert sorted(built.models(state)) == ["a", "b", "c"]
