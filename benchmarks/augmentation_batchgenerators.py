"""Run by nnunetv2's own interpreter, for `augmentation.py`: prints processor seconds per batch."""

import sys
import time

import numpy as np
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

PATCH_SIZE = (128, 128, 128)
INITIAL = (205, 205, 205)  # what nnunetv2 cuts out for a patch of this size
WARM_UP = 12  # batches: the blur tries out its two ways


def sample(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    image = torch.randn((4, *INITIAL), generator=torch.Generator().manual_seed(seed))
    axes = torch.meshgrid(*[torch.linspace(-1, 1, n) for n in INITIAL], indexing="ij")
    radius = sum(axis**2 for axis in axes)
    labels = sum((radius < limit).to(torch.int16) for limit in (0.15, 0.08, 0.03))
    return image, labels[None]


def main() -> None:
    torch.set_num_threads(1)
    np.random.seed(0)  # noqa: NPY002 - the library draws from the global generator
    torch.manual_seed(0)
    transforms = nnUNetTrainer.get_training_transforms(
        PATCH_SIZE,
        (-np.pi / 6, np.pi / 6),
        None,
        (0, 1, 2),
        do_dummy_2d_data_aug=False,
        use_mask_for_norm=[True] * 4,
    )
    batch, n_batches, spent = (sample(0), sample(1)), int(sys.argv[1]), 0.0
    for step in range(n_batches + WARM_UP):
        for image, labels in batch:
            given = {"image": image.clone(), "segmentation": labels.clone()}  # changed in place
            began = time.process_time()
            transforms(**given)
            spent += time.process_time() - began if step >= WARM_UP else 0
    print(spent / n_batches)


if __name__ == "__main__":
    main()
