"""Scenes drawn for the demo."""
