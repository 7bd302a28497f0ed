"""What runs at a hospital: reading, preprocessing, training, prediction, evaluation."""

import os

import common  # noqa: F401 - first of all, so that no third party connects outside

# Whatever it is told otherwise, blosc2 starts a thread per core for each array, and in two
# processes at once compression then takes three times as long; it looks here every time.
os.environ.setdefault("BLOSC_NTHREADS", "1")
