"""What both sides run, or what crosses the wire: tasks, plans, networks, metrics, messages.

Importing it also switches off everything that third parties would send over the network. This
happens before any of them is imported, because each room imports this one first.
"""

import os

os.environ.update(
    FLWR_TELEMETRY_ENABLED="0",
    FLWR_DISABLE_UPDATE_CHECK="1",
    FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION="1",
    RAY_USAGE_STATS_ENABLED="0",
)
