"""Count what a run asks of a GPU, without one: kernels, arithmetic and bytes of memory, an image and stage.

    python -m tools.gpu_counts --sizes 448x448,3000x4000 --images 4 --batch 36

All rows go through the code of a run on the pretended GPU, on noise and with random weights; it computes on the CPU, so
a size takes a minute. An operation that is no view counts as one kernel, and its bytes as those of the tensors that it
reads and writes, each once (of an `index_select` the whole source); a library may take several kernels for one.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from pytest import MonkeyPatch
from tabulate import tabulate
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from bench.cli.options import write_json
from bench.config import load_config
from bench.data.images import at_sizes
from bench.data.loader import Loaded
from bench.evaluation.loop import Scoring, evaluate
from bench.evaluation.speed import Bench, Case, regions
from bench.inference.segmenter import Segmenter
from bench.registry import load_methods
from bench.runtime.device import choose_device
from bench.runtime.timing import Stopwatch
from bench.spec import RunSpec
from tools.pretended_cuda import pretended_cuda

COLUMNS = ("launches", "GFLOP", "GB")

_NO_KERNEL = {"empty", "empty_like", "empty_strided", "new_empty", "detach", "alias", "lift_fresh", "set_"}
_NO_KERNEL |= {"_unsafe_view", "_reshape_alias", "_local_scalar_dense", "is_pinned", "resize_"}
_WRITE_ONLY = {"copy_", "fill_", "zero_"}
_PARTS = {"matmul", "linear", "einsum", "conv2d", "pad", "reshape", "flatten", "layer_norm", "to", "contiguous"}


class Counter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts what runs while it is entered.

    total (3,): of `COLUMNS`, but FLOP and bytes.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.total = np.zeros(3)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, name = kwargs or {}, func._schema.name.split("::")[1]
        if name in _PARTS:  # in inference mode they arrive whole
            with self:
                found = func.decompose(*args, **kwargs)
            if found is not NotImplemented:
                return found
        out = func(*args, **kwargs)
        aliases = [one.alias_info for one in func._schema.returns if one.alias_info is not None]
        if all(one.is_write for one in aliases) and name not in _NO_KERNEL:
            self.total += 1, _flop(func, args, kwargs, out), _bytes(name, bool(aliases), args, kwargs, out)
        return out


def counted(segmenters: Sequence[Segmenter], images: Sequence[Loaded], classes: int) -> dict[str, np.ndarray]:
    """Return the `Counter.total` of each stage, and of "all", for all rows on the images."""
    pending = {row.name: {image.index for image in images} for one in segmenters for row in one.rows}
    counter = Counter()
    clock: Callable[[], Any] = lambda: counter.total.copy()  # noqa: E731
    with Stopwatch(clock) as watch, counter:
        outcomes = list(evaluate(segmenters, images, pending, Scoring(classes)))
    assert not any(one.image.error for one in outcomes), next(one.image.error for one in outcomes if one.image.error)
    stages: dict[str, Any] = dict(watch.seconds)
    return stages | {"other": counter.total - sum(stages.values()), "all": counter.total}


def _flop(func: Any, args: Any, kwargs: Any, out: Any) -> float:
    """Of matrix products and attention, a multiplication and an addition being two; nothing for the rest."""
    count = flop_registry.get(func._overloadpacket)
    if count is not None:
        return float(count(*args, **kwargs, out_val=out))
    tensors, name = [one for one in args if isinstance(one, Tensor)], func._schema.name
    if name in ("aten::addmm_", "aten::baddbmm_"):
        return 2 * tensors[1].numel() * tensors[2].shape[-1]
    if "scaled_dot_product" in name:
        batch, heads, tokens, width = tensors[0].shape
        return 4 * batch * heads * tokens**2 * width
    return 0


def _bytes(name: str, in_place: bool, args: Any, kwargs: Any, out: Any) -> int:
    places, template = {}, name.startswith("new_") or name.endswith("_like")
    for one in tree_leaves(out if template else (args, kwargs, out)):
        if isinstance(one, Tensor):
            places[one.data_ptr(), tuple(one.shape), one.stride()] = _size(one)
    also_read = in_place and name not in _WRITE_ONLY and "out" not in kwargs
    return sum(places.values()) + (_size(out) if also_read else 0)


def _size(tensor: Tensor) -> int:
    """Bytes of a tensor, what is repeated counted once."""
    count = 1
    for size, stride in zip(tensor.shape, tensor.stride(), strict=True):
        count *= size if stride else 1
    return min(count * tensor.element_size(), tensor.untyped_storage().nbytes())


def _loaded(case: Case, segmenters: Sequence[Segmenter], count: int) -> list[Loaded]:
    random = np.random.default_rng(0)
    image = random.integers(0, 256, (case.height, case.width, 3), dtype=np.uint8)
    label = regions(case.height, case.width, case.queries)
    sizes = at_sizes(image, {size for one in segmenters for size in one.sizes})
    return [Loaded(index, str(index), label, sizes) for index in range(count)]


def main() -> None:
    """Print a table for each size."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--sizes", default="448x448,3000x4000", metavar="HxW,…")
    parser.add_argument("--queries", type=int, default=9, metavar="N")
    parser.add_argument("--images", type=int, default=4, metavar="N", help="that follow each other (4)")
    parser.add_argument("--batch", type=int, default=36, metavar="N", help="windows at once (36)")
    parser.add_argument("--dtype", default="fp32", choices=["fp32", "tf32", "fp16", "bf16"])
    parser.add_argument("--model", default="ViT-B-16-quickgelu")
    parser.add_argument("--json", metavar="FILE")
    asked = parser.parse_args()
    record = {}
    with MonkeyPatch.context() as patch, pretended_cuda(patch):
        config, methods = load_config(None), load_methods()
        device = choose_device("cuda", asked.dtype)
        bench = Bench(config, methods, asked.model, device, asked.dtype, asked.batch)
        for size in asked.sizes.split(","):
            height, width = map(int, size.split("x"))
            case = Case(height, width, asked.queries, tuple(RunSpec(methods=["all"]).rows))
            segmenters = bench.segmenters(case)
            images = _loaded(case, segmenters, asked.images)
            counted(segmenters, images[:1], case.queries)  # fills the caches, and looks at each method once
            found = counted(segmenters, images, case.queries)
            record[size] = {stage: (one / asked.images / (1, 1e9, 1e9)).tolist() for stage, one in found.items()}
            lines = [[stage, *values] for stage, values in record[size].items()]
            print(tabulate(lines, headers=[size, *COLUMNS], floatfmt=("", ".0f", ".1f", ".2f")), "\n", flush=True)
    write_json(asked.json, record)


if __name__ == "__main__":
    main()
