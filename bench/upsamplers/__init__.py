"""Learned joint bilateral upsamplers: SimFeatUp's JBU_One and FeatUp's JBU_Stack, their linear operator."""

from bench.upsamplers.checkpoints import load_upsampler
from bench.upsamplers.model import JBUOne, JBUStack, Upsampler, steps_for
from bench.upsamplers.scores import Ask, PixelScores, upsampled_scores

__all__ = [
    "Ask",
    "JBUOne",
    "JBUStack",
    "PixelScores",
    "Upsampler",
    "load_upsampler",
    "steps_for",
    "upsampled_scores",
]
