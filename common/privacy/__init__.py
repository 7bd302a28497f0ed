"""Differential privacy: what is promised, what a step costs, how noise follows from a target."""
