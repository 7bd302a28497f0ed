"""What a builder of networks is given, and how one is described in the table."""

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil, prod

from torch import nn

from common.axes import times
from common.config import Norm
from common.errors import ConfigError
from common.planning.plan import AnyConfiguration


@dataclass(frozen=True)
class Blueprint:
    """What task, plan and run ask of a network."""

    n_inputs: int
    n_outputs: int
    plan: AnyConfiguration
    norm: Norm
    deep_supervision: bool

    @property
    def n_axes(self) -> int:
        """2 for slices, 3 for volumes."""
        return len(self.plan.patch_size)

    @property
    def base_features(self) -> int:
        """Channels of the first stage."""
        return self.plan.features_per_stage[0]


@dataclass(frozen=True)
class Architecture:
    """A row of the table: the builder, and what it can take."""

    build: Callable[[Blueprint], nn.Module]
    """Returns a module whose forward pass turns an image (batch, channel, [z,] y, x) into a list
    of logits, finest first: one of every supervised stage in training, else the finest only."""
    divisor: int = 1
    """Every edge of a patch must be a multiple; 1 where the plan's own strides decide."""
    n_axes: tuple[int, ...] = (2, 3)
    deep_supervision: bool = False
    """Whether coarser stages can have logits of their own."""


def defects(name: str, architecture: Architecture, wanted: Blueprint) -> list[str]:
    """Return why an architecture cannot be built as a run asks for it; nothing if it can."""
    found = []
    if wanted.n_axes not in architecture.n_axes:
        found.append(
            f"model.architecture: {name} segments slices; expected the configuration 2d, "
            f"found one of {wanted.n_axes} axes"
        )
    if wanted.deep_supervision and not architecture.deep_supervision:
        found.append(
            f"model.deep_supervision: {name} has logits at full resolution only; "
            "expected false, found true"
        )
    if not _fits(wanted.plan.patch_size, architecture.divisor):
        found.append(
            f"model.architecture: {name} takes patches whose edges are multiples of "
            f"{architecture.divisor}, at least one of them larger than that; found "
            f"{times(wanted.plan.patch_size)}, next larger is "
            f"{times(next_patch(wanted.plan.patch_size, architecture.divisor))}: "
            "change patch_size in an edited plan, or the architecture"
        )
    return found


def next_patch(patch_size: tuple[int, ...], divisor: int) -> tuple[int, ...]:
    """Return the smallest patch that an architecture takes and that holds the given one."""
    edges = [divisor * ceil(edge / divisor) for edge in patch_size]
    if not _fits(tuple(edges), divisor):
        edges[-1] += divisor
    return tuple(edges)


def demand_base_features(name: str, wanted: Blueprint, allowed: tuple[int, ...]) -> None:
    """Demand one of the widths that an architecture can be built with.

    Raises:
        ConfigError: for another one.
    """
    if wanted.base_features not in allowed:
        raise ConfigError(
            f"model.base_features: {name} expects {' or '.join(map(str, allowed))}, "
            f"found {wanted.base_features}"
        )


def _fits(patch_size: tuple[int, ...], divisor: int) -> bool:
    """Whether all edges divide, and the coarsest stage has more than one voxel to normalise."""
    divides = all(edge % divisor == 0 for edge in patch_size)
    return divides and (divisor == 1 or prod(patch_size) > divisor ** len(patch_size))
