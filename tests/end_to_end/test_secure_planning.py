"""Planning with fingerprints that nobody sees: three sites mask, a fourth only tests.

Over the in-process grid, which carries the same messages to the same ClientApp as a network does.
Everything that crosses it is recorded.
"""

import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from flwr.app import Error, Message, RecordDict

from client.agreement import measure_site
from client.app import app
from client.masking import COUNTS
from client.site import SiteConfig, load_site
from common.codec import canonical_json, read_toml, write_toml
from common.errors import ConfigError, FederationError
from common.messages import KeysTask, Measured, MeasureTask, Prepared
from common.planning.fingerprint import Fingerprint, empty, merge_all
from common.planning.fingerprint_grid import to_vector
from common.planning.plan import Plan
from common.planning.planner import plan_run
from common.secure_sum import MaskKey, Roster, public_key_of
from common.task import load_task
from common.wire import body_of, to_content, weights_of
from server.event_log import EventLog
from server.flower_sites import FlowerSites
from server.planning.agreeing import agree
from server.planning.cohort import Cohort
from server.planning.joining import join
from server.run import run as run_federation
from server.run_folder import RunFolder
from simulation.grid import InProcessGrid

TASK = load_task("brats-2021")
TRAINING, HELD_OUT = ("alpha", "beta", "gamma"), "delta"
Spoken = tuple[str, str, RecordDict]
"""Direction and site, kind of message, content."""


class Recording(InProcessGrid):
    """Keeps all that is sent in both directions, and can fail or change replies."""

    def __init__(self, files: dict[str, Path]) -> None:
        self.names = dict(enumerate(files, start=1))
        super().__init__(app, {n: {"site": str(files[name])} for n, name in self.names.items()})
        self.spoken: list[Spoken] = []
        self.fail: list[tuple[str, str]] = []
        """(site, kind of message): one reply is lost per entry; "masked" is a kind here."""
        self.change = lambda _name, _kind, content: content

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        kept = []
        for message in messages:
            name = self.names[message.metadata.dst_node_id]
            self.spoken.append((f"to {name}", kind_of(message), message.content))
            kept.append(message)
        return super().push_messages(kept)

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        for message_id in message_ids:
            asked = self._waiting[message_id]
            name, kind = self.names[asked.metadata.dst_node_id], kind_of(asked)
            for reply in super().pull_messages([message_id]):
                if (name, kind) in self.fail:
                    self.fail.remove((name, kind))
                    yield Message(Error(1, "node unavailable"), reply_to=asked)
                elif reply.has_error():
                    yield reply
                else:
                    self.spoken.append((f"from {name}", kind, reply.content))
                    yield Message(self.change(name, kind, reply.content), reply_to=asked)

    def kinds(self, direction: str) -> list[str]:
        return [kind for where, kind, _ in self.spoken if where == direction]


def kind_of(message: Message) -> str:
    """Return the kind of a message that the coordinator sends."""
    kind = message.metadata.message_type.removeprefix("query.")
    body = json.loads(message.content.config_records["body"]["json"])
    return "masked" if kind == "measure" and "roster" in body else kind


@pytest.fixture
def study(tiny_study):
    """Return the tiny study as three training sites and a held-out one."""
    cases = [case for names in tiny_study.sites.values() for case in names]
    sites = {"alpha": cases[:2], "beta": cases[2:4], "gamma": cases[4:6], HELD_OUT: cases[6:]}
    federation = replace(tiny_study.config.federation, held_out=(HELD_OUT,), min_sites=2, rounds=1)
    return replace(
        tiny_study,
        config=tiny_study.config_with(federation=federation),
        sites={name: tuple(members) for name, members in sites.items()},
    )


def files_of(study, home: Path, modes: dict[str, str] | None = None) -> dict[str, Path]:
    """Write the sites' files; they mask unless `modes` says otherwise."""
    files = study.write_sites(home)
    for name, path in files.items():
        site = read_toml(SiteConfig, path)
        mode = (modes or {}).get(name, "secure-sum")
        write_toml(path, replace(site, policy=replace(site.policy, fingerprint=mode)))
    return files


def joined(grid: InProcessGrid, study, folder: RunFolder) -> tuple[FlowerSites, Cohort]:
    sites = FlowerSites(grid)
    return sites, join(sites, study.config, TASK, folder, EventLog(folder.events))


