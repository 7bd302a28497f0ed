"""Real processes die, one after the other, and the run finishes with the sites that are there.

The same commands bring everything back; no round is lost and none counts twice.
"""

import os
import time
from dataclasses import replace

import pytest

from common.codec import write_toml

RUN = "study-2"
ROUNDS = 11
CUT_S = float(os.environ.get("CONSILIUM_CUT_S", "10"))  # by hand: 120


@pytest.mark.timeout(1200)
def test_whatever_is_killed_the_run_goes_on_and_finishes(filled, tiny_study, tmp_path, events):
    network = filled.connect()
    filled.start_all()
    federation = replace(
        tiny_study.config.federation, rounds=ROUNDS, held_out=("gamma",), min_sites=1, retries=1
    )
    write_toml(tmp_path / f"{RUN}.toml", tiny_study.config_with(federation=federation))
    run = filled.home / "runs" / RUN
    kit = ("--kit", filled.coordinator)
    filled.wait_until(lambda: n_connected(filled) == 3, "all sites are connected", 120)
    filled.call("coordinator", "run", tmp_path / f"{RUN}.toml", *kit, "--out", run)

    def rounds() -> list[int]:
        return [event["round"] for event in events(run, "RoundFinished")]

    def n_trained(site: str) -> int:
        return sum(event["site"] == site for event in events(run, "SiteTrained"))

    def next_round(why: str, n: int = 1) -> None:
        wanted = len(rounds()) + n
        filled.wait_until(lambda: len(rounds()) >= wanted, f"a round ends after {why}", 300)

    next_round("the start")
    filled.kill_part("coordinator", "superlink")
    next_round("the SuperLink died")
    filled.kill_part("coordinator", "coordinator.executor")
    next_round("the executor died")
    filled.kill_part("coordinator", "serverapp")
    next_round("the ServerApp died")
    filled.kill("beta")
    filled.start("site", "beta")
    trained = n_trained("beta")
    filled.wait_until(lambda: n_trained("beta") > trained, "beta trains again", 300)
    network.cut()
    time.sleep(CUT_S)
    network.mend()
    trained = n_trained("alpha")
    filled.wait_until(lambda: n_trained("alpha") > trained, "alpha trains again", 400)
    filled.cut_power("coordinator")
    filled.start("coordinator", "coordinator")
    filled.wait_until((run / "report.html").is_file, "the run finishes with a report", 420)

    assert rounds() == list(range(1, ROUNDS + 1))


def n_connected(hospitals) -> int:
    return sum(site["connection"] == "connected" for site in hospitals.status()["sites"])
