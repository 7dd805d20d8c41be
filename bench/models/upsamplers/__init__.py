"""Upsamplers: SimFeatUp's JBU_One, FeatUp's JBU_Stack, their linear operator; NAF, AnyUp, JAFAR, LoftUp; plain ones."""

from bench.models.upsamplers.attending import AnyUp, Jafar
from bench.models.upsamplers.base import KINDS, ScoreRequest, Upsampler, find_kind, kind_file, load_upsampler, upsampler
from bench.models.upsamplers.bilateral import BilateralUpsampler, JBUOne, JBUStack, steps_for
from bench.models.upsamplers.loftup import LoftUp
from bench.models.upsamplers.logits import PixelScores, upsampled_scores
from bench.models.upsamplers.naf import Naf
from bench.models.upsamplers.plain import Bilinear, Nearest

__all__ = [
    "KINDS",
    "AnyUp",
    "BilateralUpsampler",
    "Bilinear",
    "JBUOne",
    "JBUStack",
    "Jafar",
    "LoftUp",
    "Naf",
    "Nearest",
    "PixelScores",
    "ScoreRequest",
    "Upsampler",
    "find_kind",
    "kind_file",
    "load_upsampler",
    "steps_for",
    "upsampled_scores",
    "upsampler",
]
