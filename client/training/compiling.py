"""Compiling a network: whether that pays, where the result is kept, and what happens without.

Only the network is compiled. The loss of a few channels is slower compiled than not on a CPU (33
against 7 ms), and optimisers are fused already. Recording the step as a CUDA graph is left out:
it pays for networks of many short kernels, and patches of these plans keep a card busy.
"""

import logging
import os
import shutil
from collections.abc import Callable
from math import prod
from pathlib import Path
from typing import Final, Literal

import torch
from torch import Tensor, nn

from client.device import Device
from common.errors import DiskError
from common.planning.estimate import stage_sizes
from common.planning.plan import AnyConfiguration

Forward = Callable[[Tensor], list[Tensor]]
CACHE_VARIABLE: Final = "TORCHINDUCTOR_CACHE_DIR"  # read by torch
COMPILE_S: Final = 60.0  # once per network and machine; 25 to 60 s on two cores
START_S: Final = 4.0  # once per process: tracing, and reading the cache; 2 s on two cores
SAVED_CORE_S_PER_VALUE: Final = 6e-9  # 0.47 against 0.35 s for 38 million on two cores; others more
SAVED_CUDA_S_PER_VALUE: Final = 1e-10  # estimated from the ratio of memory bandwidths
MAPS_PER_STAGE: Final = 5  # four convolutions and one transposed, as the planner counts


def compiling_pays(
    configuration: AnyConfiguration, device: Device, steps_per_round: int, rounds: int
) -> bool:
    """Return whether compiling saves more time in a run than it takes.

    Reckoned from the plan and the number of threads alone, so that a resumed run decides alike:
    compiled and uncompiled networks differ in their last bits. Every round may be a new process.
    """
    values = configuration.batch_size * MAPS_PER_STAGE * _values_per_map(configuration)
    saved_s = values * SAVED_CORE_S_PER_VALUE / torch.get_num_threads()
    if device.device.type == "cuda":
        saved_s = values * SAVED_CUDA_S_PER_VALUE
    return rounds * steps_per_round * saved_s > COMPILE_S + rounds * START_S


def forward_of(
    network: nn.Module,
    wanted: Literal["auto", "on", "off"],
    *,
    pays: bool,
    cache: Path,
    log: logging.Logger,
) -> Forward:
    """Return what computes a network: the network itself, or its compiled form.

    Args:
        network: placed on its device; its tensors stay its own.
        wanted: by the run.
        pays: what "auto" goes by.
        cache: folder of this site for compiled code, for later rounds and processes; the
            environment variable of torch, if set, goes first.
        log: gets one line when compiling was wanted and cannot be done.
    """
    if wanted == "off" or (wanted == "auto" and not pays):
        return network
    if shutil.which(os.environ.get("CXX", "g++")) is None:  # as torch looks for it
        log.warning("compile: found no C++ compiler (g++); the network runs uncompiled, and slower")
        return network
    _keep_code_in(cache)
    return _compiled(network, log)


def _compiled(network: nn.Module, log: logging.Logger) -> Forward:
    """Return the compiled network, which becomes the network itself if compiling fails."""
    from torch._dynamo.exc import TorchDynamoException  # takes a second: only who compiles pays it

    chosen: Forward = torch.compile(network, dynamic=False)

    def forward(image: Tensor) -> list[Tensor]:
        nonlocal chosen
        try:
            return chosen(image)
        except TorchDynamoException as error:
            if chosen is network:
                raise
            reason = str(error).strip().splitlines()[0]
            log.warning("compile: failed (%s); the network runs uncompiled, and slower", reason)
            chosen = network
            return network(image)  # type: ignore[no-any-return]

    return forward


def _keep_code_in(folder: Path) -> None:
    """Let torch keep compiled code in a folder that only this user may read: it loads it again."""
    from torch._inductor.runtime.cache_dir_utils import default_cache_dir

    if os.environ.get(CACHE_VARIABLE) not in {None, default_cache_dir()}:  # torch sets it itself
        return
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise DiskError(f"{folder}: cannot be made: {error.strerror}") from None
    os.environ[CACHE_VARIABLE] = str(folder)


def _values_per_map(configuration: AnyConfiguration) -> int:
    stages = zip(configuration.features_per_stage, stage_sizes(configuration), strict=True)
    return sum(features * prod(size) for features, size in stages)
