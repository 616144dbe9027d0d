"""The Dagster code location: what is put together from `assets`, and how it is run."""
