"""Programs for those who work on the benchmark itself; they are not part of the package that users install."""