def planned(grid: InProcessGrid, study, folder: RunFolder) -> Plan:
    sites, cohort = joined(grid, study, folder)
    return agree(sites, cohort, study.config, TASK, folder, EventLog(folder.events))


def measured(study, home: Path) -> dict[str, Fingerprint]:
    """Return what each site would tell in exact mode."""
    files = files_of(study, home, dict.fromkeys(study.sites, "exact"))
    told = {
        name: measure_site(load_site(path), MeasureTask(run="x", task=TASK))
        for name, path in files.items()
    }
    return {name: value.fingerprint for name, value in told.items() if isinstance(value, Measured)}


def log_of(home: Path, site: str) -> str:
    return (home / site / "state" / "site.log").read_text()


def events(folder: RunFolder, kind: str) -> list[dict]:
    lines = map(json.loads, folder.events.read_text().splitlines())
    return [event for event in lines if event["event"] == kind]


def bytes_of(content: RecordDict) -> bytes:
    texts = [record["json"] for record in content.config_records.values()]
    arrays = [array.data for record in content.array_records.values() for array in record.values()]
    return b"\n".join([*texts, *arrays])


def test_the_plan_is_that_of_the_plainly_merged_fingerprints(study, tmp_path: Path):
    folder, named = RunFolder(tmp_path / "run"), measured(study, tmp_path / "plain")
    grid = Recording(files_of(study, tmp_path))
    sites, cohort = joined(grid, study, folder)
    whole = merge_all({name: named[name] for name in TRAINING})
    assert cohort.fingerprint == cohort.secure_sum == whole
    made = agree(sites, cohort, study.config, TASK, folder, EventLog(folder.events))
    assert made.hash == plan_run(whole, study.config).hash
    own = json.loads((tmp_path / "beta" / "state" / "runs" / "run" / "agreed.json").read_text())
    assert own["plan"]["hash"] == made.hash


def traces(grid: Recording, named: dict[str, Fingerprint]) -> set[str]:
    """Return the sites whose own counts, as text or as numbers, are somewhere in what was said."""
    everything = b"\n".join(bytes_of(content) for _, _, content in grid.spoken)
    return {
        name
        for name, fingerprint in named.items()
        if canonical_json(fingerprint.shapes_voxels) in everything
        or canonical_json(fingerprint.extents_ticks) in everything
        or to_vector(fingerprint).tobytes() in everything
    }


def counts_of(grid: Recording, site: str) -> tuple[int, int]:
    """Return the numbers of training and validation cases that a site told when it had prepared."""
    (told,) = [c for w, k, c in grid.spoken if (w, k) == (f"from {site}", "prepare")]
    prepared = body_of(Prepared, told)
    return prepared.n_training_cases, prepared.n_validation_cases


def test_nothing_that_crosses_the_wire_holds_a_sites_counts(study, tmp_path: Path):
    named = measured(study, tmp_path / "plain")
    exact = Recording(files_of(study, tmp_path / "exact", dict.fromkeys(study.sites, "exact")))
    planned(exact, study, RunFolder(tmp_path / "exact" / "run"))
    assert traces(exact, named) == set(study.sites)  # the search finds what is there
    grid = Recording(files_of(study, tmp_path))
    planned(grid, study, RunFolder(tmp_path / "run"))
    assert traces(grid, named) == set()
    # every fingerprint that was said at all is of no cases or of all training cases
    said = [
        json.loads(content.config_records["body"]["json"])["fingerprint"]
        for _, _, content in grid.spoken
        if b'"fingerprint":{' in bytes_of(content)
    ]
    assert {fingerprint["n_cases"] for fingerprint in said} == {0, 6}
    for name in TRAINING:
        assert (counts_of(exact, name), counts_of(grid, name)) == ((1, 1), (0, 0))


def test_a_site_says_what_kind_it_is_then_its_key_then_masked_counts(study, tmp_path: Path):
    grid = Recording(files_of(study, tmp_path))
    planned(grid, study, RunFolder(tmp_path / "run"))
    for name in TRAINING:
        assert grid.kinds(f"from {name}") == ["measure", "keys", "masked", "prepare"]
    assert grid.kinds(f"from {HELD_OUT}") == ["measure", "prepare"]
    answers = [content for _, kind, content in grid.spoken if kind == "masked"]
    masked = [content for content in answers if content.array_records]
    assert len(masked) == 3
    for content in masked:
        assert weights_of(content)[COUNTS].shape == (172_790,)
        assert body_of(Measured, content).fingerprint == empty(TASK)


