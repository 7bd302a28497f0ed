"""What real processes, TLS and transport add to a round: a coordinator and three sites on loopback.

Usage: python benchmarks/transport.py [--rounds 4] [--base-features 64] [--upload float32]
    [--secure]

Provisions a federation, starts every program with its one command, and trains a network of 30.4
million parameters for one step a round. Printed are, from the run's own log, the time of a round
that is no training (round minus the slowest site's training seconds), the bytes that a site sends,
and, for a second run on the caches of the first, the seconds from `consilium site start` to the
first training message at the last site. `--secure` does all of it twice, with plain updates and
with updates of which only the sum is seen, and prints their ratio.
"""

import argparse
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from common.augmentation import Augmentation
from common.codec import write_toml
from common.config import Evaluation, Model, Planning, RunConfig, Training
from common.federation import Federation, Upload
from common.schedules import Constant
from common.secure_aggregation import SecureAggregation
from simulation.phantoms import PhantomSite, PhantomStudy, partition_of, write_study

SITES = ("alpha", "beta", "gamma")
COMMAND = [sys.executable, "-m", "consilium"]
UPDATES = ("SiteTrained", "SiteMasked")
START_S, RUN_S = 120, 1800


def study() -> PhantomStudy:
    """Return three sites with three small phantoms each."""
    sites = tuple(
        PhantomSite(
            name=name,
            n_cases=3,
            spacing_mm=(2.2, 2.2, 2.2),
            gain=(400.0, 450.0, 500.0, 300.0),
            gamma=(1.0, 1.0, 1.0, 1.0),
            noise_fraction=0.03,
            bias_fraction=0.05,
            tumour_radius_mm=28.0,
            tumour_radius_spread=0.2,
            without_enhancing_fraction=0.0,
        )
        for name in SITES
    )
    return PhantomStudy(seed=3, field_of_view_mm=(140.0, 168.0, 144.0), sites=sites)


def config(rounds: int, base_features: int, upload: Upload, *, secure: bool) -> RunConfig:
    """Return a run of so many rounds of one step."""
    return RunConfig(
        task="brats-2021",
        federation=Federation(
            seed=1,
            methods=("fedavg",),
            rounds=rounds,
            held_out=(),
            min_sites=len(SITES),
            local_steps=1,
            upload=upload,
            secure_aggregation=SecureAggregation(min_sites=len(SITES)) if secure else None,
        ),
        model=Model(
            configuration="3d_fullres",
            norm="instance",
            batch_norm="shared",
            output="regions",
            base_features=base_features,
            deep_supervision=True,
        ),
        planning=Planning(rules="paper", memory_gb=8, max_batch_size=2),
        training=Training(
            optimizer="sgd",
            learning_rate=0.01,
            momentum=0.99,
            weight_decay=3e-5,
            schedule=Constant(),
            gradient_clip_norm=12.0,
            augmentation=Augmentation(preset="none"),
            validation_fraction=0.0,
            compile="off",
        ),
        evaluation=Evaluation(
            hd95="pooled", mirroring=False, calibration_patches=1, ties="min", pictures=False
        ),
    )


def call(*arguments: object) -> str:
    return subprocess.run(
        [*COMMAND, *map(str, arguments)], check=True, capture_output=True, text=True
    ).stdout


def start(role: str, kit: Path, log: Path) -> "subprocess.Popen[bytes]":
    with log.open("ab") as output:
        return subprocess.Popen(
            [*COMMAND, role, "start", str(kit)], stdout=output, stderr=subprocess.STDOUT
        )


def events(run: Path) -> list[dict[str, object]]:
    path = run / "events.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith("}")]


def wait_for(condition, timeout_s: float) -> None:  # type: ignore[no-untyped-def]
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError
        time.sleep(0.5)


def is_up(kit: Path) -> bool:
    command = [*COMMAND, "coordinator", "status", "--kit", str(kit)]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def overheads(run: Path) -> list[float]:
    """Return, per round but the first, which builds and loads, the seconds that are no training."""
    found = events(run)
    trained: dict[object, float] = {}
    for event in found:
        if event["event"] in UPDATES:
            seconds = float(str(event["seconds"]))
            trained[event["round"]] = max(trained.get(event["round"], 0.0), seconds)
    return [
        float(str(event["seconds"])) - trained[event["round"]]
        for event in found
        if event["event"] == "RoundFinished" and event["round"] != 1
    ]


