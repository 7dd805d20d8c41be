"""The shipped plug-ins: methods/sclip.py is `bench.registry.sclip` from a checkout, an editable install and a wheel."""

from bench.paths import shipped

__path__ = [str(shipped("methods"))]
