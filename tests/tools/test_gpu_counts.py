"""What counts as a kernel, and how much arithmetic and memory is its."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from tools.gpu_counts import Counter

M, K, N = 3, 5, 7
SIZE = 4 * (M * K + K * N + M * N)


@pytest.mark.parametrize(
    ("work", "total"),
    [
        (lambda a, b: a @ b, (1, 2 * M * K * N, SIZE)),
        (lambda a, b: torch.bmm(a[None], b[None]), (1, 2 * M * K * N, SIZE)),
        (lambda a, b: torch.zeros(M, N).addmm_(a, b), (2, 2 * M * K * N, SIZE + 4 * 2 * M * N)),
        (lambda a, b: a.mT.unflatten(0, (1, -1)).expand(2, -1, -1), (0, 0, 0)),
        (lambda a, b: a.T.contiguous() + a[:, :1].expand(M, K).T, (2, 0, 4 * (4 * M * K + M))),
        (lambda a, b: a.add_(1), (1, 0, 4 * 2 * M * K)),
        (lambda a, b: a.copy_(a.new_zeros(()).expand(M, K)), (2, 0, 4 * (M * K + 2))),
    ],
    ids=["product", "batch of products", "in place", "views", "copy of a view", "read and written", "repeated value"],
)
def test_counts(work: Callable[[Tensor, Tensor], Tensor], total: tuple[int, int, int]) -> None:
    a, b = torch.ones(M, K), torch.ones(K, N)
    with torch.inference_mode(), Counter() as counter:
        work(a, b)
    assert tuple(counter.total) == total
