"""Reports and rankings as pages, words and plots, from a run's files and nothing else."""
