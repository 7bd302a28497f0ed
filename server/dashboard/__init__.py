"""The live page of the runs: what is read of them, and how it is shown."""
