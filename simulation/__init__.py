"""A whole federation on one machine: phantoms, partitions and an in-process carrier."""
