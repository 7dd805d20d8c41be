"""The embedded default: rendered aerial scenes, small copies of all 17 datasets, and a tiny CLIP trained on
such scenes.

A test bed that needs no download. What it measures is never evidence about methods.
"""
