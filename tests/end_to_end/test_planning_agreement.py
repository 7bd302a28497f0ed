"""Before the first round: a difference between sites stops the run, and everyone learns why.

Two real sites over the in-process grid. What one of them receives is altered on its way, as if it
ran another version of the task or had been given another federation's fingerprint.
"""

import json
from collections.abc import Callable, Iterable
from dataclasses import replace
from math import prod
from pathlib import Path

import pytest
from flwr.app import Message, RecordDict

from client.app import app
from client.site import SiteConfig
from common.codec import read_json, read_toml, write_json, write_toml
from common.config import RunConfig
from common.errors import ConfigError, FederationError
from common.messages import MeasureTask, PrepareTask
from common.planning.fingerprint import Fingerprint, empty, fingerprint_of, merge_all
from common.planning.plan import Plan, configuration_of
from common.planning.planner import plan_run
from common.task import Task, load_task
from common.wire import body_of, to_content
from server.event_log import EventLog
from server.flower_sites import FlowerSites
from server.planning.agreeing import agree
from server.planning.joining import join
from server.run_folder import RunFolder
from simulation.grid import InProcessGrid

Change = Callable[[str, RecordDict], RecordDict]
TASK = load_task("brats-2021")
BETA = 2  # node number


class AlteringGrid(InProcessGrid):
    """Alters what one node is sent."""

    def __init__(self, nodes: dict[int, dict[str, str]], change: Change) -> None:
        super().__init__(app, nodes)
        self._change = change

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        return super().push_messages([self._altered(message) for message in messages])

    def _altered(self, message: Message) -> Message:
        kind, node = message.metadata.message_type, message.metadata.dst_node_id
        if node != BETA:
            return message
        return Message(self._change(kind, message.content), node, kind)


def federation(study, home: Path, change: Change) -> FlowerSites:
    files = study.write_sites(home)
    nodes = {n: {"site": str(path)} for n, path in enumerate(files.values(), start=1)}
    return FlowerSites(AlteringGrid(nodes, change))


def agreed(sites: FlowerSites, config: RunConfig, folder: RunFolder) -> Plan:
    log = EventLog(folder.events)
    cohort = join(sites, config, TASK, folder, log)
    return agree(sites, cohort, config, TASK, folder, log)


def unchanged(_: str, content: RecordDict) -> RecordDict:
    return content


def other_fingerprint(kind: str, content: RecordDict) -> RecordDict:
    """Put ten cases of another voxel size into the merged fingerprint."""
    if kind != "query.prepare":
        return content
    terms = body_of(PrepareTask, content)
    case = fingerprint_of((40, 40, 40), (40, 40, 40), (3.0, 3.0, 3.0), None, TASK)
    more = merge_all({"site": terms.fingerprint, **{str(n): case for n in range(10)}})
    return to_content(replace(terms, fingerprint=more))


def other_task(task: Task) -> Change:
    def change(kind: str, content: RecordDict) -> RecordDict:
        if kind != "query.measure":
            return content
        return to_content(replace(body_of(MeasureTask, content), task=task))

    return change


def logged(home: Path, site: str) -> str:
    return (home / site / "state" / "site.log").read_text()


def test_two_sites_with_the_same_terms_agree(tiny_study, tmp_path: Path):
    folder = RunFolder(tmp_path / "run")
    sites = federation(tiny_study, tmp_path, unchanged)
    made = agreed(sites, tiny_study.config, folder)
    for site in ("alpha", "beta"):
        own = json.loads((tmp_path / site / "state" / "runs" / "run" / "agreed.json").read_text())
        assert own["plan"]["hash"] == made.hash


