"""Learned joint bilateral upsamplers: SimFeatUp's JBU_One and FeatUp's JBU_Stack, their linear operator."""

from bench.models.upsamplers.loading import load_upsampler
from bench.models.upsamplers.logits import PixelScores, ScoreRequest, upsampled_scores
from bench.models.upsamplers.upsampler import JBUOne, JBUStack, Upsampler, steps_for

__all__ = [
    "JBUOne",
    "JBUStack",
    "PixelScores",
    "ScoreRequest",
    "Upsampler",
    "load_upsampler",
    "steps_for",
    "upsampled_scores",
]
