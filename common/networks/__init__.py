"""The networks by name: one file per family, and `common.networks.table` from name to builder."""
