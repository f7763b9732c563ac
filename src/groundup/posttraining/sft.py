"""Supervised fine-tuning: conversations to a model that answers. The loss counts assistant text only."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from groundup.hardware import Hardware
from groundup.model import renew_blocks
from groundup.posttraining.records import Conversation, read_conversations, tables
from groundup.recipe import SftSection
from groundup.run import UserError, progress, read_json, staged_directory, write_json
from groundup.tokenizer import (
    ShardSource,
    ShardWriter,
    Tokenizer,
    TokenShards,
    dtype_for,
    encode_chat,
)
from groundup.training import Tracking, load_start, prepare, sampler, train_on_rows, validator

HELD_OUT = 64
"""One conversation in so many, by the checksum of its text, validates and never trains."""


def is_held_out(conversation: Conversation) -> bool:
    """Whether a conversation validates, and so is measured, and never trains."""
    text = "\n".join(str(message["content"]) for message in conversation.messages)
    return zlib.crc32(text.encode("utf-8", "surrogatepass")) % HELD_OUT == 0


def held_out(section: SftSection, *, seed: int) -> Iterator[Conversation]:
    """The conversations of a section's data that its stage never learns from. Raises as `read_conversations` does."""
    return filter(is_held_out, read_conversations(section.data, seed))


def write_data(section: SftSection, tokenizer: Tokenizer, out: Path, *, seed: int, fingerprint: str) -> dict[str, Any]:
    """Encode all conversations into ``out``/train and ``out``/validation, with loss masks; once for a stage.

    Returns:
        counts of conversations, tokens and supervised tokens.

    Raises:
        UserError: a record can't be read, or there is none to train on, or nothing in them to learn.
    """
    record = out / "data.json"
    if record.exists() and (known := read_json(record))["fingerprint"] == fingerprint:
        return dict(known["counts"])
    weighted = [ShardSource(table.path, table.weight) for table in tables(section.data)]
    plain = [ShardSource(table.path) for table in tables(section.data)]  # every chat held out counts once
    counts = {"conversations": 0, "tokens": 0, "supervised_tokens": 0}
    learned = 0  # supervised tokens that are not held out
    dtype, pad = dtype_for(tokenizer.vocabulary_size), tokenizer.pad
    with (
        staged_directory(out) as directory,
        ShardWriter(directory / "train", dtype, pad_id=pad, with_mask=True, sources=weighted) as training,
        ShardWriter(directory / "validation", dtype, pad_id=pad, with_mask=True, sources=plain) as validation,
        progress("encoding conversations", total=None, unit="chat") as bar,
    ):
        for conversation in read_conversations(section.data, seed):
            try:
                chat = encode_chat(tokenizer, conversation.messages, tools=conversation.tools)
            except UserError as error:
                raise UserError(
                    error.what, where=f"{conversation.where} {error.where}", expected=error.expected
                ) from None
            aside = is_held_out(conversation)
            (validation if aside else training).add(chat.ids, conversation.source, chat.loss_mask)
            counts["conversations"] += 1
            counts["tokens"] += len(chat.ids)
            counts["supervised_tokens"] += sum(chat.loss_mask)
            learned += 0 if aside else sum(chat.loss_mask)
            bar.advance()
        if not training.close()["documents"]:
            raise UserError("no conversation is left to learn from", where="[sft] data")
        if not learned:
            raise UserError(
                "no conversation has a token to learn",
                where="[sft] data",
                expected="assistant turns, of which at least one is not left out of training",
            )
        validation.close()
        write_json(directory / "data.json", {"fingerprint": fingerprint, "counts": counts})
    return counts


def sft(
    section: SftSection,
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
    """Tune the weights in ``start`` on the section's conversations and write ``out``/final.

    Returns:
        the counts of the data and the metrics of the training loop.

    Raises:
        UserError: a record of the data can't be read, or the model has fewer blocks than are to begin anew.
    """
    if start is None:
        raise ValueError("sft needs weights to start from")
    prepare(hardware)
    tokenizer = Tokenizer.load(run / "tokenizer")
    model = load_start(start, run, tokenizer)
    if section.fresh_blocks > model.arch.layers:
        raise UserError(
            f"fresh_blocks is {section.fresh_blocks}, and the model has {model.arch.layers} blocks",
            where="[sft] fresh_blocks",
            expected=f"0 to {model.arch.layers}",
        )
    renew_blocks(model, section.fresh_blocks, seed)
    model.to(hardware.device)
    counts = write_data(section, tokenizer, out / "data", seed=seed, fingerprint=fingerprint)
    length = section.sequence_length or model.arch.context_length
    metrics = train_on_rows(
        section,
        model,
        TokenShards(out / "data" / "train"),
        out=out,
        seed=seed,
        hardware=hardware,
        fingerprint=fingerprint,
        should_stop=should_stop,
        tracking=tracking,
        validate=validator(out / "data" / "validation", tokenizer, length, hardware.device),
        sample=sampler(section.sample_prompts, chat_prompt(tokenizer), tokenizer, tokenizer.end, seed),
    )
    return {**counts, **metrics}


def chat_prompt(tokenizer: Tokenizer) -> Callable[[str], list[int]]:
    """How a sample prompt is encoded after tuning: as a user's message that awaits its answer."""
    return lambda text: encode_chat(tokenizer, [{"role": "user", "content": text}], generation_prompt=True).ids
