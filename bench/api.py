"""All that a method plug-in imports.

    from bench.api import attention, last_block, method

    @method("mine", label="Mine", venue="arXiv'26")
    def mine(trunk):
        return last_block(trunk, lambda q, k, v: attention(k, k) @ v, residual=False, ffn=False)

A plug-in is a callable that takes a `Trunk` and returns `Features`. Keyword parameters with defaults become
options that a row may set (`options:` in benchmark.yaml). A plug-in that needs more is a class: it is built
once a run with its options and may offer, besides ``__call__(trunk) -> Features``,

    encode_text(backbone, vocabulary) -> (Q, C)      its own text side, unit length, one row a query
    scores(trunk, text) -> (B, Q, H, W)              its own scores at the window's resolution; no `Features`
    are asked for then
"""

from bench.models.attention import attention, inverse_temperature, last_block, merge_heads, self_self
from bench.models.backbone import Backbone, Features, Trunk
from bench.models.text import Vocabulary, ensemble
from bench.registry import method

__all__ = [
    "Backbone",
    "Features",
    "Trunk",
    "Vocabulary",
    "attention",
    "ensemble",
    "inverse_temperature",
    "last_block",
    "merge_heads",
    "method",
    "self_self",
]
