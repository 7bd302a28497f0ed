"""Before the first round: who is there, and one plan for all, explained."""
