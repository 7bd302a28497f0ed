"""Loss values that were worked out by hand, for labels and for regions."""

import math

import pytest
import torch
from torch import Tensor

from client.training.loss import segmentation_loss, stage_loss, targets_of
from client.training.overlap import Overlap, soft_dice
from common.config import Output
from common.losses import (
    NNUNET_LOSS,
    CrossEntropy,
    Dice,
    Focal,
    FocalTversky,
    LossTerm,
    TopK,
    Tversky,
)
from common.task import Task, load_task

LN3 = math.log(3)  # sigmoid(ln 3) = 3/4, and so is the softmax of (0, ln 3)

TWO_CLASSES = Task(
    name="two",
    version=1,
    channels=("A",),
    labels={"background": 0, "one": 5},
    regions={"one": (5,)},
)
NESTED = Task(
    name="nested",
    version=1,
    channels=("A",),
    labels={"background": 0, "shell": 1, "core": 2},
    regions={"whole": (1, 2), "core": (2,)},
)


def on_grid(*values: float) -> Tensor:
    """Put four values on a grid of 2 x 2 x 1 voxels."""
    return torch.tensor(values, dtype=torch.float32).reshape(2, 2, 1)


def loss_of(logits: Tensor, labels: Tensor, task: Task, output: Output) -> float:
    return segmentation_loss([logits], labels, task, output, batch_dice=False).item()


def test_the_softmax_loss_of_four_voxels() -> None:
    # foreground probability  3/4 1/4      label  5 0
    #                         1/2 1/4             5 0
    logits = torch.stack([on_grid(0, 0, 0, 0), on_grid(LN3, -LN3, 0, -LN3)])[None]
    labels = on_grid(5, 0, 5, 0)[None].to(torch.uint8)
    # cross-entropy  -(ln 3/4 + ln 3/4 + ln 1/2 + ln 3/4) / 4 = 0.389048
    # Dice           2 (3/4 + 1/2) / (3/4 + 1/4 + 1/2 + 1/4 + 2) = 2.5 / 3.75 = 0.666667
    assert loss_of(logits, labels, TWO_CLASSES, "labels") == pytest.approx(-0.277619, abs=2e-6)


def test_the_sigmoid_loss_of_four_voxels_and_two_regions() -> None:
    # whole  1/2 3/4    core  1/2 1/2    label  0 1
    #        3/4 1/4          3/4 1/4           2 0
    logits = torch.stack([on_grid(0, LN3, LN3, -LN3), on_grid(0, 0, LN3, -LN3)])[None]
    labels = on_grid(0, 1, 2, 0)[None].to(torch.uint8)
    # entropy  (ln 2 - 3 ln 3/4 + 2 ln 2 - 2 ln 3/4) / 8                  = 0.439731
    # Dice     whole 2 * 1.5 / (2.25 + 2) = 12/17, core 1.5 / (2 + 1) = 1/2, mean 0.602941
    assert loss_of(logits, labels, NESTED, "regions") == pytest.approx(-0.163210, abs=3e-6)


def test_background_does_not_count_for_dice() -> None:
    logits = torch.stack([on_grid(50, 50, 50, -50), on_grid(-50, -50, -50, 50)])[None]
    target = torch.zeros(1, 2, 2, 1, dtype=torch.int64)
    target[0, 0, 0, 0] = 1
    # one voxel found, another one meant: Dice of the foreground 0, of the background 2/3
    entropy = 2 * 100 / 4  # two voxels are wrong by 100
    assert stage_loss(logits, target, NNUNET_LOSS, batch_dice=False).item() == pytest.approx(
        entropy
    )


@pytest.mark.parametrize("batch_dice", [False, True])
@pytest.mark.parametrize("output", ["labels", "regions"])
def test_a_perfect_prediction_costs_minus_one(output: Output, *, batch_dice: bool) -> None:
    task = load_task("brats-2021")
    labels = torch.tensor([[0, 1], [2, 4]], dtype=torch.uint8).reshape(1, 2, 2, 1)
    target = targets_of(labels, task, output)
    truth = torch.nn.functional.one_hot(target, 4).movedim(-1, 1) if output == "labels" else target
    logits = 100 * (2 * truth.float() - 1)
    loss = segmentation_loss([logits], labels, task, output, batch_dice=batch_dice)
    assert loss.item() == pytest.approx(-1, abs=1e-5)