def test_the_number_of_a_sites_cases_is_not_logged(study, tmp_path: Path):
    folder = RunFolder(tmp_path / "run")
    planned(Recording(files_of(study, tmp_path)), study, folder)
    assert [(event["site"], event.get("n_cases")) for event in events(folder, "SiteJoined")] == [
        ("alpha", None),
        ("beta", None),
        ("delta", None),
        ("gamma", None),
    ]
    assert events(folder, "PlanMade")[0]["n_cases"] == 6
    notes = [event["text"] for event in events(folder, "Note")]
    assert notes[0] == "the fingerprints of alpha, beta, gamma were seen only as their sum"


def test_a_whole_federation_runs_and_resumes_without_asking_for_the_sum_again(
    study, tmp_path: Path
):
    folder = RunFolder(tmp_path / "run")
    files = files_of(study, tmp_path)
    for _ in range(2):
        grid = Recording(files)
        log = EventLog(folder.events)
        run_federation(study.config, TASK, FlowerSites(grid), folder, log, device="")
    assert set(grid.kinds("from alpha")) == {"measure", "prepare"}  # the rest is on the disk
    assert len(events(folder, "RunFinished")) == 2
    assert {event["n_cases"] for event in events(folder, "HeldOutScored")} == {1}


def test_changed_data_are_noticed_on_resume(study, tmp_path: Path):
    folder = RunFolder(tmp_path / "run")
    files = files_of(study, tmp_path)
    joined(Recording(files), study, folder)
    site = read_toml(SiteConfig, files["beta"])
    write_toml(files["beta"], replace(site, cases=study.sites["beta"][:1]))
    with pytest.raises(FederationError, match=r"the data of \['beta'\] changed"):
        joined(Recording(files), study, folder)


# Attempts


@pytest.mark.parametrize("kind", ["keys", "masked"])
def test_a_site_that_fails_once_does_not_stop_the_run(study, tmp_path: Path, kind: str):
    folder = RunFolder(tmp_path / "run")
    grid = Recording(files_of(study, tmp_path))
    grid.fail = [("beta", kind)]
    _, cohort = joined(grid, study, folder)
    whole = merge_all({n: f for n, f in measured(study, tmp_path / "p").items() if n in TRAINING})
    assert cohort.secure_sum == whole
    assert grid.fail == []
    assert (
        grid.kinds("to beta")[1:]
        == {
            "keys": ["keys", "keys", "masked"],
            "masked": ["keys", "masked", "keys", "masked"],
        }[kind]
    )
    notes = [event["text"] for event in events(folder, "Note")]
    assert notes[0] == "secure sum, attempt 1: beta: flower-1 (the site's log says more)"
    keys = [
        body_of(MaskKey, content)
        for w, k, content in grid.spoken
        if (w, k) == ("from alpha", "keys")
    ]
    assert len({key.public_key for key in keys}) == 2


def test_a_site_whose_answer_was_lost_masks_anew_for_the_second_attempt(study, tmp_path: Path):
    grid = Recording(files_of(study, tmp_path))
    grid.fail = [("beta", "masked")]
    joined(grid, study, RunFolder(tmp_path / "run"))
    told = [
        weights_of(content)[COUNTS]
        for where, kind, content in grid.spoken
        if (where, kind) == ("from alpha", "masked")
    ]
    assert len(told) == 2
    assert not (told[0] == told[1]).any()


def test_a_site_that_fails_three_times_ends_the_run(study, tmp_path: Path):
    folder = RunFolder(tmp_path / "run")
    grid = Recording(files_of(study, tmp_path))
    grid.fail = [("beta", "masked")] * 3
    with pytest.raises(FederationError, match="could not be added unseen\nbeta: flower-1"):
        joined(grid, study, folder)
    assert grid.kinds("to alpha").count("masked") == 3
    assert not folder.cohort.exists()


# Refusals


