"""What leaves the building: every message is written down before it is sent."""
