"""What both sides run, or what crosses the wire: tasks, plans, networks, metrics, messages."""
