"""What runs at the coordinator: the experiment, aggregation, checkpoints, report."""

import common  # noqa: F401 - first of all, so that no third party connects outside
