"""Size of a cached case and time to read a random patch of it, for several ways to store it.

Usage: python benchmarks/cache.py [CACHE] [--patches 24] [--peer-python PEER/bin/python]

CACHE is a folder that `consilium preprocess` filled; its largest case is taken. By default a
synthetic one is drawn: 4 channels of 140x170x140 voxels, whole-numbered noise on smooth shapes
inside an ellipsoid, zeros around it, standardised. Every way stores the same array, and all read
the same patches of 128^3 voxels (or what there is of them) in turn, so that a busy machine slows
all of them alike; one thread, files in the page cache, median over the patches.

With the peer's Python (an environment with nnunetv2 2.8.1, see benchmarks/fingerprint.py), its own
function chooses chunks and blocks for its row, which has its codec and level (LZ4HC, 5), the better
of its two filters, and a memory-mapped file, as its data set class has them.
"""

import argparse
import json
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import blosc2
import numpy as np
from scipy import ndimage

from client.caching.cache import compressed, open_entry
from client.caching.entry_record import read_meta
from common.axes import Image

PATCH = 128
EVERYTHING = (slice(None), slice(None), slice(None))
PEER = """
import json, sys
from nnunetv2.training.dataloading.nnunet_dataset import comp_blosc2_params
shape, patch = json.loads(sys.argv[1])
print(json.dumps(comp_blosc2_params(shape, patch, 4)))
"""


@dataclass(frozen=True)
class Way:
    """One way to store an array."""

    name: str
    write: Callable[[Image, Path], None]
    open: Callable[[Path], Any]


@dataclass(frozen=True)
class Stored:
    """An array as one way stored it."""

    fraction: float
    written_s: float
    array: Any


def synthetic() -> Image:
    rng = np.random.default_rng(0)
    axes = np.ogrid[-1:1:140j, -1:1:170j, -1:1:140j]
    inside = sum(axis**2 for axis in axes) < 1
    channels = []
    for index in range(4):
        smooth = 6000 * ndimage.gaussian_filter(rng.standard_normal(inside.shape), 4)
        noise = 30 * rng.standard_normal(inside.shape)
        channels.append(np.where(inside, np.rint(400 + 200 * index + smooth + noise), 0))
    image = np.stack(channels)
    mean, std = image.mean((1, 2, 3), keepdims=True), image.std((1, 2, 3), keepdims=True)
    return ((image - mean) / std).astype(np.float32)


def largest_case(cache: Path) -> Image:
    folders = [path.parent for path in cache.glob("*/*/meta.json")]
    largest = max(folders, key=lambda folder: np.prod(read_meta(folder).shape))
    return open_entry(largest).image(EVERYTHING)


def ways(image: Image, peer_python: Path | None) -> Iterator[Way]:
    yield Way("ours, cubes: LZ4 9", lambda a, path: save(path, compressed(a, by_slice=False)), read)
    yield Way("ours, slices: LZ4 9", lambda a, path: save(path, compressed(a, by_slice=True)), read)
    cubes = [[1, *(min(side, n) for n in image.shape[1:])] for side in (64, 16)]
    yield blosc("LZ4 5", cubes, blosc2.Codec.LZ4, 5)
    yield blosc("LZ4HC 5", cubes, blosc2.Codec.LZ4HC, 5)
    yield blosc("Zstandard 1", cubes, blosc2.Codec.ZSTD, 1)
    yield blosc("Zstandard 5", cubes, blosc2.Codec.ZSTD, 5)
    large_blocks = [cubes[0], [1, *(min(32, n) for n in image.shape[1:])]]
    yield blosc("LZ4 9, blocks of 32^3", large_blocks, blosc2.Codec.LZ4, 9)
    yield Way("uncompressed, mapped", lambda a, path: np.save(path, a), mapped)
    if peer_python:
        blocks, chunks = peer_sizes(image, peer_python)
        for name in ("NOFILTER", "SHUFFLE"):
            way = blosc(f"nnunetv2, {name}", [chunks, blocks], blosc2.Codec.LZ4HC, 5, name)
            yield Way(way.name, way.write, read_mapped)


def peer_sizes(image: Image, python: Path) -> Any:
    sizes = json.dumps([image.shape, [PATCH] * 3])
    command = [str(python), "-c", PEER, sizes]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)


def blosc(
    name: str, sizes: list[list[int]], codec: Any, level: int, filtered: str = "SHUFFLE"
) -> Way:
    def write(image: Image, path: Path) -> None:
        settings = blosc2.CParams(
            codec=codec, clevel=level, filters=[blosc2.Filter[filtered]], nthreads=1
        )
        packed = blosc2.asarray(image, chunks=sizes[0], blocks=sizes[1], cparams=settings)
        save(path, packed.to_cframe())

    return Way(name, write, read)


def save(path: Path, content: bytes) -> None:
    path.write_bytes(content)


def read(path: Path) -> Any:
    return blosc2.open(str(path), mode="r", dparams={"nthreads": 1})


def read_mapped(path: Path) -> Any:
    return blosc2.open(str(path), mode="r", mmap_mode="r", dparams={"nthreads": 1})


def mapped(path: Path) -> Any:
    return np.load(path, mmap_mode="r")


def patches(image: Image, size: tuple[int, int, int], count: int) -> Iterator[tuple[slice, ...]]:
    rng = np.random.default_rng(1)
    for _ in range(count):
        room = np.maximum(np.subtract(image.shape[1:], size), 0)
        starts = rng.integers(0, room, endpoint=True)
        yield (slice(None), *(slice(a, a + n) for a, n in zip(starts, size, strict=True)))


def medians(arrays: list[Any], places: Iterator[tuple[slice, ...]]) -> list[float]:
    """Return the median seconds for reading a place, by array."""
    taken: list[list[float]] = [[] for _ in arrays]
    for place in places:
        for array, seconds in zip(arrays, taken, strict=True):
            began = time.perf_counter()
            np.array(array[place])
            seconds.append(time.perf_counter() - began)
    return [statistics.median(seconds) for seconds in taken]


def stored(image: Image, way: Way, path: Path) -> Stored:
    began = time.perf_counter()
    way.write(image, path)
    written_s = time.perf_counter() - began
    return Stored(path.stat().st_size / image.nbytes, written_s, way.open(path))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cache", type=Path, nargs="?")
    parser.add_argument("--patches", type=int, default=24)
    parser.add_argument("--peer-python", type=Path)
    given = parser.parse_args()
    image = largest_case(given.cache) if given.cache else synthetic()
    print(f"{'x'.join(map(str, image.shape))}, {image.nbytes / 2**20:.0f} MiB as float32")
    chosen = list(ways(image, given.peer_python))
    with tempfile.TemporaryDirectory() as folder:
        kept = [stored(image, way, Path(folder) / f"{n}.npy") for n, way in enumerate(chosen)]
        arrays = [one.array for one in kept]
        cubes = medians(arrays, patches(image, (PATCH,) * 3, given.patches))
        slices = medians(arrays, patches(image, (1, PATCH, PATCH), 5 * given.patches))
    for way, one, cube_s, slice_s in zip(chosen, kept, cubes, slices, strict=True):
        size_ratio = one.fraction / kept[0].fraction
        print(
            f"{way.name:22} size {one.fraction:.3f} ({size_ratio:.2f} of ours), "
            f"written in {one.written_s:.2f} s, patch in {1000 * cube_s:.1f} ms "
            f"({cube_s / cubes[0]:.2f} of ours), slice in {1000 * slice_s:.2f} ms"
        )


if __name__ == "__main__":
    main()
