"""Export to Hugging Face's layout: a directory that stock tools load with no custom code."""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch

from groundup.interchange.card import model_card
from groundup.interchange.fold import Folded
from groundup.interchange.source import CONFIG, GENERATION, read_settings
from groundup.interchange.stock import Ids, StockForm, stock_configuration, stock_family, stock_form
from groundup.interchange.tensor_files import SHARD_BYTES, Planned, write_sharded
from groundup.interchange.weights import load_architecture, open_weights
from groundup.model import Architecture, parameter_count
from groundup.model.count import model_parts
from groundup.run import UserError, log, staged_directory, write_json, write_text
from groundup.tokenizer import Tokenizer, chat_template

BOS, EOS, PAD = "<|endoftext|>", "<|end|>", "<|pad|>"
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
TOKENIZER_FILES = (
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json"),
    *("merges.txt", "tokenizer.model", "chat_template.jinja", "chat_template.json"),
)
"""What stock tools read of a tokenizer."""


class _Tokens(NamedTuple):
    """Ids of special tokens; ``stops`` are those that end an answer."""

    bos: Ids
    eos: Ids
    pad: Ids
    stops: Ids


def export_hf(
    model_dir: Path,
    tokenizer_dir: Path | None,
    out: Path,
    *,
    name: str = "groundup",
    dtype: str | None = None,
    max_shard_bytes: int = SHARD_BYTES,
    source_tokenizer: Path | None = None,
) -> dict[str, Any]:
    """Write a model and its tokenizer into ``out`` as `transformers`, vLLM and others read them.

    Weights are copied one tensor at a time. Logits agree exactly where nothing is folded (see `fold`), and to
    rounding where something is. Files: config.json, generation_config.json, model.safetensors (or several and their
    index), README.md, and either tokenizer.json, tokenizer_config.json (with our chat template) and
    special_tokens_map.json, or the source's own. ``out`` appears as a whole or not at all.

    Args:
        tokenizer_dir: the run's tokenizer; not needed with ``source_tokenizer``.
        name: what the model card calls the model.
        dtype: "fp32", "bf16" or "fp16"; None keeps that of each tensor.
        max_shard_bytes: the largest weight file.
        source_tokenizer: the folder with the tokenizer files of the checkpoint that the model was imported from, and
            its generation_config.json. They are written as they are, in place of our tokenizer: right for a model
            that has not learned our special tokens.

    Returns:
        metrics: parameters, tensors, bytes and weight files of the export, its `model_type`, and what was folded and
        left out.

    Raises:
        UserError: if the architecture has no stock layout, a file is missing, a number is too large for the dtype,
            or the tokenizer has more ids than the model has rows.
    """
    model_dir = Path(model_dir)
    arch = load_architecture(model_dir)
    config = read_settings(model_dir / CONFIG)
    form = stock_form(arch, stock_family(config))
    kind = _dtype(dtype)
    if max_shard_bytes < 1:
        raise UserError(f"max_shard_bytes = {max_shard_bytes}", expected="at least 1")
    theirs = [] if source_tokenizer is None else _tokenizer_files(Path(source_tokenizer))
    tokenizer = None if theirs else _own_tokenizer(tokenizer_dir, arch)
    tokens = _own_tokens(tokenizer) if tokenizer else _source_tokens(source_tokenizer, config)
    weights = open_weights(model_dir, {part.name: part.shape for part in model_parts(arch)})
    plans = stock_tensors(form, Folded(weights, arch, form.arch), kind)
    if form.folded or form.dropped:
        log(_told(form))
    with staged_directory(out) as staged:
        files = write_sharded(plans, staged, max_shard_bytes)
        stored = max({plan.dtype for plan in plans}, key=lambda each: sum(p.bytes for p in plans if p.dtype == each))
        ids = {"bos": tokens.bos, "eos": tokens.eos, "pad": tokens.pad}
        write_json(staged / CONFIG, stock_configuration(form, stored, **ids))
        _write_generation(staged, tokens, source_tokenizer)
        if tokenizer is not None:
            _write_tokenizer(staged, arch, tokenizer)
        for path in theirs:  # byte for byte
            copy = staged / path.relative_to(source_tokenizer or path.parent)
            copy.parent.mkdir(exist_ok=True)
            shutil.copyfile(path, copy)
        write_text(staged / "README.md", model_card(name, form, own=tokenizer is not None))
        size = sum(file.stat().st_size for file in staged.rglob("*") if file.is_file())
    return {
        "hf_parameters": parameter_count(form.arch).total,
        "hf_tensors": len(plans),
        "hf_bytes": size,
        "hf_weight_files": len(files),
        "hf_model_type": form.layout.model_type,
        "hf_folded": list(form.folded),
        "hf_left_out": list(form.dropped),
    }


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


