"""Safetensors files, read and written one tensor at a time, whatever their size."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from groundup.run import UserError, atomic_path, write_json

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
SHARD_BYTES = 5_000_000_000
DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
_CODES = {dtype: code for code, dtype in DTYPES.items()}

Index = tuple[int | slice, ...]


@dataclass(frozen=True)
class Entry:
    """Where a tensor stands."""

    path: Path
    code: str
    """the format's name of its dtype"""
    shape: tuple[int, ...]
    offset: int
    """of its first byte in the file"""


class TensorFiles:
    """The tensors of some safetensors files. What is read is copied into memory, nothing is mapped, so that no more
    than one tensor is held and a file that changes later does no harm.

    Raises UserError for a file that is missing or broken, and for a name that stands in two of them.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self.entries: dict[str, Entry] = {}
        for path in paths:
            for name, entry in _entries(Path(path)).items():
                if name in self.entries:
                    raise UserError(f"the tensor {name} is in {self.entries[name].path.name} too", where=str(path))
                self.entries[name] = entry

    def dtype(self, name: str) -> torch.dtype:
        """The dtype of a tensor. Raises UserError for one that is no plain floating point number."""
        entry = self.entries[name]
        if entry.code not in DTYPES:
            raise UserError(
                f"the tensor {name} is stored as {entry.code}",
                where=str(entry.path),
                expected=f"one of {', '.join(DTYPES)}: quantised weights are not read",
            )
        return DTYPES[entry.code]

    def read(self, name: str, index: Index = ()) -> Tensor:
        """A tensor, or ``tensor[index]``, of which only the rows that the first index names are read: a number, or a
        slice without a step."""
        entry, dtype = self.entries[name], self.dtype(name)
        shape, offset = entry.shape, entry.offset
        if index:
            first, row = index[0], _size(shape[1:], dtype)
            begin, end = (first, first + 1) if isinstance(first, int) else first.indices(shape[0])[:2]
            shape, offset = (end - begin, *shape[1:]), offset + begin * row
            index = (0 if isinstance(first, int) else slice(None), *index[1:])
        content = np.fromfile(entry.path, np.uint8, _size(shape, dtype), offset=offset)
        if content.nbytes != _size(shape, dtype):
            raise UserError(f"the file ends within the tensor {name}", where=str(entry.path))
        tensor = (
            torch.from_numpy(content).view(dtype).view(shape) if content.nbytes else torch.empty(shape, dtype=dtype)
        )
        return tensor[index]


def _entries(path: Path) -> dict[str, Entry]:
    """The tensors of one file, after the library has checked its header."""
    try:
        with safe_open(path, framework="pt"):
            pass
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(length))
    except FileNotFoundError as error:
        raise UserError(f"no {path.name}", where=str(path)) from error
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(f"not a readable safetensors file: {error}", where=str(path)) from error
    return {
        name: Entry(path, entry["dtype"], tuple(entry["shape"]), 8 + length + entry["data_offsets"][0])
        for name, entry in header.items()
        if name != "__metadata__"
    }


@dataclass(frozen=True)
class Planned:
    """A tensor to be written: its bytes come when its turn comes, in chunks along its first dimension."""

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]
    chunks: Callable[[], Iterable[Tensor]]

    @property
    def bytes(self) -> int:
        """Its size in a file."""
        return _size(self.shape, self.dtype)


def _whole(tensor: Tensor) -> tuple[Tensor]:
    return (tensor.detach().cpu(),)


def planned(tensors: Mapping[str, Tensor]) -> list[Planned]:
    """Tensors that exist already, on any device, as they are."""
    return [
        Planned(name, tensor.dtype, tuple(tensor.shape), partial(_whole, tensor)) for name, tensor in tensors.items()
    ]


def write_file(plans: Iterable[Planned], path: Path) -> None:
    """Write a safetensors file that others may read, atomically: the header, then one tensor after the other.

    Wider types come first, so that every tensor begins at a multiple of its element's size.
    """
    ordered = sorted(plans, key=lambda plan: -plan.dtype.itemsize)
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for plan in ordered:
        span = [offset, offset + plan.bytes]
        header[plan.name] = {"dtype": _CODES[plan.dtype], "shape": list(plan.shape), "data_offsets": span}
        offset = span[1]
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for plan in ordered:
            _write_tensor(file, plan)


def _write_tensor(file: BinaryIO, plan: Planned) -> None:
    written = 0
    for chunk in plan.chunks():
        if chunk.dtype != plan.dtype:
            raise ValueError(f"{plan.name} was planned as {plan.dtype}, and is {chunk.dtype}")
        content = chunk.contiguous().reshape(-1).view(torch.uint8).numpy()
        file.write(content.data)
        written += content.nbytes
    if written != plan.bytes:
        raise ValueError(f"{plan.name} was planned as {plan.bytes} bytes, and has {written}")


def write_sharded(plans: Sequence[Planned], directory: Path, max_shard_bytes: int = SHARD_BYTES) -> list[Path]:
    """Write model.safetensors, or several files and their index where it would exceed so many bytes.

    A file holds as many tensors as fit, in their order; one that is larger by itself has a file of its own.

    Returns the weight files.
    """
    shards: list[list[Planned]] = [[]]
    for plan in plans:
        if shards[-1] and sum(each.bytes for each in shards[-1]) + plan.bytes > max_shard_bytes:
            shards.append([])
        shards[-1].append(plan)
    if len(shards) == 1:
        write_file(shards[0], directory / WEIGHTS)
        return [directory / WEIGHTS]
    paths = [directory / f"model-{i:05d}-of-{len(shards):05d}.safetensors" for i in range(1, len(shards) + 1)]
    for shard, path in zip(shards, paths, strict=True):
        write_file(shard, path)
    names = {plan.name: path.name for shard, path in zip(shards, paths, strict=True) for plan in shard}
    total = sum(plan.bytes for plan in plans)
    write_json(directory / INDEX, {"metadata": {"total_size": total}, "weight_map": dict(sorted(names.items()))})
    return paths


def _size(shape: Iterable[int], dtype: torch.dtype) -> int:
    return int(np.prod([*shape], dtype=np.int64)) * dtype.itemsize


def differences(
    found: Mapping[str, Sequence[int]], wanted: Mapping[str, Sequence[int]], hints: Mapping[str, str] | None = None
) -> Iterator[str]:
    """One line for each tensor that is missing, unknown or of another shape.

    Args:
        found, wanted: shapes by name.
        hints: what is added to the line of an unknown name.
    """
    yield from (f"missing: {name} {list(wanted[name])}" for name in wanted if name not in found)
    for name in found:
        if name not in wanted:
            yield f"unknown: {name} {list(found[name])}" + (hints or {}).get(name, "")
    for name in wanted:
        if name in found and list(found[name]) != list(wanted[name]):
            yield f"shape: {name} is {list(found[name])}, should be {list(wanted[name])}"
