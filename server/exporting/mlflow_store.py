"""An MLflow store or server, by `mlflow-skinny`, whose telemetry is off.

There is one run for the whole federation and below it one for each method, so that MLflow compares
methods. What the store already holds is asked from it before anything is added: there is no other
record that a crash could part from it. A metric is known by its name, round and time.
"""

import logging
import os
import sqlite3
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import datetime
from ipaddress import ip_address
from pathlib import Path
from typing import TypeAlias
from urllib.parse import urlsplit

from common.console import say
from common.errors import ConfigError
from common.files import demand_writable
from server.events import RunFinished, RunStarted
from server.exporting.following import Source
from server.exporting.points import WHOLE_RUN, Point
from server.exporting.settings import settings_of
from server.exporting.sinks import Batch
from server.run_folder import RunFolder

os.environ |= {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"}  # the import reads them

from mlflow.entities import Metric, Param, RunTag
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from sqlalchemy.exc import SQLAlchemyError  # MLflow lets it through

EXPERIMENT = "consilium"
NO_ARTIFACTS = "mlflow-artifacts:/consilium"  # MLflow's own choice would be a path of this machine
MAX_METRICS, MAX_PARAMS = 1000, 100  # of one request, by MLflow's REST API
MAX_PARAM_CHARACTERS = 6000  # as above
SCHEMES = ("sqlite", "http", "https")
RETRIES = "MLFLOW_HTTP_REQUEST_MAX_RETRIES"
Known: TypeAlias = set[tuple[str, int, int]]


class MlflowStore:
    """The runs of one federation in an MLflow store."""

    def __init__(self, uri: str, run: RunFolder, source: Source) -> None:
        """Connect, and find what an earlier export of the same run wrote.

        Raises:
            ConfigError: when the store cannot be reached.
        """
        _check(uri)
        logging.getLogger("mlflow").setLevel(logging.WARNING)
        self._uri, self._run, self._source = uri, run, source
        with self._named_errors(), _few_retries():
            self._client = MlflowClient(tracking_uri=uri)
            self._experiment = self._experiment_id()
            self._ids = self._existing()
        self._known: dict[str, Known] = {}

    def take(self, batch: Batch) -> None:
        """Log the points that the store does not hold yet, and whether the run is finished."""
        with self._named_errors():
            points: dict[str, list[Point]] = defaultdict(list)
            for point in batch.points:
                points[point.method].append(point)
            for method, new in points.items():
                self._log(method, new)
            for time, event in batch.events:
                if isinstance(event, RunStarted):
                    self._began(event)
                elif isinstance(event, RunFinished):
                    self._finished(time)

    def close(self) -> None:
        """Do nothing: every request was answered."""

    def _log(self, method: str, points: Sequence[Point]) -> None:
        run_id, known = self._run_id(method), self._known[method]
        new = {(p.name, p.step, _milliseconds(p.time)): p.value for p in points}
        metrics = [
            Metric(name, value, time_ms, step)
            for (name, step, time_ms), value in new.items()
            if (name, step, time_ms) not in known
        ]
        for start in range(0, len(metrics), MAX_METRICS):
            part = metrics[start : start + MAX_METRICS]
            self._client.log_batch(run_id, metrics=part, synchronous=True)
        known.update(new)

    def _began(self, event: RunStarted) -> None:
        """Say what runs; a finished run that is resumed runs again."""
        facts = {"task": event.task, "device": event.device}
        facts |= {f"version.{package}": version for package, version in event.versions.items()}
        tags = [RunTag(f"consilium.{name}", value) for name, value in facts.items()]
        self._client.log_batch(self._run_id(WHOLE_RUN), tags=tags, synchronous=True)
        for method in self._ids:
            self._client.update_run(self._run_id(method), status="RUNNING")

    def _finished(self, time: datetime) -> None:
        for method in self._ids:
            self._client.set_terminated(
                self._run_id(method), status="FINISHED", end_time=_milliseconds(time)
            )

    def _run_id(self, method: str) -> str:
        """Return the run of a method, or the whole one; what it holds is known from then on."""
        if method not in self._ids:
            self._ids[method] = self._created(method)
        run_id = self._ids[method]
        if method not in self._known:
            run = self._client.get_run(run_id)
            self._known[method] = {
                (name, metric.step, metric.timestamp)
                for name in run.data.metrics
                for metric in self._client.get_metric_history(run_id, name)
            }
            self._log_settings(run_id, set(run.data.params))
        return run_id

    def _log_settings(self, run_id: str, present: set[str]) -> None:
        """Log the settings that are not there; MLflow lets none be changed."""
        params = [
            Param(name, str(value)[:MAX_PARAM_CHARACTERS])
            for name, value in settings_of(self._run.config).items()
            if name not in present
        ]
        for start in range(0, len(params), MAX_PARAMS):
            part = params[start : start + MAX_PARAMS]
            self._client.log_batch(run_id, params=part, synchronous=True)

    def _created(self, method: str) -> str:
        tags = {
            "consilium.run": self._source.run,
            "consilium.started": self._source.started.isoformat(),
        }
        if method != WHOLE_RUN:
            tags |= {"consilium.method": method, "mlflow.parentRunId": self._run_id(WHOLE_RUN)}
        name = f"{self._source.run}/{method}" if method else self._source.run
        began = _milliseconds(self._source.started)
        made = self._client.create_run(self._experiment, began, tags, run_name=name)
        return str(made.info.run_id)

    def _existing(self) -> dict[str, str]:
        """Return the runs of this federation by method."""
        started = self._source.started.isoformat()
        found = self._client.search_runs(
            [self._experiment], filter_string=f"tags.`consilium.started` = '{started}'"
        )
        return {
            run.data.tags.get("consilium.method", WHOLE_RUN): run.info.run_id
            for run in found
            if run.data.tags.get("consilium.run") == self._source.run
        }

    def _experiment_id(self) -> str:
        found = self._client.get_experiment_by_name(EXPERIMENT)
        if found is not None:
            return str(found.experiment_id)
        location = NO_ARTIFACTS if self._uri.startswith("sqlite:") else None
        return str(self._client.create_experiment(EXPERIMENT, artifact_location=location))

    @contextmanager
    def _named_errors(self) -> Iterator[None]:
        """Turn what MLflow raises into one line."""
        try:
            yield
        except (MlflowException, SQLAlchemyError) as error:
            reason = str(error).splitlines()[0]
            raise ConfigError(
                f"--mlflow: expected an MLflow store or server that answers, found {reason}"
            ) from None


def _check(uri: str) -> None:
    """Demand an address that MLflow takes, and say when it is another machine's."""
    address = urlsplit(uri)
    if address.scheme not in SCHEMES or not (address.netloc or address.path.strip("/")):
        raise ConfigError(
            f"--mlflow: expected sqlite:///FILE.db, http://HOST:PORT or https://HOST, found {uri}; "
            "MLflow no longer takes folders"
        )
    if address.scheme == "sqlite":
        _check_database(Path(address.path.removeprefix("/")))
    elif not _is_loopback(address.hostname or ""):
        say(f"numbers and settings of the run go to {address.hostname}")


def _check_database(path: Path) -> None:
    """Demand a database that can be written; MLflow would try for minutes."""
    demand_writable(path)
    try:
        with closing(sqlite3.connect(path)) as database:
            database.execute("BEGIN IMMEDIATE")
    except sqlite3.Error as error:
        raise ConfigError(
            f"--mlflow: {path}: expected a database that can be written, found {error}"
        ) from None


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


@contextmanager
def _few_retries() -> Iterator[None]:
    """Have MLflow tell of a wrong address at once; later it waits minutes for a server."""
    before = os.environ.get(RETRIES)
    os.environ[RETRIES] = before or "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[RETRIES]


def _milliseconds(time: datetime) -> int:
    return round(time.timestamp() * 1000)
