"""Compiled where that pays, uncompiled where it cannot be, and never another result."""

import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from client.device import Device
from client.training.compiling import compiling_pays, forward_of
from common.planning.plan import Configuration

CPU = Device(torch.device("cpu"), torch.bfloat16)
LOG = logging.getLogger("consilium.test")


def plan(batch_size: int, features: tuple[int, ...]) -> Configuration:
    return Configuration(
        spacing_mm=(1.0, 1.0, 1.0),
        median_shape=(36.0, 50.0, 35.0),
        patch_size=(40, 56, 40),
        batch_size=batch_size,
        strides=((2, 2, 2),) * 3,
        kernel_sizes=((3, 3, 3),) * 4,
        features_per_stage=features,
        batch_dice=False,
        deep_supervision_weights=(2 / 3, 1 / 3, 0.0),
    )


PUBLISHED, SMALL = plan(9, (32, 64, 128, 256)), plan(4, (16, 32, 64, 128))


@pytest.mark.parametrize(
    ("configuration", "steps", "rounds", "pays"),
    [
        (PUBLISHED, 250, 1000, True),
        (PUBLISHED, 40, 20, True),
        (PUBLISHED, 10, 2, False),  # the run ends before
        (SMALL, 10, 1000, False),  # every round would be slower, by the start of its process
        (SMALL, 250, 100, True),
    ],
)
def test_a_network_is_compiled_where_that_saves_time(
    configuration: Configuration,
    steps: int,
    rounds: int,
    monkeypatch: pytest.MonkeyPatch,
    *,
    pays: bool,
) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    assert compiling_pays(configuration, CPU, steps, rounds) is pays


class Toy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([2.0]))

    def forward(self, image: Tensor) -> list[Tensor]:
        return [torch.tanh(image * self.weight)]


@pytest.mark.parametrize(("wanted", "pays"), [("off", True), ("auto", False)])
def test_otherwise_the_network_computes_itself(wanted: str, tmp_path: Path, *, pays: bool) -> None:
    network = Toy()
    cache = tmp_path / "compiled"
    forward = forward_of(network, wanted, pays=pays, cache=cache, log=LOG)  # type: ignore[arg-type]
    assert forward is network
    assert not cache.exists()


def test_without_a_compiler_the_log_says_so_and_the_network_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    network = Toy()
    assert forward_of(network, "on", pays=True, cache=tmp_path, log=LOG) is network
    assert caplog.messages == [
        "compile: found no C++ compiler (g++); the network runs uncompiled, and slower"
    ]


@pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")
def test_a_compiled_network_trains_as_the_uncompiled_and_its_code_stays_at_the_site(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "")  # put back after the test
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR")
    torch.compiler.reset()
    network, cache = Toy(), tmp_path / "compiled"
    forward = forward_of(network, "on", pays=False, cache=cache, log=LOG)
    image = torch.linspace(-1, 1, 24).reshape(1, 1, 2, 3, 4)
    gradients = []
    for compute in (network, forward):
        network.zero_grad()
        compute(image)[0].sum().backward()  # type: ignore[no-untyped-call]
        assert network.weight.grad is not None
        gradients.append(network.weight.grad.item())
    assert gradients[0] == pytest.approx(gradients[1], abs=1e-6)
    assert any(cache.rglob("*.so"))
    assert cache.stat().st_mode & 0o077 == 0
    torch.compiler.reset()


FAILING = """
import logging, pathlib, sys, torch
from client.training.compiling import forward_of

class Toy(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor([2.0]))
    def forward(self, image):
        return [torch.sigmoid(image * self.weight)]

logging.basicConfig(format="%(message)s")
network, image = Toy(), torch.ones(1, 1, 2, 2, 7)
log = logging.getLogger("consilium.test")
forward = forward_of(network, "on", pays=True, cache=pathlib.Path(sys.argv[1]), log=log)
print(torch.equal(forward(image)[0], network(image)[0]))
"""


def test_a_compiler_that_fails_leaves_the_network_uncompiled(tmp_path: Path) -> None:
    broken = tmp_path / "broken-g++"
    broken.write_text("#!/bin/sh\nexit 1\n")
    broken.chmod(0o700)
    done = subprocess.run(  # torch remembers the compiler of a process
        [sys.executable, "-c", FAILING, str(tmp_path / "compiled")],
        env={**os.environ, "CXX": str(broken), "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "own")},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "True\n"
    line = done.stderr.strip().splitlines()[-1]
    assert line.startswith("compile: failed (")
    assert line.endswith("); the network runs uncompiled, and slower")
