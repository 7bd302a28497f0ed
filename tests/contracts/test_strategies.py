"""What every strategy must hold, whatever its paper; a new one is tested by being registered."""

import weakref
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from common.axes import Weights
from common.federation import Federation, MethodName, ServerOptimizer
from server.run_folder import latest_checkpoint, save_checkpoint
from server.strategies import BUILDERS, SiteUpdate, State, Strategy, build_strategy

SITES = ("a", "b", "c")
METHODS = sorted(BUILDERS)
FEDERATED = [method for method in METHODS if method != "local-only"]
OPTIMIZERS = ["fedadagrad", "fedadam", "fedavgm", "fedyogi"]
AVERAGING = [
    "cyclic",
    "fedavg",
    "fedprox",
    "incremental",
    "partial-sharing",
]  # the mean by counts, and nothing else
CORRECTING = ["feddyn"]  # goes on beyond the mean
STREAMING = [*AVERAGING, *OPTIMIZERS, *CORRECTING]
ROBUST = {"trimmed-mean": 3, "krum": 5, "multi-krum": 5, "bulyan": 7, "median": 3}
"""Fewest sites among which one may be faulty."""
INITIAL: Weights = {
    "w": np.array([[0.5, -0.25]], np.float32),
    "b": np.array(1.0, np.float32),
}
VALUES = st.floats(-1000, 1000, width=32).filter(lambda v: abs(v) > 2**-29)
ANY_WEIGHTS = st.fixed_dictionaries(
    {
        "w": arrays(np.float32, (1, 2), elements=VALUES),
        "b": arrays(np.float32, (), elements=VALUES),
    }
)
ANY_UPDATES = st.lists(
    st.tuples(st.integers(1, 500), ANY_WEIGHTS), min_size=len(SITES), max_size=len(SITES)
).map(lambda drawn: [SiteUpdate(s, n, w) for s, (n, w) in zip(SITES, drawn, strict=True)])


