"""What runs at a hospital: reading, preprocessing, training, prediction, evaluation."""

import common  # noqa: F401 - first of all, so that no third party connects outside
