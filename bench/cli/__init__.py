"""`python -m bench …`: parse, call one function, print."""

from bench.cli.app import main

__all__ = ["main"]
