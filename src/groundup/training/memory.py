"""What a pass keeps for its backward pass, measured on one row and on two, and how many rows so fit a GPU."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from groundup.hardware import Hardware
from groundup.model import EncoderDecoder, Transformer
from groundup.model.losses import MOST_LOGITS
from groundup.recipe import EngineSection
from groundup.training.budget import CPU_TOKENS
from groundup.training.compute import autocast

GPU_TOKENS = 16384
"""Tokens in a pass that keep a GPU busy. Blocks are recomputed only where fewer fit."""
SHARE = 0.9
"""Of the free memory; the rest is for what a pass needs for a moment, and for what the allocator can't use."""
STATE = 16
"""Bytes of a weight beside itself: its gradient, two moments or a momentum and its step, and the copy that norms of
updates are taken from."""
LOGIT = 10
"""Bytes of a logit: in bfloat16, in float32, and the gradient of that."""
MEASURED = 512
"""Places at most in the rows that are measured: what is kept grows with their number, and attention keeps no square."""


@dataclass(frozen=True)
class Footprint:
    """Bytes that a forward pass keeps.

    Attributes:
        blocks: that can be recomputed.
        fixed: whatever the rows: weights in the dtype of the products, and logits.
        row: for each row where no block is recomputed.
        least: for each row where all are.
    """

    blocks: int
    fixed: float
    row: float
    least: float

    def needed(self, rows: int, recomputed: int) -> float:
        """Bytes with so many blocks recomputed; in its turn each is there whole."""
        block = (self.row - self.least) / max(1, self.blocks)
        return self.fixed + rows * (self.row - (recomputed - (recomputed > 0)) * block)


def kept_bytes(model: nn.Module, run: Callable[[], Tensor]) -> int:
    """Bytes of all that ``run``, a forward pass, keeps for its backward pass, but for the weights themselves."""
    known = {weight.untyped_storage().data_ptr() for weight in model.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        out = run()  # alive until all is counted, so that no address comes twice
    del out
    return sum(kept.values())


def recompute(model: nn.Module, blocks: int) -> None:
    """Have the backward pass make the activations of a decoder's first blocks again. Of other models none can be."""
    if isinstance(model, Transformer):
        model.model.recomputed = blocks


def footprint(model: nn.Module, length: int, hardware: Hardware) -> Footprint:
    """The footprint of rows of ``length`` places, of a decoder or an encoder-decoder on its device."""
    assert isinstance(model, Transformer | EncoderDecoder)
    places = min(length, MEASURED)
    was_training, device = model.training, model.head.weight.device
    model.train()

    def kept(rows: int, recomputed: int) -> int:
        recompute(model, recomputed)
        ids = torch.ones(rows, places, dtype=torch.int64, device=device)
        with autocast(hardware):
            return kept_bytes(model, lambda: model(ids, ids) if isinstance(model, EncoderDecoder) else model(ids))

    if isinstance(model, Transformer):
        blocks, ahead, logits = len(model.model.layers), model.arch.predict_ahead, MOST_LOGITS
    else:  # whose loss makes all of a row's logits at once
        blocks, ahead, logits = 0, 0, max(MOST_LOGITS, length * len(model.head.weight))
    one, two, least = kept(1, 0), kept(2, 0), kept(2, blocks) - kept(1, blocks)
    recompute(model, 0)
    model.train(was_training)
    scale = length / places * (1 + ahead / max(1, blocks))
    return Footprint(blocks, max(0, 2 * one - two) + LOGIT * logits, scale * (two - one), scale * least)


def fit(
    footprint: Footprint, section: EngineSection, rows: int, length: int, free: float, *, divisor: bool
) -> tuple[int, int]:
    """(rows in one pass, blocks recomputed): as few blocks as let the section's micro-batch fit, or one that keeps a
    GPU busy, or all rows of the update; and then as many rows as fit.

    Args:
        rows: of an update.
        free: bytes.
        divisor: whether the rows in a pass must divide those of the update.
    """
    given = section.micro_batch
    wanted = min(rows, given if isinstance(given, int) else math.ceil(GPU_TOKENS / length))
    blocks = section.recomputed_blocks
    choices = range(footprint.blocks + 1) if blocks == "auto" else [min(blocks, footprint.blocks)]
    most, recomputed = 1, choices[-1]
    for recomputed in choices:
        most = _most(footprint, recomputed, rows, free)
        if most >= wanted:
            break
    if isinstance(given, int):
        most = given
    return whole_part(most, rows) if divisor else max(1, min(most, rows)), recomputed


def rows_in_pass(
    section: EngineSection, model: nn.Module, rows: int, length: int, hardware: Hardware, *, divisor: bool = True
) -> tuple[int, int]:
    """(rows in one pass, blocks recomputed), as the recipe says, or by a GPU's memory, to which the model is moved.

    Args:
        rows: of an update.
        divisor: whether the rows in a pass must divide them, so that all passes have one shape; not needed where
            updates are filled up.
    """
    if hardware.device == "cuda":
        model.to("cuda")
        return fit(footprint(model, length, hardware), section, rows, length, free_on_gpu(model), divisor=divisor)
    most = section.micro_batch if isinstance(section.micro_batch, int) else CPU_TOKENS // length
    blocks = len(model.model.layers) if isinstance(model, Transformer) else 0
    recomputed = 0 if section.recomputed_blocks == "auto" else min(section.recomputed_blocks, blocks)
    return whole_part(most, rows) if divisor else max(1, min(most, rows)), recomputed


def _most(footprint: Footprint, recomputed: int, rows: int, free: float) -> int:
    """The most of ``rows`` that fit; 0 where none does."""
    empty = footprint.needed(0, recomputed)
    each = footprint.needed(1, recomputed) - empty
    return max(0, min(rows, int((free - empty) / each)))


def whole_part(most: int, rows: int) -> int:
    """The largest divisor of ``rows`` that is at most ``most``, and at least 1."""
    return max(divisor for divisor in range(1, max(1, min(most, rows)) + 1) if rows % divisor == 0)


def free_on_gpu(model: nn.Module) -> float:
    """Bytes of the GPU that a pass may take, the model being there and its gradients and optimizer not yet."""
    unused = torch.cuda.memory_reserved() - torch.cuda.memory_allocated()
    weights = sum(weight.numel() for weight in model.parameters())
    return SHARE * (torch.cuda.mem_get_info()[0] + unused) - STATE * weights
