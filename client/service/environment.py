"""What every process of a site's service sets before Flower is imported."""

import os

from client.service.files import ServiceFiles

QUIET = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "0.2",  # seconds, on this machine only
    "PYTORCH_NVML_BASED_CUDA_CHECK": "1",  # asking for a card must not take it: we fork later
}
"""Nothing is reported to anybody, and nothing is installed."""


def environment(files: ServiceFiles) -> dict[str, str]:
    """Return the environment of a process of the service."""
    return {**os.environ, **QUIET, "FLWR_HOME": str(files.flower_home)}


def prepare(files: ServiceFiles) -> None:
    """Set this process's own environment; Flower must not have been imported yet."""
    os.environ.update(environment(files))
