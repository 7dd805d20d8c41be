"""CLIP (Radford et al., ICML 2021) read densely: the patch tokens of the last block, with nothing changed.

Paper, eq. 1 and 2. Row "CLIP" of Tables 1 and 2. Residual and FFN are kept: without them it would not be
CLIP.
"""

from bench.api import Features, Trunk, method


@method("clip", label="CLIP", venue="ICML'21")
def clip(trunk: Trunk) -> Features:
    return trunk.project(trunk.input(trunk.depth))