def test_sample_dice_averages_the_ratios_and_batch_dice_takes_the_ratio_of_sums() -> None:
    probability = torch.tensor([[1.0, 0.0], [1.0, 1.0]]).reshape(2, 1, 1, 1, 2)
    truth = torch.tensor([[1.0, 1.0], [0.0, 0.0]]).reshape(2, 1, 1, 1, 2)
    # samples: 2 * 1 / (1 + 2) = 2/3 and 0 / (2 + 0) = 0; together 2 * 1 / (3 + 2)
    sample = soft_dice(Overlap(probability, truth, batch_dice=False)).mean().item()
    batch = soft_dice(Overlap(probability, truth, batch_dice=True)).mean().item()
    assert (sample, batch) == (pytest.approx(1 / 3, abs=1e-5), pytest.approx(0.4, abs=1e-5))


def test_nothing_found_where_nothing_is_has_a_dice_of_one() -> None:
    nothing = torch.zeros(1, 1, 2, 2, 2)
    assert soft_dice(Overlap(nothing, nothing, batch_dice=False)).item() == 1.0


def binary(truth: Tensor) -> Tensor:
    """Return logits of two classes that are sure of the truth."""
    sure = 50 * (2 * truth.float() - 1)
    return torch.stack([-sure, sure], dim=1)


def test_stages_are_summed_with_their_weights_and_the_coarsest_is_not_looked_at() -> None:
    labels = torch.full((1, 4, 4, 4), 5, dtype=torch.uint8)
    unsure = torch.zeros(1, 2, 4, 4, 4)
    # unsure: ln 2 - 2 (1/2) / (1/2 + 1) = 0.026480; sure: -1; 2/3 * 0.026480 - 1/3
    stages = [unsure, binary(torch.ones(1, 2, 2, 2)), torch.full((1, 2, 1, 1, 1), math.nan)]
    loss = segmentation_loss(
        stages, labels, TWO_CLASSES, "labels", batch_dice=False, supervision=(2 / 3, 1 / 3, 0.0)
    )
    assert loss.item() == pytest.approx(-0.315680, abs=2e-6)


def test_a_coarser_stage_is_compared_with_the_nearest_labels() -> None:
    labels = torch.zeros(1, 4, 4, 4, dtype=torch.uint8)
    labels[:, ::2, ::2, ::2] = 5  # what a stride of 2 keeps
    stages = [binary(labels > 0), binary(torch.ones(1, 2, 2, 2)), torch.zeros(1, 2, 1, 1, 1)]
    loss = segmentation_loss(
        stages, labels, TWO_CLASSES, "labels", batch_dice=False, supervision=(2 / 3, 1 / 3, 0.0)
    )
    assert loss.item() == pytest.approx(-1, abs=1e-5)


def test_labels_become_class_numbers_in_ascending_order() -> None:
    labels = torch.tensor([0, 1, 2, 4], dtype=torch.uint8).reshape(1, 1, 2, 2)
    target = targets_of(labels, load_task("brats-2021"), "labels")
    assert target.dtype == torch.int64
    assert target.tolist() == [[[[0, 1], [2, 3]]]]


def test_regions_become_overlapping_truth_values_in_the_order_of_the_task() -> None:
    labels = torch.tensor([0, 1, 2, 4], dtype=torch.uint8).reshape(1, 1, 1, 4)
    target = targets_of(labels, load_task("brats-2021"), "regions")
    assert target.dtype == torch.float32
    assert target.shape == (1, 3, 1, 1, 4)
    assert target.flatten(2).tolist() == [[[0, 1, 1, 1], [0, 1, 0, 1], [0, 0, 0, 1]]]


def test_half_precision_logits_give_a_float32_loss() -> None:
    labels = torch.full((1, 2, 2, 2), 5, dtype=torch.uint8)
    logits = torch.zeros(1, 2, 2, 2, 2, dtype=torch.bfloat16)
    loss = segmentation_loss([logits], labels, TWO_CLASSES, "labels", batch_dice=False)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(0.026480, abs=2e-6)


