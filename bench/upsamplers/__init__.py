"""Learned joint bilateral upsamplers: SimFeatUp's JBU_One and FeatUp's JBU_Stack, their linear operator."""

from bench.upsamplers.checkpoints import load_upsampler
from bench.upsamplers.model import JBUOne, JBUStack, Upsampler, steps_for
from bench.upsamplers.scores import scores_from_operator

__all__ = [
    "JBUOne",
    "JBUStack",
    "Upsampler",
    "load_upsampler",
    "scores_from_operator",
    "steps_for",
]
