"""From fingerprints to the plan: the published rules, as data and as pure functions."""
