"""The weighted mean over overlapping tiles, of as many planes as a tile is deep."""

from collections.abc import Iterator
from typing import Any, Final, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from client.device import Device
from client.prediction.tiles import Slices3

SLAB_BYTES: Final = 2**23  # of the planes that leave together


class Allocate(Protocol):
    """Gives an array of zeros, in memory or on disk; as `numpy.zeros`."""

    def __call__(self, shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
        """Return the array."""


class TilesMean:
    """A sum of weighted tiles, and of their weights, over planes that move with the layers.

    Accumulated in float32, where the network is; whatever the size of batches and slabs, a voxel
    meets the same additions in the same order.
    """

    def __init__(
        self,
        weight: NDArray[np.float32],
        shape: tuple[int, int, int],
        device: Device,
        allocate: Allocate,
    ) -> None:
        """Take the weight of a tile's voxels, and the voxels that are held along (z, y, x)."""
        self.weight = torch.from_numpy(weight).to(device.device)
        self.shape = shape
        self.start = 0
        self._allocate = allocate
        self._total: Tensor | None = None
        self._norm = self._zeros(shape)

    def add(self, tile: Slices3, scores: Tensor) -> None:
        """Add a tile's scores, axes (output, z, y, x), at its place in the image."""
        depth, height, width = tile
        place = (slice(depth.start - self.start, depth.stop - self.start), height, width)
        with torch.inference_mode():
            if self._total is None:
                self._total = self._zeros((len(scores), *self.shape))
            self._total[(slice(None), *place)].addcmul_(scores, self.weight)
            self._norm[place].add_(self.weight)

    def leave(self, following: int, inside: Slices3) -> Iterator[NDArray[np.float32]]:
        """Yield the planes before the one at which the next layer starts, and move on to it.

        Args:
            following: first plane of the next layer; the end of the image after the last.
            inside: which part of the planes is the image, not its padding.

        Yields:
            Means, axes (output, z, y, x), a few planes at a time.
        """
        if self._total is None:
            raise ValueError("leave: expected at least one tile before")
        depth, height, width = inside
        first = max(depth.start - self.start, 0)
        last = min(depth.stop, following) - self.start
        plane_bytes = 4 * self._total[:, 0].numel()
        step = max(1, SLAB_BYTES // plane_bytes)
        for low in range(first, last, step):
            with torch.inference_mode():
                planes = slice(low, min(low + step, last))
                slab = self._total[:, planes, height, width] / self._norm[planes, height, width]
            yield slab.cpu().numpy()
        self._move(following - self.start)

    @torch.inference_mode()
    def _move(self, n_planes: int) -> None:
        for held in (self._norm, *(self._total if self._total is not None else ())):
            for plane in range(len(held) - n_planes):
                held[plane] = held[plane + n_planes]
            held[max(0, len(held) - n_planes) :] = 0
        self.start += n_planes

    def _zeros(self, shape: tuple[int, ...]) -> Tensor:
        if self.weight.device.type == "cpu":
            return torch.from_numpy(self._allocate(shape, np.float32))
        return torch.zeros(shape, device=self.weight.device)
