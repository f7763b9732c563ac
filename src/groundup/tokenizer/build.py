"""The tokenizer stage: learn a vocabulary on a sample of the corpus, then write all of it as token shards."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow.parquet as pq

from groundup.recipe import TokenizerSection
from groundup.run import UserError, log, progress, read_json
from groundup.tokenizer.bpe import train_bpe
from groundup.tokenizer.chat import encode_chat
from groundup.tokenizer.shards import ShardSource, ShardWriter, TokenShards, dtype_for
from groundup.tokenizer.tokenizer import Tokenizer

BATCH_CHARACTERS = 2**20  # text encoded in one call


class _Text(NamedTuple):
    id: str
    text: str
    mixture: str
    messages: str | None = None  # a corpus of plain texts may lack the column


def build_tokenizer(section: TokenizerSection, corpus_dir: Path, out: Path) -> dict[str, Any]:
    """Make out/tokenizer.json and out/shards/{train,validation}/ of a corpus stage's directory.

    Each document becomes its ids and <|endoftext|>; a chat is encoded message by message. The training shards'
    index carries each source's weight and epochs; validation shows every document once. Returns the stage's
    metrics: documents, tokens (with <|endoftext|>), bytes and bytes per token (without it) of both splits, and
    the use of the vocabulary.

    Raises UserError where `corpus_dir` holds no corpus, or the vocabulary has no room for a merge.
    """
    try:
        funnel = read_json(Path(corpus_dir) / "funnel.json")
    except FileNotFoundError as error:
        raise UserError("no corpus", where=str(corpus_dir), mend="build the corpus stage first") from error
    tallies = {split: funnel["total"]["steps"][split] for split in ("train", "validation")}
    sample = _sample(corpus_dir, tallies["train"]["bytes"], section.sample_bytes)
    with progress("tokenizer", min(section.sample_bytes, tallies["train"]["bytes"]), "B") as bar:

        def counted() -> Iterator[str]:
            for text in sample:
                bar.advance(_size(text))
                yield text

        learned = train_bpe(
            counted(),
            section.vocabulary_size,
            reserved=section.reserved_tokens,
            split_pattern=section.split_pattern,
        )
        sample_bytes = int(bar.completed)
    tokenizer = Tokenizer(learned.to_str(pretty=True))
    tokenizer.save(out)
    if tokenizer.vocabulary_size < section.vocabulary_size:
        log(
            f"the corpus gives {tokenizer.vocabulary_size} tokens, "
            f"not the {section.vocabulary_size} asked for: no pair occurs twice any more"
        )
    metrics: dict[str, Any] = {
        "vocabulary_size": tokenizer.vocabulary_size,
        "sample_bytes": sample_bytes,
    }
    for split, tally in tallies.items():
        neutral = split == "validation"
        sources = [
            ShardSource(source["name"]) if neutral else ShardSource(source["name"], source["weight"], source["epochs"])
            for source in funnel["sources"]
        ]
        metrics |= _write_split(tokenizer, corpus_dir, split, sources, out / "shards" / split, tally["bytes"])
    if len(funnel["sources"]) > 1:
        for name, part in metrics["train_mixture"].items():
            log(f"{name}: {part['tokens']:,} tokens, {part['share']:.1%}; {part['share_of_a_pass']:.1%} of a pass")
    return metrics


def _write_split(
    tokenizer: Tokenizer,
    corpus_dir: Path,
    split: str,
    sources: list[ShardSource],
    directory: Path,
    expected_bytes: int,
) -> dict[str, Any]:
    """Encode one split into shards; its metrics, each named `<split>_…`."""
    number = {source.name: index for index, source in enumerate(sources)}
    used = np.zeros(tokenizer.vocabulary_size, np.int64)
    by_source = np.zeros((len(sources), 2), np.int64)  # documents, tokens
    dtype = dtype_for(tokenizer.vocabulary_size)
    size = 0
    with progress(f"tokens of {split}", expected_bytes, "B") as bar:
        with ShardWriter(directory, dtype, sources=sources) as writer:
            for batch in _batches(_read(corpus_dir, split)):
                for document, ids in zip(batch, _encode(tokenizer, batch), strict=True):
                    tokens = np.array([*ids, tokenizer.endoftext])
                    writer.add(tokens, number[document.mixture])
                    by_source[number[document.mixture]] += (1, len(tokens))
                    used += np.bincount(tokens, minlength=len(used))
                size += (batch_size := sum(_size(document.text) for document in batch))
                bar.advance(batch_size)
    lengths = TokenShards(directory).lengths
    count = int(lengths.sum())
    return {
        f"{split}_documents": len(lengths),
        f"{split}_tokens": count,
        f"{split}_bytes": size,
        f"{split}_bytes_per_token": size / max(1, count - len(lengths)),
        f"{split}_median_document_tokens": float(np.median(lengths)) if len(lengths) else 0.0,
        f"{split}_vocabulary_used": float(np.count_nonzero(used) / len(used)),
        f"{split}_mixture": _mixture(sources, by_source),
    }


def _mixture(sources: list[ShardSource], by_source: np.ndarray) -> dict[str, dict[str, float]]:
    """Of each source its documents and tokens, its share of the tokens, and its share of a pass by the weights."""
    tokens = by_source[:, 1].astype(float)
    weighted = tokens * [source.weight for source in sources]
    shares, passed = tokens / max(1.0, tokens.sum()), weighted / max(1.0, weighted.sum())
    return {
        source.name: {
            "documents": int(by_source[index, 0]),
            "tokens": int(by_source[index, 1]),
            "share": float(shares[index]),
            "share_of_a_pass": float(passed[index]),
        }
        for index, source in enumerate(sources)
    }


def _encode(tokenizer: Tokenizer, batch: list[_Text]) -> Iterator[list[int]]:
    """The ids of each document, a chat's in the chat format."""
    texts = iter(tokenizer.encode_batch([document.text for document in batch if document.messages is None]))
    for document in batch:
        yield next(texts) if document.messages is None else encode_chat(tokenizer, json.loads(document.messages)).ids


def _sample(corpus_dir: Path, total: int, limit: int) -> Iterator[str]:
    """Training texts of about `limit` bytes: all of them, or those whose digest is below a bound.

    The digest's second half decides; its first half has already decided the split.
    """
    share = 1.0 if total <= limit else limit / total
    for document in _read(corpus_dir, "train"):
        if int(document.id[16:28], 16) / 2**48 < share:
            yield document.text


def _batches(documents: Iterator[_Text]) -> Iterator[list[_Text]]:
    """Documents in lists of about `BATCH_CHARACTERS` characters."""
    batch: list[_Text] = []
    characters = 0
    for document in documents:
        batch.append(document)
        characters += len(document.text)
        if characters >= BATCH_CHARACTERS:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


def _read(corpus_dir: Path, split: str) -> Iterator[_Text]:
    """The documents of a corpus directory: its Parquet files are all that the two rooms share."""
    for path in sorted((Path(corpus_dir) / "documents").glob(f"{split}-*.parquet")):
        with pq.ParquetFile(path) as file:
            for group in range(file.num_row_groups):
                for row in file.read_row_group(group, columns=["id", "text", "mixture", "messages"]).to_pylist():
                    yield _Text(**row)


def _size(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-8"))