def test_a_site_that_plans_differently_refuses_and_logs_both_hashes(tiny_study, tmp_path: Path):
    folder = RunFolder(tmp_path / "run")
    sites = federation(tiny_study, tmp_path, other_fingerprint)
    with pytest.raises(FederationError) as stopped:
        agreed(sites, tiny_study.config, folder)
    ours, theirs = str(stopped.value).splitlines()
    coordinators = read_json(Plan, folder.plan).hash
    assert ours == f"the coordinator's plan is {coordinators}"
    planned_there = theirs.removeprefix("beta refuses to train: its plan is ")
    assert len(planned_there) == 64
    assert planned_there != coordinators
    reason = f"ERROR plan: expected {coordinators}, planned {planned_there}: refused"
    assert reason in logged(tmp_path, "beta")
    assert not (tmp_path / "beta" / "state" / "runs").exists()  # nothing agreed, nothing prepared
    assert not (tmp_path / "beta" / "state" / "cache").exists()


def edited_plan(study, home: Path, **changes: object) -> Path:
    """Plan the study once, then change the plan's file as a person would."""
    folder = RunFolder(home / "first")
    agreed(federation(study, home / "first-sites", unchanged), study.config, folder)
    table = json.loads(folder.plan.read_text())
    table["configurations"]["3d_fullres"].update(changes)
    folder.plan.write_text(json.dumps(table))
    return folder.plan


def with_planning(study, **changes: object) -> RunConfig:
    config: RunConfig = study.config_with(planning=replace(study.config.planning, **changes))
    return config


def test_sites_train_by_an_edited_plan_when_their_policy_allows_it(tiny_study, tmp_path: Path):
    path = edited_plan(tiny_study, tmp_path, batch_size=1)
    config = with_planning(tiny_study, edited_plan=str(path))
    folder = RunFolder(tmp_path / "run")
    made = agreed(federation(tiny_study, tmp_path, unchanged), config, folder)
    assert made.edited
    assert configuration_of(made, "3d_fullres").batch_size == 1
    own = json.loads((tmp_path / "alpha" / "state" / "runs" / "run" / "agreed.json").read_text())
    assert own["plan"]["edited"] is True
    assert own["plan"]["hash"] == made.hash
    assert "edited_plan" not in own["terms"]["config"]["planning"]  # a path of the coordinator's


def test_a_site_refuses_an_edited_plan_unless_its_policy_allows_it(tiny_study, tmp_path: Path):
    path = edited_plan(tiny_study, tmp_path, batch_size=1)
    files = tiny_study.write_sites(tmp_path)
    site = read_toml(SiteConfig, files["beta"])
    write_toml(files["beta"], replace(site, policy=replace(site.policy, edited_plans=False)))
    nodes = {n: {"site": str(file)} for n, file in enumerate(files.values(), start=1)}
    sites = FlowerSites(InProcessGrid(app, nodes))
    with pytest.raises(FederationError, match="beta could not agree on the plan: policy"):
        agreed(sites, with_planning(tiny_study, edited_plan=str(path)), RunFolder(tmp_path / "run"))
    assert "policy.edited_plans: the coordinator's plan was changed" in logged(tmp_path, "beta")


def test_an_untouched_plan_given_as_edited_is_the_rules_plan(tiny_study, tmp_path: Path):
    path = edited_plan(tiny_study, tmp_path)
    config = with_planning(tiny_study, edited_plan=str(path))
    assert not agreed(
        federation(tiny_study, tmp_path, unchanged), config, RunFolder(tmp_path / "run")
    ).edited


def test_an_edited_plan_that_cannot_be_trained_stops_the_run_at_the_coordinator(
    tiny_study, tmp_path: Path
):
    path = edited_plan(tiny_study, tmp_path, patch_size=[9, 9, 9])
    config = with_planning(tiny_study, edited_plan=str(path))
    with pytest.raises(ConfigError, match="patch_size: expected multiples of"):
        agreed(federation(tiny_study, tmp_path, unchanged), config, RunFolder(tmp_path / "run"))


