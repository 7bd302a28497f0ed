"""What a run minimises: a weighted sum of terms, each by its published name.

Sources: Dice and cross-entropy as nnU-Net adds them (Isensee et al. 2021); top-k (Wu et al. 2016);
focal (Lin et al. 2017); Tversky (Salehi et al. 2017); focal Tversky (Abraham and Khan 2019, whose
1 / gamma is `gamma` here). The arithmetic is `client.training.loss`.
"""

from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Le, MinLen
from pydantic import Discriminator, Tag

from common.codec import record

Weight = Annotated[float, Gt(0)]
ClassWeights = Annotated[tuple[Annotated[float, Ge(0)], ...], MinLen(1)]
"""One per output of the network: background, then labels in ascending order; or one per region.
A mean over outputs becomes the weighted mean, so weights that are all equal change nothing; the
overlap terms leave the background out, and its weight with it."""


@record
class Dice:
    """One minus soft Dice, less the constant: -Dice, smoothed by 1e-5."""

    term: Literal["dice"] = "dice"
    weight: Weight = 1.0
    class_weights: ClassWeights | None = None


@record
class CrossEntropy:
    """Mean cross-entropy over voxels; binary and over regions too, where regions are the output."""

    term: Literal["cross-entropy"] = "cross-entropy"
    weight: Weight = 1.0
    class_weights: ClassWeights | None = None


@record
class TopK:
    """Mean cross-entropy over the worst voxels."""

    term: Literal["top-k"] = "top-k"
    percent: Annotated[float, Gt(0), Le(100)]
    """Of all voxels of the batch; 10 is nnU-Net's; 100 is cross-entropy."""
    weight: Weight = 1.0
    class_weights: ClassWeights | None = None


@record
class Focal:
    """Mean of -(1 - p)^gamma log p, with p the probability of the truth."""

    term: Literal["focal"] = "focal"
    gamma: Annotated[float, Ge(0)]
    """2 in the paper; 0 is cross-entropy."""
    weight: Weight = 1.0
    class_weights: ClassWeights | None = None


@record
class Tversky:
    """-TP / (TP + alpha FN + beta FP); alpha = beta = 0.5 is Dice."""

    term: Literal["tversky"] = "tversky"
    alpha: Annotated[float, Ge(0)]
    """What a missed voxel costs."""
    beta: Annotated[float, Ge(0)]
    """What a voxel found in vain costs."""
    weight: Weight = 1.0
    class_weights: ClassWeights | None = None


@record
class FocalTversky:
    """(1 - Tversky index)^gamma."""

    term: Literal["focal-tversky"] = "focal-tversky"
    alpha: Annotated[float, Ge(0)]
    beta: Annotated[float, Ge(0)]
    gamma: Weight
    """0.75 in the paper (its 4/3, inverted)."""
    weight: Weight = 1.0
    class_weights: ClassWeights | None = None


def _term(value: Any) -> str | None:
    """Return the name of the term that a table or a record gives."""
    found = value.get("term") if isinstance(value, dict) else getattr(value, "term", None)
    return found if isinstance(found, str) else None


LossTerm = Annotated[
    Annotated[Dice, Tag("dice")]
    | Annotated[CrossEntropy, Tag("cross-entropy")]
    | Annotated[TopK, Tag("top-k")]
    | Annotated[Focal, Tag("focal")]
    | Annotated[Tversky, Tag("tversky")]
    | Annotated[FocalTversky, Tag("focal-tversky")],
    Discriminator(_term),
]
Loss = Annotated[tuple[LossTerm, ...], MinLen(1)]

NNUNET_LOSS: Loss = (CrossEntropy(), Dice())


def lower_bound(loss: Loss) -> float:
    """Return what a loss can never fall below: minus the weights of its terms of -Dice."""
    return -sum(term.weight for term in loss if isinstance(term, Dice | Tversky))