def test_the_loss_falls_against_its_gradient() -> None:
    torch.manual_seed(1)
    logits = torch.randn(2, 2, 4, 4, 4, requires_grad=True)
    labels = (torch.rand(2, 4, 4, 4) < 0.3).to(torch.uint8) * 5
    before = segmentation_loss([logits], labels, TWO_CLASSES, "labels", batch_dice=True)
    before.backward()  # type: ignore[no-untyped-call]
    assert logits.grad is not None
    moved = (logits - 10 * logits.grad).detach()
    after = segmentation_loss([moved], labels, TWO_CLASSES, "labels", batch_dice=True)
    assert after.item() < before.item()


# Every term, on the four voxels of the first test and on the regions of the second:
#   foreground probability  3/4 1/4      label  5 0
#                           1/2 1/4             5 0


FOUR_LOGITS = torch.stack([on_grid(0, 0, 0, 0), on_grid(LN3, -LN3, 0, -LN3)])[None]
FOUR_TARGET = torch.tensor([[[[1], [0]], [[1], [0]]]])


@pytest.mark.parametrize(
    ("term", "value"),
    [
        (CrossEntropy(), 0.389048),
        (CrossEntropy(weight=0.5), 0.194524),
        # weights 1 and 3: (2 * 0.287682 + 3 * (0.287682 + 0.693147)) / 8
        (CrossEntropy(class_weights=(1.0, 3.0)), 0.439731),
        (TopK(percent=25), 0.693147),  # the worst of four: ln 2
        (TopK(percent=50), 0.490415),  # (ln 2 - ln 3/4) / 2
        (TopK(percent=100), 0.389048),
        # 1 - p is 1/4, 1/4, 1/2, 1/4: (3 * 0.287682 / 16 + 0.693147 / 4) / 4
        (Focal(gamma=2), 0.056807),
        (Focal(gamma=0), 0.389048),
        (Dice(), -0.666667),
        # TP 5/4, FN 3/4, FP 1/2: 1.25 / (1.25 + 0.7 * 0.75 + 0.3 * 0.5)
        (Tversky(alpha=0.7, beta=0.3), -0.649351),
        (FocalTversky(alpha=0.7, beta=0.3, gamma=0.75), 0.455674),  # 0.350649 ** 0.75
        (FocalTversky(alpha=0.7, beta=0.3, gamma=1), 0.350649),
    ],
)
def test_the_value_of_a_term_on_four_voxels(term: LossTerm, value: float) -> None:
    loss = stage_loss(FOUR_LOGITS, FOUR_TARGET, (term,), batch_dice=False)
    assert loss.item() == pytest.approx(value, abs=3e-6)


@pytest.mark.parametrize(
    ("term", "value"),
    [
        (CrossEntropy(), 0.439731),
        (TopK(percent=100), 0.439731),
        (Focal(gamma=0), 0.439731),
        (Dice(), -0.602941),
        (Dice(class_weights=(3.0, 1.0)), -0.654412),  # (3 * 12/17 + 1/2) / 4
        (Tversky(alpha=0.5, beta=0.5), -0.602941),
    ],
)
def test_the_value_of_a_term_on_two_regions(term: LossTerm, value: float) -> None:
    logits = torch.stack([on_grid(0, LN3, LN3, -LN3), on_grid(0, 0, LN3, -LN3)])[None]
    labels = on_grid(0, 1, 2, 0)[None].to(torch.uint8)
    target = targets_of(labels, NESTED, "regions")
    loss = stage_loss(logits, target, (term,), batch_dice=False)
    assert loss.item() == pytest.approx(value, abs=3e-6)


def random_stage(output: Output, axes: int = 3) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(5)
    shape = (2, 3, *(3, 2, 2)[:axes])
    logits = torch.randn(shape, generator=generator, dtype=torch.float64)
    if output == "labels":
        return logits, torch.randint(0, 3, (2, *shape[2:]), generator=generator)
    return logits, (torch.rand(shape, generator=generator) < 0.4).double()


