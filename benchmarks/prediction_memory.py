"""Peak memory of predicting a CT of 512x512x1000 voxels, beside that of its image.

Usage: python benchmarks/prediction_memory.py [--shape 1000 512 512] [--models 2]

One and several models, three outputs, tiles of 128^3, the budget for probabilities 1 GB. The
network is narrow, so that the time is bearable; what is measured is everything around it: tiles,
the mean over models, the way back to the image's grid, labels. Every run is a process of its own.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from client.device import choose_device
from client.prediction.predict import Window, predicted_slabs
from client.prediction.segment import Wanted, decided, mean_of_models
from client.prediction.way_back import restored_slabs
from client.prediction.workspace import Workspace
from client.preparation.preprocess import Geometry
from common.network import initial_weights, load_weights
from common.networks.unet import UNet
from common.planning.plan import Configuration
from common.task import load_task

BUDGET_BYTES = 10**9
TASK = load_task("kits-2019")
PLAN = Configuration(
    spacing_mm=(1.0, 1.0, 1.0),
    median_shape=(1000.0, 512.0, 512.0),
    patch_size=(128, 128, 128),
    batch_size=2,
    strides=((4, 4, 4),) * 2,
    kernel_sizes=((3, 3, 3),) * 3,
    features_per_stage=(4, 8, 16),
    batch_dice=False,
    deep_supervision_weights=(1.0,),
)


def peak_bytes() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) * 1024


def predict_once(shape: tuple[int, int, int], n_models: int) -> None:
    """Predict and print bytes: before the image was there, image, labels, the highest moment."""
    device = choose_device("auto")
    network = UNet(1, 3, PLAN, "instance", deep_supervision=False)
    load_weights(network, initial_weights(network, 0))
    device.place_network(network)
    before = peak_bytes()
    geometry = Geometry(
        full_shape=shape,
        box=((0, shape[0]), (0, shape[1]), (0, shape[2])),
        spacing_mm=(1.0, 1.0, 1.0),
        transpose=(0, 1, 2),
        network_spacing_mm=(1.0, 1.0, 1.0),
    )
    image = np.zeros((1, *shape), np.float32)
    rng = np.random.default_rng(0)
    for plane in image[0]:
        plane[...] = rng.standard_normal(plane.shape, dtype=np.float32)
    window = Window(PLAN.patch_size, "labels", mirroring=False)
    with tempfile.TemporaryDirectory() as folder:
        space = Workspace(BUDGET_BYTES, Path(folder))

        def member():  # type: ignore[no-untyped-def]
            slabs = predicted_slabs(network, image, window, device, allocate=space.zeros)
            return restored_slabs(slabs, geometry)

        slabs = mean_of_models([member] * n_models, shape, space)
        found = decided(slabs, geometry, TASK, "labels", Wanted(), space)
    print(before, image.nbytes, found.labels.nbytes, peak_bytes())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", type=int, nargs=3, default=(1000, 512, 512))
    parser.add_argument("--models", type=int, nargs="+", default=(1, 2))
    parser.add_argument("--once", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    z, y, x = given.shape
    if given.once:
        predict_once((z, y, x), given.models[0])
        return
    for n_models in given.models:
        command = [sys.executable, __file__, "--once", "--models", str(n_models)]
        done = subprocess.run(
            [*command, "--shape", *map(str, given.shape)], check=True, stdout=subprocess.PIPE
        )
        before, image, labels, peak = (int(word) / 1e9 for word in done.stdout.split())
        print(
            f"{z}x{y}x{x}, {n_models} model{'s' if n_models > 1 else ''}: peak {peak:.2f} GB, of "
            f"which the image {image:.2f} and the labels {labels:.2f}; all outputs in float32 "
            f"would be {3 * image:.2f}; the process before the image {before:.2f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
