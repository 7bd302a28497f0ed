"""The Flower side of the coordinator: run the experiment over Flower's grid."""

from pathlib import Path

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from common.codec import read_toml
from common.config import RunConfig
from common.task import Task
from server.event_log import EventLog
from server.flower_sites import FlowerSites
from server.node_names import registered_names
from server.planning.cohort import Changes
from server.reporting.report import write_report
from server.run import run
from server.run_folder import RunFolder

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run, or resume, the experiment whose folder the run configuration names.

    The folder holds config.toml and task.toml; Flower's run configuration cannot hold lists.
    `admit` and `without` name sites, with commas, that come to a resumed run or leave it for ever.
    """
    folder = RunFolder(Path(str(context.run_config["run-dir"])))
    folder.check_name()
    config, task = read_toml(RunConfig, folder.config), read_toml(Task, folder.task)
    log = EventLog(folder.events)
    changes = Changes(admit=_names(context, "admit"), without=_names(context, "without"))
    sites = FlowerSites(grid, names=registered_names)
    run(config, task, sites, folder, log, device="chosen by each site", changes=changes)
    write_report(folder.path)


def _names(context: Context, key: str) -> tuple[str, ...]:
    """Return the names that stand under a key of the run configuration."""
    named = str(context.run_config.get(key, ""))
    return tuple(name.strip() for name in named.split(",") if name.strip())
