"""Patient-level differential privacy at a site: the mechanism, and what it has cost so far."""
