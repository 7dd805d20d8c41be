"""The embedded default: rendered aerial scenes, small copies of all datasets, and a tiny CLIP and its
upsamplers trained on such scenes.

A test bed that needs no download. What it measures is never evidence about methods.
"""