def first_training(kits: Path, since: float) -> float:
    """Return seconds until the last of the sites was asked to train."""
    moments = []
    for site in SITES:
        lines = (kits / site / "state" / "site.log").read_text().splitlines()
        asked = [line for line in lines if line.endswith(" train received")]
        times = [datetime.strptime(line[:19], "%Y-%m-%d %H:%M:%S").timestamp() for line in asked]
        moments.append(min(moment for moment in times if moment >= since))
    return max(moments) - since


def provisioned(home: Path) -> Path:
    """Write data, kits and the sites' own files; return the folder of the kits."""
    write_study(study(), home / "data")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    (home / "federation.toml").write_text(
        f'name = "transport"\naddress = "127.0.0.1:{port}"\nlisten = "127.0.0.1"\n'
        f'sites = {json.dumps(SITES)}\nvalid_days = 7\nmax_message_mb = 512\ntask = "brats-2021"\n'
    )
    call("provision", home / "federation.toml", "-o", home / "kits")
    policy = {
        "metrics": "cases",
        "validation_means": True,
        "pictures": False,
        "fingerprint": "exact",
    }
    for site, cases in partition_of(study()).sites.items():
        own = {"name": site, "state": "state", "data": str(home / "data"), "cases": list(cases)}
        write_toml(home / "kits" / site / "site.toml", {**own, "policy": policy})
    return home / "kits"


def measure(home: Path, wanted: RunConfig) -> float:
    """Print one federation's figures; return the median seconds of a round that are no training."""
    home.mkdir()
    kits, running = provisioned(home), []
    try:
        running.append(start("coordinator", kits / "coordinator", home / "coordinator.log"))
        wait_for(lambda: is_up(kits / "coordinator"), START_S)
        sites = [start("site", kits / site, home / f"{site}.log") for site in SITES]
        first, second = home / "runs" / "first", home / "runs" / "second"
        write_toml(home / "first.toml", wanted)
        kit = ("--kit", kits / "coordinator")
        call("coordinator", "run", home / "first.toml", *kit, "--out", first)
        wait_for((first / "report.html").exists, RUN_S)
        print(call("coordinator", "status", *kit))
        found, uploads = overheads(first), [e for e in events(first) if e["event"] in UPDATES]
        print(
            f"{len(found)} rounds, 3 sites, {wanted.federation.upload}"
            f"{', only sums seen' if wanted.federation.secure_aggregation else ''}: "
            f"{int(str(uploads[-1]['upload_bytes'])) / 2**20:.1f} MiB from a site; "
            f"{statistics.median(found):.1f} s of a round are no training "
            f"({min(found):.1f} to {max(found):.1f}), "
            f"{statistics.median(found) / (statistics.median(found) + 600):.1%} of one with "
            "10 minutes of training",
            flush=True,
        )
        for site in sites:
            site.send_signal(signal.SIGTERM)
        for site in sites:
            site.wait()
        federation = replace(wanted.federation, rounds=1)
        write_toml(home / "second.toml", replace(wanted, federation=federation))
        call("coordinator", "run", home / "second.toml", *kit, "--out", second)
        began = time.time()
        running += [start("site", kits / site, home / f"{site}.log") for site in SITES]
        wait_for((second / "report.html").exists, RUN_S)
        print(f"cached data: {first_training(kits, began):.0f} s from `site start` to training")
        return statistics.median(found)
    finally:
        for program in reversed(running):
            program.send_signal(signal.SIGTERM)
        for program in running:
            program.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--base-features", type=int, default=64)
    parser.add_argument("--upload", choices=("float32", "float16", "int8"), default="float32")
    parser.add_argument("--secure", action="store_true")
    given = parser.parse_args()
    os.environ.setdefault("PYTHONPATH", str(Path(__file__).parents[1]))
    with tempfile.TemporaryDirectory(prefix="transport-") as folder:
        home = Path(folder)
        try:
            medians = []
            for secure in (False, True) if given.secure else (False,):
                wanted = config(given.rounds, given.base_features, given.upload, secure=secure)
                medians.append(measure(home / f"{secure=}", wanted))
            if given.secure:
                print(f"only sums seen: {medians[1] / medians[0]:.2f} times the plain seconds")
        except (TimeoutError, subprocess.CalledProcessError):
            for log in home.glob("**/*.log"):
                print(f"== {log.name}\n{log.read_text(errors='replace')[-2000:]}")
            raise


if __name__ == "__main__":
    main()
