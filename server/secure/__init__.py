"""Rounds whose updates the coordinator sees only as their sum (`common.secure_round`)."""
