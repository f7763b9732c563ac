"""Pretraining: token shards to a base model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from groundup.hardware import Hardware
from groundup.model import Architecture, fresh_model, parameter_count
from groundup.recipe import ModelSection, PretrainSection
from groundup.tokenizer import Tokenizer, TokenShards
from groundup.training.compute import prepare
from groundup.training.stage import load_start, sampler, train_on_rows
from groundup.training.trackers import Tracking
from groundup.training.validation import validator


def pretrain(
    section: PretrainSection,
    model_section: ModelSection,
    *,
    run: Path,
    out: Path,
    start: Path | None,
    seed: int,
    hardware: Hardware,
    fingerprint: str,
    should_stop: Callable[[], bool],
    tracking: Tracking | None = None,
) -> dict[str, Any]:
    """Train on RUN/tokenizer/shards/train and write ``out``/final; carries on from ``out``/checkpoints.

    Args:
        start: a directory of finished weights to go on from; None initialises fresh ones from the seed.

    Returns:
        the metrics of :func:`train_on_rows` and the parameter count.
    """
    prepare(hardware)
    tokenizer = Tokenizer.load(run / "tokenizer")
    if start is None:
        model = fresh_model(Architecture.from_section(model_section, tokenizer.vocabulary_size), seed)
    else:
        model = load_start(start, run, tokenizer)
    model.to(hardware.device)
    length = section.sequence_length or model.arch.context_length
    metrics = train_on_rows(
        section,
        model,
        TokenShards(run / "tokenizer" / "shards" / "train"),
        out=out,
        seed=seed,
        hardware=hardware,
        fingerprint=fingerprint,
        should_stop=should_stop,
        tracking=tracking,
        validate=validator(run / "tokenizer" / "shards" / "validation", tokenizer, length, hardware.device),
        sample=sampler(section.sample_prompts, tokenizer.encode, tokenizer, tokenizer.endoftext, seed),
    )
    return {"parameters": parameter_count(model.arch).total, **metrics}
