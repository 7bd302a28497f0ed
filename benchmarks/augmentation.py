"""Seconds to augment two patches of 4 x 128^3: ours and the ready-made libraries.

Usage: python benchmarks/augmentation.py [--batches 48] [--peer-python PEER/bin/python]

The numbers are those of nnunetv2's default trainer, as near as each library has them: MONAI and
TorchIO take labels by the nearest voxel, MONAI blurs all channels of a sample at once, TorchIO has
no contrast and blurs all channels alike. MONAI is a dependency; TorchIO is measured if it can be
imported; batchgeneratorsv2 is measured in the peer's environment (see `loading.py`), from the
larger patch that nnunetv2 gives it. One thread; processor seconds per batch, mean over the batches.
"""

import argparse
import importlib.util
import math
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import monai.transforms as mt
import numpy as np
import torch
from torch import Tensor

from client.batches.augmentation import Frame, draw, matrix_of, moves
from client.batches.spatial import positions, reach, resample, resample_labels
from client.batches.transforms import change_intensities, normal_noise
from common.augmentation import PRESETS

PEER_SCRIPT = Path(__file__).with_name("augmentation_batchgenerators.py")
PRESET = PRESETS["nnunet-v2"]
SIZE = (128, 128, 128)
WHOLE = (192, 192, 192)  # what a patch may look at
BOTH = ("image", "label")

Sample = tuple[Tensor, Tensor]


def samples() -> tuple[Sample, Sample]:
    """Return what patches look at: noise, and a ball of three labels."""
    generator = torch.Generator().manual_seed(0)
    axes = torch.meshgrid(*[torch.linspace(-1, 1, n) for n in WHOLE], indexing="ij")
    radius = sum(axis**2 for axis in axes)
    labels = sum((radius < limit).to(torch.uint8) for limit in (0.15, 0.08, 0.03))
    one, other = (torch.randn((4, *WHOLE), generator=generator) for _ in range(2))
    return (one, labels), (other, labels)


def ours(step: int, batch: tuple[Sample, Sample]) -> None:
    frame, cpu = Frame(2, 4, SIZE), torch.device("cpu")
    drawn = draw(PRESET, frame, np.random.default_rng(step))
    noise = normal_noise(drawn.noise_seed, cpu)
    for sample, (image, labels) in enumerate(batch):
        cut = tuple(slice(32, 160) for _ in SIZE)
        seen, marked = image[(slice(None), *cut)].clone(), labels[cut]
        if moves(drawn, sample):
            matrix = matrix_of(drawn, sample)
            box = [(max(-32, a), min(160, b)) for a, b in reach(SIZE, matrix, (0, 0, 0))]
            near = tuple(slice(a + 32, b + 32) for a, b in box)
            places = positions(SIZE, matrix, [a for a, _ in box], (), cpu)
            seen = resample(image[(slice(None), *near)], places)
            marked = resample_labels(labels[near][None], places)[0]
        change_intensities(seen, drawn, sample, PRESET, noise, (True,) * 4)
        flipped = np.flatnonzero(drawn.mirrored[sample]).tolist()
        seen.flip([axis + 1 for axis in flipped])
        marked.flip(flipped)


def monai() -> Callable[[int, tuple[Sample, Sample]], None]:
    image = ("image",)
    chain = mt.Compose(
        [
            mt.RandAffined(
                BOTH,
                spatial_size=SIZE,
                prob=0.36,
                rotate_range=(math.pi / 6,) * 3,
                scale_range=((-0.3, 0.4),) * 3,
                mode=("bilinear", "nearest"),
                padding_mode="zeros",
            ),
            mt.RandGaussianNoised(image, prob=0.1, std=0.1),
            mt.RandGaussianSmoothd(image, (0.5, 1), (0.5, 1), (0.5, 1), prob=0.1),
            mt.RandScaleIntensityd(image, factors=0.25, prob=0.15, channel_wise=True),
            mt.RandScaleIntensityFixedMeand(image, factors=0.25, preserve_range=True, prob=0.15),
            mt.RandSimulateLowResolutiond(image, prob=0.125, zoom_range=(0.5, 1)),
            mt.RandAdjustContrastd(
                image, prob=0.1, gamma=(0.7, 1.5), invert_image=True, retain_stats=True
            ),
            mt.RandAdjustContrastd(image, prob=0.3, gamma=(0.7, 1.5), retain_stats=True),
            *(mt.RandFlipd(BOTH, prob=0.5, spatial_axis=axis) for axis in range(3)),
        ]
    ).set_random_state(0)

    def augment(_: int, batch: tuple[Sample, Sample]) -> None:
        for one, labels in batch:
            chain({"image": one, "label": labels[None]})

    return augment


def torchio() -> Callable[[int, tuple[Sample, Sample]], None]:
    import torchio as tio

    chain = tio.Compose(
        [
            tio.RandomAffine(scales=(0.7, 1.4), degrees=30, isotropic=True, p=0.36),
            tio.CropOrPad(SIZE),
            tio.RandomNoise(std=(0, 0.1), p=0.1),
            tio.RandomBlur(std=(0.5, 1), p=0.1),
            tio.RandomAnisotropy(downsampling=(1, 2), p=0.125),
            tio.RandomGamma(log_gamma=(-0.36, 0.41), p=0.37),
            tio.RandomFlip(axes=(0, 1, 2), flip_probability=0.5),
        ]
    )

    def augment(_: int, batch: tuple[Sample, Sample]) -> None:
        for one, labels in batch:
            label = tio.LabelMap(tensor=labels[None])
            chain(tio.Subject(image=tio.ScalarImage(tensor=one), label=label))

    return augment


def seconds(augment: Callable[[int, tuple[Sample, Sample]], None], n_batches: int) -> float:
    batch = samples()
    augment(10**6, batch)
    began = time.process_time()
    for step in range(n_batches):
        augment(step, batch)
    return (time.process_time() - began) / n_batches


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batches", type=int, default=48)
    parser.add_argument("--peer-python", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    print(f"ours {seconds(ours, given.batches):.3f} s")
    print(f"MONAI {seconds(monai(), given.batches):.3f} s")
    if importlib.util.find_spec("torchio"):
        print(f"TorchIO {seconds(torchio(), given.batches):.3f} s")
    if given.peer_python:
        done = subprocess.run(
            [str(given.peer_python), str(PEER_SCRIPT), str(given.batches)],
            check=True,
            stdout=subprocess.PIPE,
        )
        print(f"batchgeneratorsv2 {float(done.stdout):.3f} s")


if __name__ == "__main__":
    main()
