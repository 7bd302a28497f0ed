"""Fixtures that several rooms' tests share: real data, and a tiny two-site study."""

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from hypothesis import settings

import consilium
from client.site import SiteConfig
from common.augmentation import Augmentation
from common.codec import write_toml
from common.config import Evaluation, Model, Planning, RunConfig, Training
from common.federation import Federation
from common.schedules import Poly
from common.task import load_task
from simulation.phantoms import PhantomSite, PhantomStudy, partition_of, write_study
from simulation.simulate import OPEN_POLICY

# A loaded machine must not fail a property that holds.
settings.register_profile("consilium", deadline=None, print_blob=True)
settings.load_profile("consilium")


LONGEST = (
    "end_to_end/test_demo.py",
    "end_to_end/test_flower_federation.py",
    "end_to_end/hospitals/test_pull_the_plug.py",
    "end_to_end/test_site_service.py",
    "end_to_end/hospitals/test_a_federation_of_hospitals.py",
    "server/coordinator/test_supervise.py",
    "end_to_end/test_resume.py",
    "contracts/test_faulty_sites.py",
    "end_to_end/test_hippocampus.py",
)
"""Files that take longest, the longest first; they begin first, so that no worker waits for one."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest files first; `--no-loadscope-reorder` makes xdist keep the order."""
    tests = Path(__file__).parent
    places = {tests / name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path, len(places)))


@pytest.fixture(scope="session")
def shared() -> Path:
    """Return the folder with real and golden data, or skip."""
    folder = os.environ.get("CONSILIUM_SHARED", "")
    if not folder or not Path(folder).is_dir():
        pytest.skip("real and golden data: set CONSILIUM_SHARED to their folder")
    return Path(folder)


ROUNDS = 2


@pytest.fixture
def run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """Return a function that runs the command line: (exit code, stdout, stderr)."""

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["consilium", *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            consilium.main()  # exits after success as well
        captured = capsys.readouterr()
        return int(stopped.value.code or 0), captured.out, captured.err

    return call


@dataclass(frozen=True)
class TinyStudy:
    config: RunConfig
    data: Path
    sites: dict[str, tuple[str, ...]]

    def config_with(self, **fields: object) -> RunConfig:
        """Return the configuration with some of its top-level fields replaced."""
        return replace(self.config, **fields)  # type: ignore[arg-type]

    def write_sites(self, home: Path) -> dict[str, Path]:
        """Write each site's own file, with its own state folder below `home`."""
        files = {}
        for name, cases in self.sites.items():
            site = SiteConfig(
                name=name,
                data=str(self.data),
                state=str(home / name / "state"),
                policy=OPEN_POLICY,
                cases=cases,
            )
            files[name] = home / name / "site.toml"
            write_toml(files[name], site)
        return files

    def write_run(self, folder: Path) -> None:
        """Write what the coordinator starts from."""
        write_toml(folder / "config.toml", self.config)
        write_toml(folder / "task.toml", load_task(self.config.task))


def tiny_config(**federation: object) -> RunConfig:
    settings: dict[str, object] = {
        "seed": 7,
        "methods": ("fedavg",),
        "rounds": ROUNDS,
        "local_steps": 2,
        "held_out": (),
        "min_sites": 2,
        **federation,
    }
    return RunConfig(
        task="brats-2021",
        federation=Federation(**settings),  # type: ignore[arg-type]
        model=Model(
            configuration="3d_fullres",
            norm="batch",
            batch_norm="local-statistics",
            output="regions",
            base_features=4,
            deep_supervision=True,
        ),
        planning=Planning(rules="paper", memory_gb=8, max_batch_size=2),
        training=Training(
            optimizer="adamw",
            learning_rate=0.003,
            momentum=0.9,
            weight_decay=0.01,
            schedule=Poly(power=0.9),
            gradient_clip_norm=12.0,
            augmentation=Augmentation(preset="light"),
            validation_fraction=0.3,
        ),
        evaluation=Evaluation(
            hd95="pooled", mirroring=False, calibration_patches=4, ties="min", pictures=True
        ),
    )


def tiny_site(name: str, n_cases: int) -> PhantomSite:
    return PhantomSite(
        name=name,
        n_cases=n_cases,
        spacing_mm=(7.0, 7.0, 7.0),
        gain=(400.0, 450.0, 500.0, 300.0),
        gamma=(1.0, 1.0, 1.0, 1.0),
        noise_fraction=0.03,
        bias_fraction=0.05,
        tumour_radius_mm=28.0,
        tumour_radius_spread=0.2,
        without_enhancing_fraction=0.0,
    )


@pytest.fixture(scope="session")
def phantom_site() -> Callable[[str, int], PhantomSite]:
    """Return what makes a site of small, coarse phantoms with so many cases."""
    return tiny_site


@pytest.fixture(scope="session")
def tiny_study(tmp_path_factory: pytest.TempPathFactory) -> TinyStudy:
    folder = tmp_path_factory.mktemp("tiny-data")
    study = PhantomStudy(
        seed=3,
        field_of_view_mm=(140.0, 168.0, 144.0),
        sites=(tiny_site("alpha", 3), tiny_site("beta", 4)),
    )
    write_study(study, folder)
    return TinyStudy(tiny_config(), folder, dict(partition_of(study).sites))
