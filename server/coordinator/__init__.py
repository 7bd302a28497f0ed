"""The coordinator as a service: gate, SuperLink, executor, runs, and their status."""