def test_two_sites_are_refused_with_the_reason_at_the_coordinator_and_in_the_sites_logs(
    study, tmp_path: Path
):
    two = replace(study, sites={n: study.sites[n] for n in ("alpha", "beta", HELD_OUT)})
    grid = Recording(files_of(two, tmp_path))
    with pytest.raises(FederationError) as stopped:
        joined(grid, two, RunFolder(tmp_path / "run"))
    wants = "asks for at least 3 sites with secure-sum, found 2: alpha, beta"
    assert str(stopped.value).splitlines() == [
        "secure sum: the fingerprints could not be added unseen",
        "alpha: policy:privacy (the site's log says more)",
        "beta: policy:privacy (the site's log says more)",
        f"alpha {wants}",
        f"beta {wants}",
    ]
    reason = "expected at least 3 sites that mask their fingerprints, found 2: alpha, beta"
    assert reason in log_of(tmp_path, "alpha")
    assert "masked" not in grid.kinds("to alpha")


def test_a_coordinator_that_swaps_a_key_learns_nothing(study, tmp_path: Path):
    def swap(name: str, kind: str, content: RecordDict) -> RecordDict:
        if (name, kind) != ("beta", "keys"):
            return content
        return to_content(replace(body_of(MaskKey, content), public_key=public_key_of("7" * 64)))

    grid = Recording(files_of(study, tmp_path))
    grid.change = swap
    with pytest.raises(FederationError, match="beta: policy"):
        joined(grid, study, RunFolder(tmp_path / "run"))
    assert "another key than this site's own" in log_of(tmp_path, "beta")
    assert grid.kinds("from beta") == ["measure", "keys"]


@pytest.mark.parametrize(
    ("altered", "told"),
    [
        (lambda counts: counts + 1, "implausible"),
        (np.zeros_like, "implausible"),
        (lambda counts: counts[:-1], "message"),
        (lambda counts: counts.astype(np.float32), "message"),
    ],
)
def test_an_answer_that_does_not_add_up_is_a_clear_error(study, tmp_path: Path, altered, told):
    def alter(name: str, kind: str, content: RecordDict) -> RecordDict:
        if (name, kind) != ("gamma", "masked"):
            return content
        body, counts = body_of(Measured, content), weights_of(content)[COUNTS]
        return to_content(body, {COUNTS: altered(counts)})

    grid = Recording(files_of(study, tmp_path))
    grid.change = alter
    with pytest.raises(FederationError, match=told) as stopped:
        joined(grid, study, RunFolder(tmp_path / "run"))
    assert "secure sum" in str(stopped.value)


def test_a_key_in_anothers_name_is_refused(study, tmp_path: Path):
    def rename(name: str, kind: str, content: RecordDict) -> RecordDict:
        if (name, kind) != ("beta", "keys"):
            return content
        return to_content(replace(body_of(MaskKey, content), site="alpha"))

    grid = Recording(files_of(study, tmp_path))
    grid.change = rename
    with pytest.raises(
        FederationError, match=r"beta: message \(expected its own key, found alpha's"
    ):
        joined(grid, study, RunFolder(tmp_path / "run"))


def test_sites_of_different_tasks_are_refused_before_anybody_masks(study, tmp_path: Path):
    def other_task(name: str, kind: str, content: RecordDict) -> RecordDict:
        if (name, kind) != ("beta", "measure"):
            return content
        told = body_of(Measured, content)
        return to_content(replace(told, fingerprint=replace(told.fingerprint, task_version=2)))

    grid = Recording(files_of(study, tmp_path))
    grid.change = other_task
    with pytest.raises(ConfigError, match="beta: task brats-2021 version 2"):
        joined(grid, study, RunFolder(tmp_path / "run"))
    assert "keys" not in grid.kinds("to alpha")


# Modes side by side


def test_sites_of_all_modes_are_added_side_by_side(study, tmp_path: Path):
    cases = [case for names in study.sites.values() for case in names]
    names = ("alpha", "beta", "gamma", "delta", "exact", "held")
    more = replace(
        study,
        config=study.config_with(
            federation=replace(study.config.federation, held_out=("held",), min_sites=5)
        ),
        sites={name: (case,) for name, case in zip(names, cases, strict=False)},
    )
    modes = {"exact": "exact", "held": "exact"}
    folder = RunFolder(tmp_path / "run")
    grid = Recording(files_of(more, tmp_path, modes))
    sites, cohort = joined(grid, more, folder)
    named = measured(more, tmp_path / "plain")
    assert cohort.fingerprint == merge_all({n: f for n, f in named.items() if n != "held"})
    assert cohort.secure_sum is not None
    assert cohort.secure_sum.n_cases == 4
    assert grid.kinds("from exact") == ["measure"]
    told = {event["site"]: event.get("n_cases") for event in events(folder, "SiteJoined")}
    assert told == {**dict.fromkeys(names[:4]), "exact": 1, "held": 1}
    assert [cohort.most_cases(name) for name in ("alpha", "exact")] == [4, 1]
    made = agree(sites, cohort, more.config, TASK, folder, EventLog(folder.events))
    assert made.hash == plan_run(cohort.fingerprint, more.config).hash


