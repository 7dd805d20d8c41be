from __future__ import annotations

import open_clip
import pytest
import torch
from torch import Tensor, nn

from bench.models.block import Block, lower_precision


def transformer_block(activation: type[nn.Module] = nn.GELU, scale: float | None = None) -> nn.Module:
    torch.manual_seed(0)
    block = open_clip.transformer.ResidualAttentionBlock(32, 4, act_layer=activation, ls_init_value=scale)
    for parameter in block.parameters():
        nn.init.normal_(parameter, std=0.3)
    return block.eval().requires_grad_(False)


def computed(block: nn.Module, tokens: Tensor) -> Tensor:
    fast = Block(block)
    with torch.inference_mode():
        return fast(tokens, fast.qkv(tokens))


@pytest.mark.parametrize("scale", [None, 0.5])
@pytest.mark.parametrize("activation", [nn.GELU, open_clip.transformer.QuickGELU, nn.SiLU])
def test_a_block_is_open_clips(activation: type[nn.Module], scale: float | None) -> None:
    block, tokens = transformer_block(activation, scale), torch.randn(3, 11, 32)
    torch.testing.assert_close(computed(block, tokens), block(tokens), atol=1e-5, rtol=1e-5)


def test_quick_gelu_is_as_exact_as_in_separate_passes() -> None:
    block, tokens = transformer_block(open_clip.transformer.QuickGELU), torch.randn(3, 11, 32)
    found, passes = computed(block, tokens).double(), block(tokens).double()
    exact = block.double()(tokens.double())
    assert (found - exact).abs().max() < 3 * (passes - exact).abs().max() < 1e-4


def test_lower_precision_is_of_the_products_of_all_blocks_but_the_last() -> None:
    tower = nn.Module()
    tower.transformer = nn.Module()
    tower.transformer.resblocks = nn.ModuleList([transformer_block(), transformer_block()])
    lower_precision(tower, torch.bfloat16)
    lowered, last = tower.transformer.resblocks
    dtypes = {name: value.dtype for name, value in lowered.state_dict().items()}
    assert {dtype for name, dtype in dtypes.items() if name.startswith("ln_")} == {torch.float32}
    assert {dtype for name, dtype in dtypes.items() if not name.startswith("ln_")} == {torch.bfloat16}
    assert {value.dtype for value in last.state_dict().values()} == {torch.float32}
    tokens = torch.randn(2, 7, 32)
    out = computed(lowered, tokens)
    assert out.dtype == torch.float32
    torch.testing.assert_close(out, transformer_block()(tokens), atol=0.3, rtol=0.05)
    assert not torch.equal(out, computed(last, tokens))


def test_what_is_asked_of_is_left_as_it_was() -> None:
    block, tokens = transformer_block(), torch.randn(1, 5, 32)
    before = tokens.clone()
    weights = {name: value.clone() for name, value in block.state_dict().items()}
    computed(block, tokens)
    assert torch.equal(tokens, before)
    assert all(torch.equal(value, weights[name]) for name, value in block.state_dict().items())
