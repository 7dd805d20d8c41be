"""Results to tables."""
