"""The methods of a run as a paper would print them: sentences made from configuration and plan."""
