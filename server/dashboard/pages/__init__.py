"""The pages of the dashboard: what stands where, drawn from the records in `views`."""