def federation(mu: float = 0.25, n_faulty: int = 0) -> Federation:
    return Federation(
        seed=1,
        methods=("fedavg",),
        rounds=2,
        local_steps=1,
        held_out=(),
        min_sites=1,
        proximal_mu=mu,
        n_faulty=n_faulty,
        withheld_fraction=0.25,
        root_site="b",
        dynamic_alpha=0.125,
        server_optimizer=ServerOptimizer(learning_rate=0.1),
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


@pytest.mark.parametrize("method", sorted({*METHODS} - {*OPTIMIZERS, *CORRECTING}))
@settings(max_examples=30)
@given(sent=ANY_WEIGHTS, count=st.integers(1, 500))
def test_a_site_that_is_alone_gets_its_own_weights_back(
    method: str, sent: Weights, count: int
) -> None:
    built, state = started(method)
    state = built.aggregate(state, [SiteUpdate("b", count, sent)])
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


@pytest.mark.parametrize("method", STREAMING)
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
    if method in AVERAGING:
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


@pytest.mark.parametrize("method", AVERAGING)
def test_counts_weigh_the_sites(method: str) -> None:
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


def test_only_fedprox_and_feddyn_send_a_proximal_term() -> None:
    sent = {method: build_strategy(method, federation(mu=0.25)).proximal_mu for method in BUILDERS}
    assert sent == {**dict.fromkeys(BUILDERS, 0.0), "fedprox": 0.25, "feddyn": 0.125}
    assert [method for method in BUILDERS if strategy(method).dynamic] == ["feddyn"]


def test_only_partial_sharing_has_the_sites_withhold() -> None:
    sent = {method: strategy(method).withheld_fraction for method in BUILDERS}
    assert sent == {**dict.fromkeys(BUILDERS, 0.0), "partial-sharing": 0.25}


def test_local_only_keeps_the_sites_apart() -> None:
    built, state = started("local-only")
    state = built.aggregate(
        state, [SiteUpdate("a", 1, weights(1)), SiteUpdate("c", 1000, weights(3))]
    )
    assert built.weights_for(state, "a")["w"].tolist() == [[1, 1]]
    assert bits({"": built.weights_for(state, "b")}) == bits({"": INITIAL})
    assert built.weights_for(state, "c")["w"].tolist() == [[3, 3]]
    assert sorted(built.models(state)) == ["a", "b", "c"]


@pytest.mark.parametrize("method", METHODS)
@settings(max_examples=30)
@given(sent=ANY_WEIGHTS, cases=st.tuples(*[st.integers(1, 500)] * 3))
def test_sites_that_change_nothing_change_nothing(
    method: str, sent: Weights, cases: tuple[int, int, int]
) -> None:
    built = strategy(method)
    state = built.init(sent, SITES)
    updates = [SiteUpdate(site, n, sent) for site, n in zip(SITES, cases, strict=True)]
    assert bits(built.models(built.aggregate(state, updates))) == bits(built.models(state))


@pytest.mark.parametrize("method", METHODS)
@settings(max_examples=20)
@given(updates=ANY_UPDATES, factor=st.integers(2, 50))
def test_only_the_ratio_of_the_counts_matters(
    method: str, updates: list[SiteUpdate], factor: int
) -> None:
    built, state = started(method)
    larger = [replace(update, count=factor * update.count) for update in updates]
    one, other = (built.models(built.aggregate(state, some)) for some in (updates, larger))
    for owner, tensors in one.items():
        for name, tensor in tensors.items():
            np.testing.assert_allclose(other[owner][name], tensor, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("method", "n_sites"), sorted(ROBUST.items()))
@pytest.mark.parametrize("sent", [1e6, -1e6, 0.0, 1.5])
def test_a_faulty_site_cannot_move_a_weight_beyond_the_others(
    method: str, n_sites: int, sent: float
) -> None:
    built = build_strategy(method, federation(n_faulty=1))  # type: ignore[arg-type]
    rng = np.random.default_rng(n_sites)
    honest = [
        {
            "w": rng.normal(1, 0.1, (1, 2)).astype(np.float32),
            "b": np.array(rng.normal(-1, 0.1), np.float32),
        }
        for _ in range(n_sites - 1)
    ]
    everyone = [
        SiteUpdate(f"s{n}", 1, {"w": w["w"], "b": np.array(w["b"])}) for n, w in enumerate(honest)
    ]
    everyone.insert(1, SiteUpdate("faulty", 10_000, weights(sent)))
    found = built.models(built.aggregate(built.init(INITIAL, SITES), everyone))[""]
    for name, tensor in found.items():
        values = np.stack([one[name] for one in honest])
        assert (values.min(axis=0) <= tensor).all()
        assert (tensor <= values.max(axis=0)).all()


@pytest.mark.parametrize(
    ("method", "n_sites"), [("trimmed-mean", 5), ("krum", 7), ("multi-krum", 7), ("bulyan", 11)]
)
def test_after_one_of_two_faulty_updates_was_refused_the_other_moves_nothing(
    method: str, n_sites: int
) -> None:
    built = build_strategy(method, federation(n_faulty=2))  # type: ignore[arg-type]
    honest = [1 + n / 100 for n in range(n_sites - 2)]
    updates = [SiteUpdate(f"s{n}", 1, weights(value)) for n, value in enumerate(honest)]
    updates.append(SiteUpdate("faulty", 1, weights(1e6)))
    found = built.models(built.aggregate(built.init(INITIAL, SITES), updates))[""]
    assert honest[0] <= float(found["w"].min())
    assert float(found["w"].max()) <= honest[-1] + 1e-6


def trusted(**moved: tuple[float, float]) -> list[float]:
    """Return how a round with the root site b moves two weights, from how each site moved them."""
    built = strategy("trust")
    before = {"w": np.array([[8.0, -4.0]], np.float32), "b": np.array(2.0, np.float32)}
    updates = [
        SiteUpdate(site, 1, {**before, "w": before["w"] + np.array([move], np.float32)})
        for site, move in moved.items()
    ]
    found = built.models(built.aggregate(built.init(before, SITES), updates))[""]
    assert found["b"] == 2.0
    return list((found["w"] - before["w"])[0].tolist())


def test_a_reversed_update_has_no_trust() -> None:
    assert trusted(b=(3.0, 4.0), a=(-3.0, -4.0), c=(6.0, 8.0)) == pytest.approx([3, 4])
    assert trusted(b=(3.0, 4.0), a=(-1.0, 0.5)) == [3, 4]  # nobody is trusted: the root's own


def test_trust_is_the_cosine_and_every_update_has_the_root_s_norm() -> None:
    # cosines with (5, 0): 1 of (20, 0), 0.6 of (3, 4); shares 1/1.6 and 0.6/1.6
    # (5, 0) * 0.625 + (3, 4) * 0.375 = (4.25, 1.5); the root's own update is only the reference
    assert trusted(b=(5.0, 0.0), a=(20.0, 0.0), c=(3.0, 4.0)) == pytest.approx([4.25, 1.5])


@pytest.mark.parametrize("factor", [0.25, 1.0, 128.0, 2.0**14])
def test_the_size_of_an_update_gives_no_power(factor: float) -> None:
    found = trusted(b=(5.0, 0.0), a=(20.0, 0.0), c=(3.0 * factor, 4.0 * factor))
    assert found == pytest.approx([4.25, 1.5])


def test_any_number_of_sites_that_reverse_the_update_changes_nothing() -> None:
    bad = {f"evil-{n}": (-4.0 * n, -4.0) for n in range(1, 9)}
    assert trusted(b=(4.0, 4.0), a=(4.0, 4.0), **bad) == pytest.approx([4, 4])


def test_sites_that_agree_with_the_root_move_as_it_does() -> None:
    assert trusted(b=(3.0, -5.0), a=(3.0, -5.0), c=(3.0, -5.0)) == pytest.approx([3, -5])


def test_a_site_that_moves_nothing_has_no_say_and_a_root_that_moves_nothing_stops_all() -> None:
    assert trusted(b=(4.0, 0.0), a=(0.0, 0.0), c=(8.0, 0.0)) == pytest.approx([4, 0])
    assert trusted(b=(0.0, 0.0), a=(1.0, 1.0), c=(8.0, 0.0)) == [0, 0]


def test_without_the_root_a_round_moves_nothing_and_does_not_count() -> None:
    assert trusted(a=(1.0, 1.0), c=(8.0, 0.0)) == [0, 0]
    assert {method: strategy(method).required for method in BUILDERS} == {
        **dict.fromkeys(BUILDERS, ()),
        "trust": ("b",),
    }


# mean update d = 1, beta1 .9, beta2 .99, tau .001, eta .1; by hand from algorithm 2 of the paper
@pytest.mark.parametrize(
    ("method", "moved"),
    [
        ("fedavgm", 0.1),
        ("fedadagrad", 0.00999000499999875),
        ("fedadam", 0.0990050488825),
        ("fedyogi", 0.0990049998751),
    ],
)
def test_the_first_step_of_an_optimiser_is_the_paper_s(method: str, moved: float) -> None:
    built = strategy(method)
    zero = {"w": np.zeros((1, 2), np.float32), "b": np.zeros((), np.float32)}
    one = {name: tensor + 1 for name, tensor in zero.items()}
    state = built.aggregate(built.init(zero, SITES), [SiteUpdate("a", 1, one)])
    assert built.models(state)[""]["w"].tolist() == [pytest.approx([moved, moved], rel=1e-6)]


def test_feddyn_corrects_the_mean_by_how_far_all_sites_have_moved() -> None:
    built = strategy("feddyn")
    # two of three sites answer: mean 2, r = -(1 + 3) / 3, so 2 + 4/3
    state = built.aggregate(
        built.init(weights(0), SITES),
        [SiteUpdate("a", 90, weights(1)), SiteUpdate("b", 10, weights(3))],
    )
    assert float(built.models(state)[""]["w"][0, 0]) == pytest.approx(10 / 3)
    # all stand at 1: mean 1, r = -4/3 - (1 - 10/3) = 1, so 0
    state = built.aggregate(state, [SiteUpdate(site, 1, weights(1)) for site in SITES])
    assert built.models(state)[""]["w"].tolist() == [pytest.approx([0, 0], abs=1e-6)]


def test_feddyn_finds_the_optimum_of_all_sites_where_averaging_local_optima_does_not() -> None:
    # a / 2 * (w - c)^2: optimum (4 * 0 + 1 * -3 + 1 * 6) / 6 = 0.5; mean of the local ones 1
    losses = {"a": (4.0, 0.0), "b": (1.0, -3.0), "c": (1.0, 6.0)}
    built, alpha = strategy("feddyn"), 0.125
    state = built.init({"w": np.zeros(1, np.float32)}, SITES)
    drift = dict.fromkeys(SITES, 0.0)
    for _ in range(200):
        received = float(built.weights_for(state, "a")["w"][0])
        updates = []
        for site, (steep, centre) in losses.items():
            origin = received + drift[site]
            found = (steep * centre + alpha * origin) / (steep + alpha)
            drift[site] = origin - found
            updates.append(SiteUpdate(site, 1, {"w": np.array([found], np.float32)}))
        state = built.aggregate(state, updates)
    assert float(built.models(state)[""]["w"][0]) == pytest.approx(0.5, abs=1e-4)


def test_momentum_goes_on_when_the_sites_stand_still() -> None:
    built = strategy("fedavgm")
    state = built.aggregate(built.init(weights(0), SITES), [SiteUpdate("a", 1, weights(1))])
    still = [SiteUpdate("a", 1, built.weights_for(state, "a"))]
    found = built.models(built.aggregate(state, still))[""]["w"]
    assert found.tolist() == [pytest.approx([0.1 + 0.1 * 0.9] * 2)]


def test_inverse_distance_gives_the_closest_site_the_largest_share() -> None:
    built, state = started("ida")
    # mean 2, distances 2, 1, 3: shares by 1/2, 1, 1/3 of 11/6, so 3/11, 6/11, 2/11
    updates = [SiteUpdate(s, 5, weights(v)) for s, v in (("a", 0), ("b", 1), ("c", 5))]
    found = built.models(built.aggregate(state, updates))[""]["w"]
    assert found.tolist() == [pytest.approx([16 / 11, 16 / 11])]


def test_inverse_distance_with_equal_distances_is_fedavg() -> None:
    built, state = started("ida")
    updates = [SiteUpdate("a", 10, weights(0)), SiteUpdate("b", 30, weights(4))]
    found = built.models(built.aggregate(state, updates))[""]["w"]
    assert found.tolist() == [pytest.approx([3, 3])]


def test_dynamic_weights_are_fedavg_for_two_rounds_and_then_follow_the_losses() -> None:
    built, state = started("dwa")
    losses = [(1.0, 1.0), (0.5, 1.0), (0.1, 0.1)]
    found = []
    for slow, fast in losses:
        updates = [
            SiteUpdate("a", 10, weights(0), loss=slow),
            SiteUpdate("b", 30, weights(4), loss=fast),
        ]
        state = built.aggregate(state, updates)
        found.append(float(built.models(state)[""]["b"]))
    # third round: ratios 0.5 and 1, shares exp(.25) and exp(.5): b has 1 / (1 + exp(-.25))
    assert found == pytest.approx([-3, -3, -4 / (1 + np.exp(-0.25))])


def test_losses_that_no_loss_can_have_are_no_ratio() -> None:
    built, state = started("dwa")
    for _ in range(3):
        updates = [
            SiteUpdate("a", 10, weights(0), loss=-0.2),
            SiteUpdate("b", 30, weights(4), loss=-0.1),
        ]
        state = built.aggregate(state, updates)
    assert float(built.models(state)[""]["b"]) == pytest.approx(-3)


def test_sites_take_turns() -> None:
    def turns(method: str) -> list[str]:
        built = strategy(method)
        return ["".join(built.participants(round_, 7, SITES)) for round_ in range(1, 8)]

    assert turns("cyclic") == ["a", "b", "c", "a", "b", "c", "a"]
    assert turns("incremental") == ["a", "a", "a", "b", "b", "c", "c"]
    assert turns("fedavg") == ["abc"] * 7
