"""Learned joint bilateral upsamplers: SimFeatUp's JBU_One and FeatUp's JBU_Stack, their linear operator."""

from bench.models.upsamplers.loading import load_upsampler
from bench.models.upsamplers.scores import Ask, PixelScores, upsampled_scores
from bench.models.upsamplers.upsampler import JBUOne, JBUStack, Upsampler, steps_for

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
