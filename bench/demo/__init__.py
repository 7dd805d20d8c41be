"""The embedded demo: rendered aerial scenes as small copies of all datasets, a tiny CLIP and its upsamplers.

A test bed that needs no download. What it measures is never evidence about methods.
"""