def _own_tokenizer(directory: Path | None, arch: Architecture) -> Tokenizer:
    if directory is None:
        raise UserError("no tokenizer to export", expected="the run's, or the source's of an imported model")
    tokenizer = Tokenizer.load(directory)
    if tokenizer.vocabulary_size > arch.vocabulary_size:
        raise UserError(
            f"the tokenizer has {tokenizer.vocabulary_size} ids, the model only {arch.vocabulary_size} rows",
            where=str(directory),
            mend="export a model with the tokenizer it was trained on; one imported and not tuned, with its source's",
        )
    return tokenizer


def _own_tokens(tokenizer: Tokenizer) -> _Tokens:
    """Generation ends at the end of a message or of a document."""
    stops = [tokenizer.end, tokenizer.endoftext]
    return _Tokens(tokenizer.endoftext, tokenizer.end, tokenizer.pad, stops)


def _source_tokens(source: Path | None, config: dict[str, Any]) -> _Tokens:
    """The ids that the imported config.json had, of which generation_config.json may know better."""
    path = Path(source or ".") / GENERATION
    generation = read_settings(path) if path.is_file() else {}
    keys = ("bos_token_id", "eos_token_id", "pad_token_id")
    bos, eos, pad = (generation.get(key) if config.get(key) is None else config[key] for key in keys)
    return _Tokens(bos, eos, pad, generation.get("eos_token_id", eos))


def _write_generation(out: Path, tokens: _Tokens, source: Path | None) -> None:
    """generation_config.json, of which a source's own is kept as it is."""
    if source is not None and (Path(source) / GENERATION).is_file():
        shutil.copyfile(Path(source) / GENERATION, out / GENERATION)
        return
    ids = {"bos_token_id": tokens.bos, "eos_token_id": tokens.stops, "pad_token_id": tokens.pad}
    write_json(
        out / GENERATION, {**{key: value for key, value in ids.items() if value is not None}, "do_sample": False}
    )


def _tokenizer_files(source: Path) -> list[Path]:
    """The tokenizer files of a folder. Raises UserError where there is no tokenizer."""
    found = [source / name for name in TOKENIZER_FILES if (source / name).is_file()]
    if not {"tokenizer.json", "tokenizer.model", "vocab.json"} & {path.name for path in found}:
        raise UserError("no tokenizer", where=str(source), expected="tokenizer.json, vocab.json or tokenizer.model")
    return found + sorted(source.glob("additional_chat_templates/*.jinja"))


def _write_tokenizer(out: Path, arch: Architecture, tokenizer: Tokenizer) -> None:
    """tokenizer.json as it is, and how stock tools should use it."""
    tokenizer.save(out)
    specials = tokenizer.special_ids()
    roles = {"bos_token": BOS, "eos_token": EOS, "pad_token": PAD}
    others = [token for token in specials if token not in roles.values()]
    flags = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True}
    write_json(
        out / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "added_tokens_decoder": {str(id): {"content": token, **flags} for token, id in specials.items()},
            **roles,
            "additional_special_tokens": others,
            "add_bos_token": False,
            "add_prefix_space": False,
            "clean_up_tokenization_spaces": False,
            "model_max_length": arch.context_length,
            "chat_template": chat_template(),
        },
    )
    write_json(out / "special_tokens_map.json", {**roles, "additional_special_tokens": others})
