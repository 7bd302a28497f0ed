"""Run by nnunetv2's own interpreter, for `loading.py`: prints seconds per batch.

Usage: loading_nnunet.py CASES BATCHES WORKERS PATCH...

CASES holds <n>.npy (channel, z, y, x) and <n>_labels.npy. The cases are stored by nnunetv2's own
code, then read by its loader with the transforms of its default trainer, in as many processes as
WORKERS says. The labels of coarser stages are not made, because ours makes them in the loss.
"""

import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from batchgenerators.dataloading.nondet_multi_threaded_augmenter import (
    NonDetMultiThreadedAugmenter,
)
from nnunetv2.training.data_augmentation.compute_initial_patch_size import get_patch_size
from nnunetv2.training.dataloading.data_loader import nnUNetDataLoader
from nnunetv2.training.dataloading.nnunet_dataset import comp_blosc2_params, nnUNetDatasetBlosc2
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

BATCH_SIZE = 2
ROTATION = (-np.pi / 6, np.pi / 6)
WARM_UP = 4  # batches: processes start, and the blur tries out its two ways


def store(cases: Path, folder: Path, patch_size: tuple[int, ...]) -> None:
    folder.mkdir()
    for labels_file in sorted(cases.glob("*_labels.npy")):
        name = labels_file.stem.removesuffix("_labels")
        image, labels = np.load(cases / f"{name}.npy"), np.load(labels_file)[None].astype(np.int8)
        blocks, chunks = comp_blosc2_params(image.shape, patch_size, 4)
        blocks_seg, chunks_seg = comp_blosc2_params(labels.shape, patch_size, 1)
        rng = np.random.default_rng(1)
        locations = {}
        for value in (1, 2, 3):
            voxels = np.argwhere(labels == value)
            locations[value] = rng.permutation(voxels)[:10_000]
        nnUNetDatasetBlosc2.save_case(
            image,
            labels,
            {"class_locations": locations},
            str(folder / name),
            chunks=chunks,
            blocks=blocks,
            chunks_seg=chunks_seg,
            blocks_seg=blocks_seg,
        )


def loader(folder: Path, patch_size: tuple[int, ...], channels: int) -> nnUNetDataLoader:
    transforms = nnUNetTrainer.get_training_transforms(
        patch_size,
        ROTATION,
        None,
        (0, 1, 2),
        do_dummy_2d_data_aug=False,
        use_mask_for_norm=[True] * channels,
    )
    return nnUNetDataLoader(
        nnUNetDatasetBlosc2(str(folder)),
        BATCH_SIZE,
        get_patch_size(patch_size, ROTATION, ROTATION, ROTATION, (0.85, 1.25)),
        patch_size,
        SimpleNamespace(all_labels=[0, 1, 2, 3], has_ignore_label=False),
        oversample_foreground_percent=0.33,
        transforms=transforms,
    )


def main() -> None:
    cases, batches, workers = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    patch_size = tuple(int(size) for size in sys.argv[4:])
    torch.set_num_threads(1)  # as in nnunetv2's workers
    if not (cases / "nnunet").exists():  # by an earlier run
        store(cases, cases / "nnunet", patch_size)
    channels = np.load(next(cases.glob("*_labels.npy")).with_name("0.npy"), mmap_mode="r").shape[0]
    source = loader(cases / "nnunet", patch_size, channels)
    augmenter = NonDetMultiThreadedAugmenter(source, None, workers, 6, None, wait_time=0.002)
    for _ in range(6 + WARM_UP):  # the first ones were prepared before the clock starts
        next(augmenter)
    began = time.perf_counter()
    for _ in range(batches):
        next(augmenter)
    print((time.perf_counter() - began) / batches)
    augmenter._finish()  # noqa: SLF001 - the only way to end its processes


if __name__ == "__main__":
    main()
