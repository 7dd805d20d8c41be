"""Reading weights from files, and loading them strictly."""

from __future__ import annotations

import hashlib
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from bench.errors import BenchError
from bench.models.torchscript import is_torchscript, torchscript_state

# All that torch.load and safetensors were seen to raise at files that are no checkpoints.
_UNREADABLE = (
    SafetensorError,
    pickle.UnpicklingError,
    RuntimeError,
    EOFError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    ArithmeticError,
    OSError,
    RecursionError,
    zipfile.BadZipFile,
)
TOKEN_TABLE = "token_embedding.weight"
TOKEN_ROWS, TOKEN_INDICES = "token_embedding.rows", "token_embedding.indices"  # a table of which few rows are not zero
_WRAPPERS = ("state_dict", "model", "model_state_dict")  # under which training scripts keep the weights


def read_state_dict(file: Path) -> dict[str, Tensor]:
    """Read name -> tensor of a checkpoint; no code in it ever runs.

    It may be .safetensors, a torch file (loaded with ``weights_only=True``) or a TorchScript archive.

    A training checkpoint's weights are taken out of their wrapper. Raises BenchError naming the file.
    """
    if not file.is_file():
        raise BenchError(f"{file}: no such file; check the path, or download it first")
    try:
        if file.suffix == ".safetensors":
            tensors: dict[str, Tensor] = load_file(file)
            return tensors
        _check_sizes(file)
        content: object = (
            torchscript_state(file) if is_torchscript(file) else torch.load(file, map_location="cpu", weights_only=True)
        )
    except _UNREADABLE as error:
        raise BenchError(
            f"{file}: not a readable checkpoint ({type(error).__name__}: truncated, another format, or not tensors "
            "alone); download or save it again"
        ) from error
    for key in _WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    items = content.items() if isinstance(content, Mapping) else ()
    found = {name: value for name, value in items if isinstance(value, Tensor)}
    if not found:
        raise BenchError(f"{file}: holds no named tensors; give a state dict or a training checkpoint")
    return found


def load_strictly(module: nn.Module, state: Mapping[str, Tensor], file: Path, what: str) -> None:
    """Load `state` into `module`; the error for any difference names the file and the first keys that differ."""
    expected = module.state_dict()
    missing = [key for key in expected if key not in state]
    unexpected = [key for key in state if key not in expected]
    shapes = [
        f"{key} is {tuple(state[key].shape)}, not {tuple(value.shape)}"
        for key, value in expected.items()
        if key in state and state[key].shape != value.shape
    ]
    problems = []
    for kind, keys in (("missing", missing), ("unexpected", unexpected), ("other shape", shapes)):
        if keys:
            more = f" and {len(keys) - 3} more" if len(keys) > 3 else ""
            problems.append(f"{kind}: {', '.join(keys[:3])}{more}")
    if problems:
        raise BenchError(f"{file}: does not fit {what} ({'; '.join(problems)}); give the checkpoint that belongs to it")
    module.load_state_dict(dict(state), strict=True)


def state_fingerprint(state: Mapping[str, Tensor]) -> str:
    """sha256 over names and values of all tensors, independent of file format and order."""
    digest = hashlib.sha256()
    for name in sorted(state):
        digest.update(name.encode())
        digest.update(state[name].detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _check_sizes(file: Path) -> None:
    """Raise UnpicklingError where the numbers of a zip archive are packed, or more than the file has room for."""
    if not zipfile.is_zipfile(file):
        return
    with zipfile.ZipFile(file) as archive:
        numbers = [member for member in archive.infolist() if "/data/" in member.filename]
    packed = any(member.compress_type != zipfile.ZIP_STORED for member in numbers)
    if packed or sum(member.file_size for member in numbers) > file.stat().st_size:
        raise pickle.UnpicklingError("not as torch writes archives")


def with_token_table(state: Mapping[str, Tensor], vocabulary: int) -> dict[str, Tensor]:
    """Return the state with its token table (vocabulary, width), where only the rows that are not zero are stored."""
    whole = dict(state)
    if TOKEN_ROWS in whole:
        rows, indices = whole.pop(TOKEN_ROWS), whole.pop(TOKEN_INDICES)
        whole[TOKEN_TABLE] = torch.zeros(vocabulary, rows.shape[1], dtype=rows.dtype)
        whole[TOKEN_TABLE][indices.long()] = rows
    return whole
