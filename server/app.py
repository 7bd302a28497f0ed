"""The Flower side of the coordinator: run the experiment over Flower's grid."""

from pathlib import Path

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from common.codec import read_toml
from common.config import RunConfig
from common.task import Task
from server.events import EventLog
from server.flower_sites import FlowerSites
from server.reporting.report import write_report
from server.run import run
from server.run_folder import RunFolder

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run, or resume, the experiment whose folder the run configuration names.

    The folder holds config.toml and task.toml; Flower's run configuration cannot hold lists.
    """
    folder = RunFolder(Path(str(context.run_config["run-dir"])))
    folder.check_name()
    config, task = read_toml(RunConfig, folder.config), read_toml(Task, folder.task)
    log = EventLog(folder.events)
    run(config, task, FlowerSites(grid), folder, log, device="chosen by each site")
    write_report(folder.path)
