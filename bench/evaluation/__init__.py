"""A run: what is due, one pass over each dataset, what it costs."""