def test_a_held_out_site_may_mask_where_nobody_else_does(study, tmp_path: Path):
    modes = dict.fromkeys(TRAINING, "exact")
    grid = Recording(files_of(study, tmp_path, modes))
    _, cohort = joined(grid, study, RunFolder(tmp_path / "run"))
    assert cohort.secure_sum is None
    assert cohort.held_out[HELD_OUT].n_cases is None
    assert {kind for _, kind, _ in grid.spoken} == {"measure"}


def test_a_federation_in_which_nobody_masks_says_what_it_always_said(study, tmp_path: Path):
    folder = RunFolder(tmp_path / "run")
    grid = Recording(files_of(study, tmp_path, dict.fromkeys(study.sites, "exact")))
    planned(grid, study, folder)
    assert [kind for _, kind, _ in grid.spoken] == ["measure"] * 8 + ["prepare"] * 8
    for where, kind, content in grid.spoken:
        if kind != "measure":
            continue
        keys = set(json.loads(content.config_records["body"]["json"])) - {"memory_gb"}
        expected = {"run", "task"} if "to" in where else {"site", "fingerprint", "version"}
        assert keys == expected
        assert not content.array_records
    kept = json.loads(folder.cohort.read_text())
    expected = {"training", "held_out", "planned_from", "left"}
    assert set(kept) - {"memory_gb"} == expected
    assert not (tmp_path / "alpha" / "state" / "fingerprint.key").exists()


# Every error is a code


@pytest.mark.parametrize(
    ("mode", "asked", "code"),
    [
        ("exact", KeysTask(run="r", nonce="0" * 32, sites=TRAINING), "policy:privacy"),
        ("secure-sum", KeysTask(run="..", nonce="0" * 32, sites=TRAINING), "message"),
        ("secure-sum", MeasureTask(run="r", task=TASK), "message"),
        ("secure-sum", {"run": "r", "nonce": "../../x", "sites": list(TRAINING)}, "message"),
    ],
)
def test_a_request_for_a_key_that_does_not_fit_becomes_a_code(
    study, tmp_path: Path, mode: str, asked: object, code: str
):
    grid = Recording(files_of(study, tmp_path, {"alpha": mode}))
    (reply,) = grid.send_and_receive([Message(to_content(asked), 1, "query.keys")])
    assert reply.has_error()
    assert (reply.error.code, reply.error.reason) == (4100, code)


@pytest.mark.parametrize("mode", ["exact", "coarse"])
def test_a_roster_is_refused_by_a_site_that_does_not_mask(study, tmp_path: Path, mode: str):
    grid = Recording(files_of(study, tmp_path, {"alpha": mode}))
    asked = MeasureTask(run="r", task=TASK, roster=Roster(nonce="0" * 32, keys=()))
    (reply,) = grid.send_and_receive([Message(to_content(asked), 1, "query.measure")])
    assert (reply.error.code, reply.error.reason) == (4100, "policy:privacy")


# The command line


def test_fingerprint_cannot_mask_a_file_alone(run, study, tmp_path: Path):
    output = tmp_path / "fingerprint.json"
    code, stdout, stderr = run("fingerprint", study.data, "-o", output, "--release", "secure-sum")
    assert (code, stdout) == (2, "")
    assert stderr.startswith("consilium: secure-sum: a file cannot be masked alone; the mode appli")
    assert len(stderr.splitlines()) == 1
    assert not output.exists()


def test_fingerprint_explains_the_mode_without_writing_a_file(run, study, tmp_path: Path):
    output = tmp_path / "fingerprint.json"
    options = ("--release", "secure-sum", "--explain")
    code, stdout, _ = run("fingerprint", study.data, "-o", output, *options)
    assert code == 0
    assert stdout.startswith("Release mode secure-sum: this site's counts leave it only masked.")
    assert "shapes_voxels: masked\n" in stdout
    assert "no case is counted more than 0 voxels away" in stdout
    assert not output.exists()
