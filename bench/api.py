"""All that a method plug-in imports.

    from bench.api import attention, last_block, method

    @method("mine", label="Mine", venue="arXiv'26")
    def mine(trunk):
        return last_block(trunk, lambda q, k, v: attention(k, k) @ v, residual=False, ffn=False)

A plug-in is a callable that takes a `Trunk` and returns `Features`. Keyword parameters with defaults become
options that a row may set (`options:` in benchmark.yaml); an option annotated `Share` lies between 0 and 1, one
annotated `Path` is a file, whose content is part of a result's identity. A parameter called `text` is no option: it
gets the (Q, C) embeddings of the words.

A plug-in that needs more is a class: it is built once per cell with its options and may offer, besides
``__call__(trunk) -> Features``,

    encode_text(backbone, vocabulary) -> Tensor      its own text side: (Q, C) of unit length, or what `scores` takes
    scores(trunk, text) -> (B, Q, h, w)              its own scores, at any resolution; no `Features` are asked for
                                                     then, and upsampler and λ cannot act; with `scale="none"` in
                                                     @method they are probabilities; with `per_class = True` in the
                                                     class there is one for each class instead of each word
    collect(image: WholeImage) -> Collector          sees all windows of an image before it gives scores: see
                                                     `methods/lposs.py`; with `whole_image = 1024` in the class
                                                     the original image, too, with that long side

A method that looks through a second model says so with ``@method(…, models={"vfm": "dino-vitb8"})`` and gets it as
``trunk.second("vfm")``; a row puts another one into the role.

An upsampler (`@upsampler`) is a subclass of `Upsampler` with `forward`; `kind:` of `upsamplers:` in benchmark.yaml, or
in a `--config` overlay, names it. A refinement (`@refinement`) works on the stitched scores of a whole image: see
`methods/pamr.py`.

Plug-ins of one folder import each other: ``from bench.methods.naclip import …`` (shipped), ``from .other import …``.
What a `Trunk` gives is shared with other methods: never change it in place.
"""

from bench.models.attention import (
    attention,
    cosine,
    gaussian,
    inverse_temperature,
    last_block,
    merge_heads,
    self_self,
)
from bench.models.backbone import Backbone, Features, Trunk
from bench.models.collector import Box, Collector, WholeImage
from bench.models.second import SecondTrunk
from bench.models.text import TEMPLATES, Vocabulary, encode_words, ensemble, remembered
from bench.models.towers.dinotxt import Dinotxt, DinotxtTrunk
from bench.models.towers.radio import Radio, RadioTrunk
from bench.models.towers.sam3 import Answer, Sam3, Sam3Trunk
from bench.models.upsamplers import Upsampler, upsampler
from bench.registry import Share, method, refinement

__all__ = [
    "TEMPLATES",
    "Answer",
    "Backbone",
    "Box",
    "Collector",
    "Dinotxt",
    "DinotxtTrunk",
    "Features",
    "Radio",
    "RadioTrunk",
    "Sam3",
    "Sam3Trunk",
    "SecondTrunk",
    "Share",
    "Trunk",
    "Upsampler",
    "Vocabulary",
    "WholeImage",
    "attention",
    "cosine",
    "encode_words",
    "ensemble",
    "gaussian",
    "inverse_temperature",
    "last_block",
    "merge_heads",
    "method",
    "refinement",
    "remembered",
    "self_self",
    "upsampler",
]
