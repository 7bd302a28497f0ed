"""What runs at the coordinator: the experiment, aggregation, checkpoints, report."""
