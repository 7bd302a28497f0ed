"""A whole federation on one machine: phantoms, partitions and an in-process carrier."""

import common  # noqa: F401 - first of all, so that no third party connects outside
