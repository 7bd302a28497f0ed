"""A federation on one machine: partition a data set, make the sites' files, run the experiment.

Nothing here trains, aggregates or scores: the sites run the same ClientApp as a hospital does.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from client.app import app
from client.chain.appending import head_file
from client.dataset.guess import task_of
from client.dataset.inspection import inspect_folder
from client.device import choose_device, describe
from client.policy import Policy
from client.privacy.ledger import open_ledger
from client.site import SiteConfig
from common.codec import read_json, read_toml, write_toml
from common.config import Folds, RunConfig, Simulation
from common.errors import ConfigError, DataError
from common.planning.plan import Plan, configuration_of
from common.privacy.accounting import epsilon_of
from common.privacy.run_cost import allowed_steps, noise_of, noisy_steps
from common.task import Task
from server.event_log import EventLog
from server.events import Event, Note, RoundFinished
from server.flower_sites import FlowerSites
from server.planning.cohort import Changes
from server.run import run
from server.run_folder import RunFolder
from simulation.clock import RealWorldTimes, SimulatedClock, speeds_of
from simulation.grid import InProcessGrid
from simulation.partition import Partition, by_dirichlet, by_folds, by_sizes, check_cases, from_csv
from simulation.timed_grid import TimedGrid

OPEN_POLICY = Policy(  # one's own data
    metrics="cases", validation_means=True, pictures=True, fingerprint="exact", edited_plans=True
)


@dataclass(frozen=True)
class Study:
    """What a simulation starts from."""

    config: RunConfig
    """With whole paths, so that the copy in the run directory can be run again."""
    task: Task
    data: Path
    """Folder with the data set."""


def load_study(path: Path, data: Path | None, fold: int | None = None) -> Study:
    """Read a configuration; its relative paths refer to its own folder.

    Args:
        path: of the configuration.
        data: folder with the data set; None takes the configuration's.
        fold: to hold out instead of the configuration's.

    Raises:
        ConfigError: for a malformed configuration, an unknown task, no data folder, or a fold of a
            configuration without folds.
    """
    config, base = read_toml(RunConfig, path), path.resolve().parent
    wanted = config.simulation
    if wanted is None:
        raise ConfigError(f"{path}: simulation: missing; it says how the data becomes sites")
    if data is None and wanted.data is None:
        raise ConfigError("--data: expected the data folder, here or as simulation.data")
    folder = data.resolve() if data is not None else base / str(wanted.data)
    csv = str(base / wanted.csv) if wanted.csv is not None else None
    times = str(base / wanted.times) if wanted.times is not None else None
    task = str(base / config.task) if config.task.endswith(".toml") else config.task
    folds = _holding_out(wanted, fold)
    simulation = replace(wanted, csv=csv, data=str(folder), folds=folds, times=times)
    chosen = task_of(folder, task)
    config.check_task(chosen)
    edited = config.planning.edited_plan
    planning = replace(config.planning, edited_plan=str(base / edited) if edited else None)
    model = config.model.with_runs(lambda _, run: str(base / run))
    resolved = replace(config, task=task, simulation=simulation, planning=planning, model=model)
    return Study(resolved, chosen, folder)


def simulate(
    study: Study,
    folder: RunFolder,
    log: EventLog,
    progress: Callable[[int, int], None] | None = None,
    without: tuple[str, ...] = (),
) -> None:
    """Run, or resume, a whole federation in this process.

    Args:
        study: what is run.
        folder: where everything is written.
        log: of the run's events.
        progress: is told how many cases of how many were looked at.
        without: training sites that leave a resumed run for ever.

    Raises:
        DataError: with every defect of every case, before anything is written.
        ConfigError: when partition and data, or held-out sites and partition, do not fit.
    """
    found = inspect_folder(study.data, study.task, progress=progress)
    if found.defects:
        raise DataError(f"{study.data}: defects: {len(found.defects)}", found.defects)
    partition = partition_of(study, tuple(case.name for case in found.cases))
    check_roles(study.config, partition)
    n_unused = len(found.cases) - sum(map(len, partition.sites.values()))
    if n_unused:
        log.append(Note(text=f"{n_unused} cases of the data set belong to no site"))
    site_files = write_sites(study, partition, folder)
    there = [path for path in site_files if path.parent.name not in without]
    nodes = {number: {"site": str(path)} for number, path in enumerate(there, start=1)}
    sites, log = _carried(study, nodes, folder, log)
    device = describe(choose_device(study.config.training.precision))
    changes = Changes(without=without)
    run(study.config, study.task, sites, folder, log, device=device, changes=changes)


def _carried(
    study: Study, nodes: dict[int, dict[str, str]], folder: RunFolder, log: EventLog
) -> tuple[FlowerSites, EventLog]:
    """Return the sites in this process and the log; with times of institutions, by their clock."""
    wanted = study.config.simulation
    if wanted is None or wanted.times is None:
        return FlowerSites(InProcessGrid(app, nodes)), log
    clock, federation = SimulatedClock(), study.config.federation
    names = {node: Path(files["site"]).parent.name for node, files in nodes.items()}
    times = read_json(RealWorldTimes, Path(wanted.times))
    speeds = speeds_of(times, tuple(names.values()), federation.seed)

    def n_trained(n_cases: int) -> int:
        plan = read_json(Plan, folder.plan)
        batch_size = configuration_of(plan, study.config.model.configuration).batch_size
        return federation.steps_per_round(n_cases, batch_size) * batch_size

    def complete(event: Event) -> Event:
        if isinstance(event, RoundFinished):
            return replace(event, simulated_s=clock.end_round())
        return event

    by_node = {node: (name, speeds[name]) for node, name in names.items()}
    grid = TimedGrid(app, nodes, clock, by_node, n_trained, federation.seed)
    return FlowerSites(grid, clock), log.completed_by(complete)


def partition_of(study: Study, cases: tuple[str, ...]) -> Partition:
    """Divide the cases among the sites as the configuration says.

    Raises:
        ConfigError: when there is no partition, or it does not fit the cases.
    """
    wanted = study.config.simulation
    if wanted is None:
        raise ConfigError("simulation: missing; a simulation needs [simulation] with a partition")
    partition = _partition(wanted, study, cases)
    check_cases(partition, cases)
    return partition


def check_roles(config: RunConfig, partition: Partition) -> None:
    """Demand that held-out sites exist and that enough others are left to train.

    Raises:
        ConfigError: with one line per defect.
    """
    sites, held_out = set(partition.sites), set(config.federation.held_out)
    defects = [
        f"federation.held_out: {name!r} is no site; expected one of {', '.join(sorted(sites))}"
        for name in sorted(held_out - sites)
    ]
    if not sites - held_out:
        defects.append("federation.held_out: expected some site to train, found all held out")
    elif len(sites - held_out) < config.federation.min_sites:
        defects.append(
            f"federation.min_sites: expected at most {len(sites - held_out)}, the number of "
            f"training sites, found {config.federation.min_sites}"
        )
    if defects:
        raise ConfigError("\n".join(defects))


def write_sites(study: Study, partition: Partition, folder: RunFolder) -> list[Path]:
    """Write one site file per site, as each hospital would; return them in name order.

    Where the run is private, the ledgers of the training sites are opened as well, with a budget
    that the run fits into: it is one's own data. A hospital's ledger is opened by a person there.
    """
    paths = []
    for name, cases in sorted(partition.sites.items()):
        home = folder.path / "sites" / name
        site = SiteConfig(
            name=name,
            data=str(study.data.resolve()),
            state=str((home / "state").resolve()),
            policy=OPEN_POLICY,
            cases=cases,
        )
        write_toml(home / "site.toml", site)
        paths.append(home / "site.toml")
        if name not in study.config.federation.held_out:
            _open_ledger(site, study.config)
    return paths


def _open_ledger(site: SiteConfig, config: RunConfig) -> None:
    """Open a site's privacy ledger for a run of one's own, unless it is open already."""
    privacy, path = config.privacy, site.privacy_ledger_file
    if privacy is None or path.exists() or head_file(path).exists():
        return
    epsilon = privacy.epsilon
    if epsilon is None:  # rounds may be repeated
        steps = noisy_steps(config, noise_of(config), 2 * allowed_steps(config))
        epsilon = epsilon_of((steps,), privacy.delta)
    open_ledger(path, epsilon, privacy.delta, data_set=f"simulated site {site.name}")


def _partition(wanted: Simulation, study: Study, cases: tuple[str, ...]) -> Partition:
    seed = study.config.federation.seed
    if wanted.csv is not None:
        return from_csv(Path(wanted.csv))
    if wanted.sizes is not None:
        return by_sizes(cases, wanted.sizes, seed)
    if wanted.dirichlet is not None:
        return by_dirichlet(cases, wanted.dirichlet.n_sites, wanted.dirichlet.alpha, seed)
    if wanted.folds is not None:
        return by_folds(cases, wanted.folds.n, wanted.folds.held_out)
    raise ConfigError("simulation: expected one of sizes, csv, dirichlet and folds")


def _holding_out(wanted: Simulation, fold: int | None) -> Folds | None:
    if fold is None or wanted.folds is None:
        if fold is not None:
            raise ConfigError(
                "--fold: expected [simulation.folds] in the configuration, found none"
            )
        return wanted.folds
    return replace(wanted.folds, held_out=fold)