def test_the_federation_plans_for_its_smallest_site(tiny_study, tmp_path: Path):
    files = tiny_study.write_sites(tmp_path)
    for name, memory_gb in (("alpha", 6.0), ("beta", 0.02)):
        write_toml(files[name], replace(read_toml(SiteConfig, files[name]), memory_gb=memory_gb))
    nodes = {n: {"site": str(file)} for n, file in enumerate(files.values(), start=1)}
    folder = RunFolder(tmp_path / "run")
    made = agreed(FlowerSites(InProcessGrid(app, nodes)), tiny_study.config, folder)
    assert made.planned_for.memory_gb == 0.02
    assert "planned for 0.02 GB, the smallest site's, instead of 8 GB" in folder.events.read_text()
    unlimited = agreed(
        federation(tiny_study, tmp_path / "more", unchanged),
        tiny_study.config,
        RunFolder(tmp_path / "more" / "run"),
    )
    assert prod(configuration_of(made, "3d_fullres").patch_size) < prod(
        configuration_of(unlimited, "3d_fullres").patch_size
    )


def test_a_resumed_run_keeps_the_memory_that_it_was_planned_for(tiny_study, tmp_path: Path):
    files = tiny_study.write_sites(tmp_path)
    write_toml(files["beta"], replace(read_toml(SiteConfig, files["beta"]), memory_gb=2.0))
    nodes = {n: {"site": str(file)} for n, file in enumerate(files.values(), start=1)}
    folder = RunFolder(tmp_path / "run")
    first = agreed(FlowerSites(InProcessGrid(app, nodes)), tiny_study.config, folder)
    write_toml(files["beta"], replace(read_toml(SiteConfig, files["beta"]), memory_gb=4.0))
    again = agreed(FlowerSites(InProcessGrid(app, nodes)), tiny_study.config, folder)
    assert again.hash == first.hash


@pytest.mark.parametrize(
    ("task", "told"),
    [
        (replace(TASK, version=2), "version 2, channels t1, t1ce, t2, flair, labels 0, 1, 2, 4"),
        (
            replace(TASK, channels=TASK.channels[::-1]),
            "version 1, channels flair, t2, t1ce, t1, labels 0, 1, 2, 4",
        ),
        (
            replace(TASK, labels={**TASK.labels, "cyst": 3}),
            "version 1, channels t1, t1ce, t2, flair, labels 0, 1, 2, 3, 4",
        ),
    ],
)
def test_sites_of_different_tasks_are_refused_with_who_has_what(
    tiny_study, tmp_path: Path, task: Task, told: str
):
    folder = RunFolder(tmp_path / "run")
    sites = federation(tiny_study, tmp_path, other_task(task))
    with pytest.raises(ConfigError) as refused:
        agreed(sites, tiny_study.config, folder)
    assert str(refused.value).splitlines() == [
        "fingerprints of different tasks cannot be merged:",
        "  alpha: task brats-2021 version 1, channels t1, t1ce, t2, flair, labels 0, 1, 2, 4",
        f"  beta: task brats-2021 {told}",
        "  coordinator: task brats-2021 version 1, channels t1, t1ce, t2, flair, labels 0, 1, 2, 4",
    ]
    assert not folder.plan.exists()


def test_plan_refuses_fingerprints_of_different_tasks_on_the_command_line(run, tmp_path: Path):
    for name, task in (("a", TASK), ("b", replace(TASK, version=2))):
        write_json(tmp_path / f"{name}.json", empty(task))
    code, _, stderr = run(
        "plan", tmp_path / "a.json", tmp_path / "b.json", "-o", tmp_path / "plan.json"
    )
    assert code == 2
    shared = "channels t1, t1ce, t2, flair, labels 0, 1, 2, 4"
    assert stderr.splitlines() == [
        "consilium: fingerprints of different tasks cannot be merged:",
        f"consilium:   {tmp_path}/a.json: task brats-2021 version 1, {shared}",
        f"consilium:   {tmp_path}/b.json: task brats-2021 version 2, {shared}",
    ]
    assert not (tmp_path / "plan.json").exists()


# What a site's policy lets out


def coarse_sites(study, home: Path, min_cases: int) -> FlowerSites:
    files = study.write_sites(home)
    for path in files.values():
        text = path.read_text().replace('fingerprint = "exact"', 'fingerprint = "coarse"')
        lines = [line for line in text.splitlines() if not line.startswith("min_cases_per_bin")]
        at = lines.index('fingerprint = "coarse"') + 1
        path.write_text("\n".join([*lines[:at], f"min_cases_per_bin = {min_cases}", *lines[at:]]))
    nodes = {n: {"site": str(path)} for n, path in enumerate(files.values(), start=1)}
    return FlowerSites(InProcessGrid(app, nodes))


