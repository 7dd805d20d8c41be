"""Upsamplers whose every term matters, and the shapes to try them on."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.models.upsamplers import BilateralUpsampler, JBUOne, JBUStack, Upsampler

KINDS: dict[str, Callable[..., BilateralUpsampler]] = {"jbu_one": JBUOne, "jbu_stack": JBUStack}
Kind = TypeVar("Kind", bound=Upsampler)


def for_small_shapes(test: Callable[..., None]) -> Callable[..., None]:
    """Patches on grids of all small shapes, one step or two, kernels of all radii, some images at once."""
    shapes = {"height": st.integers(3, 8), "width": st.integers(3, 8), "steps": st.integers(1, 2)}
    given_shapes = given(**shapes, radius=st.integers(1, 5), batch=st.integers(1, 3))
    return settings(max_examples=25)(given_shapes(test))


def lively(upsampler: Kind) -> Kind:
    """Weights such that every term matters."""
    with torch.no_grad():
        for parameter in upsampler.parameters():
            if parameter.dim() == 0:  # temperature and sigma
                parameter.copy_(0.8 + 0.2 * torch.rand(()))
            else:
                scale = parameter[0].numel() ** -0.5 if parameter.dim() > 1 else 0.1
                parameter.copy_(scale * torch.randn_like(parameter))
    return upsampler.eval()