TERMS: tuple[LossTerm, ...] = (
    CrossEntropy(),
    CrossEntropy(class_weights=(0.5, 1.0, 2.0)),
    TopK(percent=30),
    Focal(gamma=2),
    Dice(),
    Dice(class_weights=(0.5, 1.0, 2.0)),
    Tversky(alpha=0.3, beta=0.7),
    FocalTversky(alpha=0.3, beta=0.7, gamma=0.75),
)


@pytest.mark.parametrize("batch_dice", [False, True])
@pytest.mark.parametrize("output", ["labels", "regions"])
@pytest.mark.parametrize("term", TERMS, ids=lambda term: str(term.term))
def test_gradients_are_those_of_the_values(
    term: LossTerm, output: Output, *, batch_dice: bool
) -> None:
    logits, target = random_stage(output)

    def value(at: Tensor) -> Tensor:
        return stage_loss(at, target, (term,), batch_dice=batch_dice)

    assert torch.autograd.gradcheck(value, (logits.requires_grad_(),))


EQUAL: list[tuple[LossTerm, LossTerm]] = [
    (TopK(percent=100), CrossEntropy()),
    (Focal(gamma=0), CrossEntropy()),
    (Tversky(alpha=0.5, beta=0.5), Dice()),
    (CrossEntropy(class_weights=(2.0, 2.0, 2.0)), CrossEntropy()),
    (Dice(class_weights=(2.0, 2.0, 2.0)), Dice()),
    (
        TopK(percent=100, class_weights=(0.5, 1.0, 2.0)),
        CrossEntropy(class_weights=(0.5, 1.0, 2.0)),
    ),
]


@pytest.mark.parametrize("axes", [2, 3])
@pytest.mark.parametrize("output", ["labels", "regions"])
@pytest.mark.parametrize("pair", EQUAL, ids=lambda pair: f"{pair[0].term}-{pair[1].term}")
def test_a_term_at_the_end_of_its_range_is_the_other_with_its_gradient(
    pair: tuple[LossTerm, LossTerm], output: Output, axes: int
) -> None:
    found = []
    for term in pair:
        logits, target = random_stage(output, axes)
        loss = stage_loss(logits.requires_grad_(), target, (term,), batch_dice=False)
        found.append((loss.item(), torch.autograd.grad(loss, logits)[0]))
    (one, gradient), (other, same) = found
    assert one == pytest.approx(other, abs=1e-12)
    assert torch.allclose(gradient, same, atol=1e-12)


def test_terms_are_summed_with_their_weights() -> None:
    terms = (CrossEntropy(weight=2.0), Dice(weight=0.5))
    loss = stage_loss(FOUR_LOGITS, FOUR_TARGET, terms, batch_dice=False)
    assert loss.item() == pytest.approx(2 * 0.389048 - 0.5 * 0.666667, abs=3e-6)


def test_a_class_without_weight_does_not_count() -> None:
    logits, target = random_stage("labels")
    only_first = Dice(class_weights=(1.0, 1.0, 0.0))
    pair = torch.stack([logits[:, 0], logits[:, 1], logits[:, 2]], dim=1)
    changed = torch.where(target == 2, 0, target)  # what is class 2 matters to its own Dice only
    loss = stage_loss(pair, target, (only_first,), batch_dice=False)
    same = stage_loss(pair, changed, (only_first,), batch_dice=False)
    assert loss.item() == same.item()


def test_every_term_is_supervised_on_every_stage() -> None:
    labels = torch.zeros(1, 4, 4, 4, dtype=torch.uint8)
    labels[:, ::2, ::2, ::2] = 5
    unsure = [torch.zeros(1, 2, 4, 4, 4), torch.zeros(1, 2, 2, 2, 2)]
    loss = segmentation_loss(
        unsure,
        labels,
        TWO_CLASSES,
        "labels",
        batch_dice=False,
        supervision=(2 / 3, 1 / 3),
        terms=(TopK(percent=10),),
    )
    assert loss.item() == pytest.approx(0.693147, abs=1e-6)  # ln 2 on both stages