def test_coarse_sites_send_no_count_below_their_minimum_and_agree_on_a_plan(
    tiny_study, tmp_path: Path
):
    sites = coarse_sites(tiny_study, tmp_path, 3)
    folder = RunFolder(tmp_path / "run")
    cohort = join(sites, tiny_study.config, TASK, folder, EventLog(folder.events))
    for measured in cohort.training.values():
        for axis in measured.fingerprint.shapes_voxels:
            assert min(axis.values()) >= 3
    made = agree(sites, cohort, tiny_study.config, TASK, folder, EventLog(folder.events))
    named = {name: value.fingerprint for name, value in cohort.training.items()}
    assert plan_run(merge_all(named), tiny_study.config).hash == made.hash
    # at the site itself the counts are kept as they were measured
    kept = json.loads((tmp_path / "beta" / "state" / "fingerprint.json").read_text())
    assert min(kept["fingerprint"]["shapes_voxels"][0].values()) == 1


def test_a_site_with_too_few_cases_for_its_policy_releases_nothing(tiny_study, tmp_path: Path):
    sites = coarse_sites(tiny_study, tmp_path, 4)  # alpha has three cases, beta four
    folder = RunFolder(tmp_path / "run")
    with pytest.raises(FederationError, match="could not describe its data: policy") as stopped:
        join(sites, tiny_study.config, TASK, folder, EventLog(folder.events))
    assert len(str(stopped.value).splitlines()) == 1
    assert "expected at least 4 cases, one full bin, found 3" in logged(tmp_path, "alpha")


# The same choice on the command line


def test_fingerprint_releases_coarse_bins_and_explains_them(run, tiny_study, tmp_path: Path):
    output = tmp_path / "fingerprint.json"
    options = ("--release", "coarse", "--min-cases", 7, "--explain")
    code, stdout, _ = run("fingerprint", tiny_study.data, "-o", output, *options)
    assert code == 0
    found = read_json(Fingerprint, output)
    assert [list(axis.values()) for axis in found.shapes_voxels] == [[7], [7], [7]]
    assert "Release mode coarse: no bin of fewer than 7 cases." in stdout
    assert "spacings_ticks: z 1 value (rarest count 7)" in stdout


def test_fingerprint_refuses_a_coarse_release_of_too_few_cases(run, tiny_study, tmp_path: Path):
    output = tmp_path / "fingerprint.json"
    options = ("--release", "coarse", "--min-cases", 8)
    code, _, stderr = run("fingerprint", tiny_study.data, "-o", output, *options)
    assert code == 2
    last = stderr.splitlines()[-1]
    assert last.startswith("consilium: coarse release: expected at least 8 cases")
    assert last.endswith("found 7; nothing was released")
    assert not output.exists()


def test_fingerprint_is_exact_unless_asked(run, tiny_study, tmp_path: Path):
    output = tmp_path / "fingerprint.json"
    code, stdout, _ = run("fingerprint", tiny_study.data, "-o", output)
    assert (code, stdout) == (0, f"{output}: fingerprint of 7 cases\n")
    assert min(read_json(Fingerprint, output).shapes_voxels[0].values()) == 1


@pytest.mark.real_data
def test_the_coarse_release_of_the_hippocampus_cases_gives_the_exact_plan(
    run, shared: Path, tmp_path: Path
):
    plans = []
    for mode in ("exact", "coarse"):
        output = tmp_path / f"{mode}.json"
        data = shared / "data" / "Task04_Hippocampus"
        assert run("fingerprint", data, "-o", output, "--release", mode)[0] == 0
        assert run("plan", output, "-o", tmp_path / f"plan-{mode}.json")[0] == 0
        plans.append((tmp_path / f"plan-{mode}.json").read_bytes())
    assert plans[0] == plans[1]
