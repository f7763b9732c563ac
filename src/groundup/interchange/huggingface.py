"""Export to Hugging Face's layout: a directory that stock tools load with no custom code.

config.json, generation_config.json, model.safetensors (or several files and their index), README.md, and a tokenizer:
tokenizer.json, tokenizer_config.json (with our chat template) and special_tokens_map.json, or the source's own files.
"""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path
from typing import Any

import torch

from groundup.interchange.card import Base, model_card
from groundup.interchange.fold import Folded
from groundup.interchange.source import CONFIG, LICENCES, read_settings
from groundup.interchange.stock import StockForm, stock_configuration, stock_family, stock_form
from groundup.interchange.stock_tokenizer import OwnTokenizer, SourceTokenizer, StockTokenizer, Tokens
from groundup.interchange.tensor_files import SHARD_BYTES, Planned, write_sharded
from groundup.interchange.weights import load_architecture, open_weights
from groundup.model import parameter_count
from groundup.model.count import model_parts
from groundup.run import UserError, log, staged_directory, write_json, write_text

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def export_hf(
    model_dir: Path,
    tokenizer_dir: Path | None,
    out: Path,
    *,
    name: str = "groundup",
    dtype: str | None = None,
    max_shard_bytes: int = SHARD_BYTES,
    source_tokenizer: Path | None = None,
    adopted: str | None = None,
    base: Base | None = None,
) -> dict[str, Any]:
    """Write a model and its tokenizer into ``out``, which appears as a whole or not at all.

    Weights are copied one tensor at a time. Logits agree exactly where nothing is folded (see `fold`), and to rounding
    where something is.

    Args:
        tokenizer_dir: the run's tokenizer; not needed with ``source_tokenizer``.
        name: what the model card calls the model.
        dtype: "fp32", "bf16" or "fp16"; None keeps that of each tensor.
        max_shard_bytes: the largest weight file.
        source_tokenizer: the folder with the tokenizer of the checkpoint that the model was imported from, written in
            place of ours: right for a model that has not learned our special tokens.
        adopted: the same vocabulary as this package reads it (see `SourceTokenizer`).
        base: the checkpoint that the model goes back to. The layout is that of its family, where this still expresses
            the model; the model card names it, and its licence goes along.

    Returns the metrics of `_metrics`. Raises UserError if the architecture has no stock layout, a file is missing, a
    number is too large for the dtype, or the tokenizer has more ids than the model has rows.
    """
    model_dir = Path(model_dir)
    arch, config = load_architecture(model_dir), read_settings(model_dir / CONFIG)
    form = stock_form(arch, base.family if base is not None else stock_family(config))
    kind = _dtype(dtype)
    if max_shard_bytes < 1:
        raise UserError(f"max_shard_bytes = {max_shard_bytes}", expected="at least 1")
    words: StockTokenizer
    if source_tokenizer is None:
        words = OwnTokenizer(tokenizer_dir, arch)
    else:
        words = SourceTokenizer(Path(source_tokenizer), config, adopted)
    weights = open_weights(model_dir, {part.name: part.shape for part in model_parts(arch)})
    plans = stock_tensors(form, Folded(weights, arch, form.arch), kind)
    if form.folded or form.dropped:
        log(_told(form))
    with staged_directory(out) as staged:
        files = write_sharded(plans, staged, max_shard_bytes)
        _write_config(staged, form, plans, words.tokens)
        words.write(staged, arch)
        licences = _copy_licences(staged, base)
        write_text(staged / "README.md", model_card(name, form, own=words.own, base=base, licences=licences))
        return _metrics(staged, form, tensors=len(plans), weight_files=len(files))


def stock_tensors(form: StockForm, folded: Folded, dtype: torch.dtype | None) -> list[Planned]:
    """The layout's tensors, to be written.

    Args:
        folded: the model's tensors as those of ``form.arch``.
        dtype: of all of them; None keeps that of each.
    """
    plans = []
    for made in form.layout.theirs(form.arch, folded.shapes):
        kind = dtype or folded.dtype(made.pieces[0].name)
        plans.append(Planned(made.name, kind, made.shape, partial(made.chunks, partial(folded.read, dtype=kind))))
    return plans


def _told(form: StockForm) -> str:
    """What an export changes, in a sentence."""
    folded = f"worked into the weights: {', '.join(form.folded)}" if form.folded else ""
    dropped = (
        f"left out: {len(form.dropped)} tensors of predict_ahead, which training alone uses" if form.dropped else ""
    )
    return f"export as {form.layout.class_name}: " + "; ".join(part for part in (folded, dropped) if part)


def _dtype(name: str | None) -> torch.dtype | None:
    if name is not None and name not in DTYPES:
        raise UserError(f"dtype = {name!r}", expected=f"one of {', '.join(DTYPES)}")
    return None if name is None else DTYPES[name]


def _write_config(out: Path, form: StockForm, plans: list[Planned], tokens: Tokens) -> None:
    """config.json; its dtype is that of most of the weights."""
    sizes: dict[torch.dtype, int] = {}
    for plan in plans:
        sizes[plan.dtype] = sizes.get(plan.dtype, 0) + plan.bytes
    ids = {"bos": tokens.bos, "eos": tokens.eos, "pad": tokens.pad}
    write_json(out / CONFIG, stock_configuration(form, max(sizes, key=sizes.__getitem__), **ids))


def _copy_licences(out: Path, base: Base | None) -> list[str]:
    """Copy the files in which the base's makers say what may be done with it; returns their names."""
    if base is None:
        return []
    found = [path for pattern in LICENCES for path in sorted(base.folder.glob(pattern)) if path.is_file()]
    for path in found:
        shutil.copyfile(path, out / path.name)
    return [path.name for path in found]


def _metrics(out: Path, form: StockForm, *, tensors: int, weight_files: int) -> dict[str, Any]:
    """Counts of the export, its `model_type`, and what was folded and left out."""
    return {
        "hf_parameters": parameter_count(form.arch).total,
        "hf_tensors": tensors,
        "hf_bytes": sum(file.stat().st_size for file in out.rglob("*") if file.is_file()),
        "hf_weight_files": weight_files,
        "hf_model_type": form.layout.model_type,
        "hf_folded": list(form.folded),
        "hf_left_out": list(form.dropped),
    }
