"""The tokenizer stage: learn a vocabulary on a sample of the corpus, or adopt one; then write the corpus as tokens."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from groundup.recipe import TokenizerSection
from groundup.run import UserError, fingerprint, log, progress, read_json, write_bytes, write_json
from groundup.tokenizer.adopt import adopt
from groundup.tokenizer.bpe import train_bpe
from groundup.tokenizer.encode import encode_unit, make_tasks
from groundup.tokenizer.extend import extend
from groundup.tokenizer.sample import Sample
from groundup.tokenizer.shards import ShardSource, TokenShards
from groundup.tokenizer.tokenizer import Tokenizer
from groundup.tokenizer.work import in_process, in_processes
from groundup.tokenizer.writer import join_shards

SPLITS = ("train", "validation")
OWN_PROCESS = 2**20  # bytes of text from which learning is worth a process of its own


def build_tokenizer(
    section: TokenizerSection,
    corpus_dir: Path,
    out: Path,
    *,
    work: Path | None = None,
    workers: int = 1,
    identity: str = "",
) -> dict[str, Any]:
    """Make out/tokenizer.json and out/shards/{train,validation}/ of a corpus stage's directory.

    Each document becomes its ids and <|endoftext|>; a chat is encoded message by message. The training shards'
    index carries each source's weight and epochs; validation shows every document once. Beside it lie
    out/pieces.json, what each token that was added to an adopted vocabulary is made of, and
    out/shards/SPLIT/counts.bin (uint64 [vocabulary]), how often each id occurs. Equal inputs give equal bytes, whatever
    `workers` is and however often the work was interrupted.

    Args:
        work: folder of what is done so far; with the same `identity` work goes on from there. The caller removes it.
        workers: processes that encode.
        identity: fingerprint of all inputs.

    Returns the stage's metrics: documents, tokens (with <|endoftext|>), bytes and bytes per token (without it) of both
    splits, and the use of the vocabulary.

    Raises UserError where `corpus_dir` holds no corpus, or the vocabulary has no room for a merge.
    """
    if work is None:
        with TemporaryDirectory(dir=out.parent, prefix=".tokenizer.") as name:
            return build_tokenizer(section, corpus_dir, out, work=Path(name), workers=workers, identity=identity)
    try:
        funnel = read_json(Path(corpus_dir) / "funnel.json")
    except FileNotFoundError as error:
        raise UserError("no corpus", where=str(corpus_dir), mend="build the corpus stage first") from error
    tallies = {split: funnel["total"]["steps"][split] for split in SPLITS}
    if not tallies["train"]["documents"]:
        raise UserError("the corpus has no document to train on", where=str(corpus_dir), mend="see its funnel.json")
    folder = work / fingerprint([identity, section.model_dump(mode="json")])[:16]
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer, vocabulary = _vocabulary(section, Path(corpus_dir), folder, tallies["train"]["bytes"])
    tokenizer.save(out)
    write_json(out / "pieces.json", vocabulary["pieces"])
    metrics: dict[str, Any] = {
        "vocabulary_size": tokenizer.vocabulary_size,
        "engine": tokenizer.engine,
        "sample_bytes": vocabulary["sample_bytes"],
    }
    for split, tally in tallies.items():
        neutral = split == "validation"
        sources = [
            ShardSource(source["name"]) if neutral else ShardSource(source["name"], source["weight"], source["epochs"])
            for source in funnel["sources"]
        ]
        shards = out / "shards" / split
        metrics |= _write_split(tokenizer, Path(corpus_dir), split, sources, folder, shards, tally["bytes"], workers)
    if len(funnel["sources"]) > 1:
        for name, part in metrics["train_mixture"].items():
            log(f"{name}: {part['tokens']:,} tokens, {part['share']:.1%}; {part['share_of_a_pass']:.1%} of a pass")
    return metrics


def write_vocabulary(section: TokenizerSection, out: Path) -> dict[str, Any]:
    """Make out/tokenizer.json and out/pieces.json of an adopted vocabulary, for a run that has no corpus.

    Returns the stage's metrics. Raises UserError for files that `adopt` refuses.
    """
    if section.adopt is None:
        raise ValueError("without a corpus there is nothing to learn a vocabulary from")
    tokenizer, vocabulary = _make_vocabulary(section, out, 0)
    tokenizer.save(out)
    write_json(out / "pieces.json", vocabulary["pieces"])
    return {"vocabulary_size": tokenizer.vocabulary_size, "engine": tokenizer.engine}


def _vocabulary(section: TokenizerSection, corpus: Path, folder: Path, total: int) -> tuple[Tokenizer, dict[str, Any]]:
    """Make folder/tokenizer.json, unless it is there; it, and {"sample_bytes", "pieces"}."""
    record = folder / "vocabulary.json"
    if record.exists():
        return Tokenizer.load(folder), read_json(record)
    tokenizer, made = _make_vocabulary(section, corpus, total)
    tokenizer.save(folder)
    write_json(record, made)
    return tokenizer, made


def _make_vocabulary(section: TokenizerSection, corpus: Path, total: int) -> tuple[Tokenizer, dict[str, Any]]:
    """Adopt a vocabulary, or learn it from so many bytes of the corpus; it, and {"sample_bytes", "pieces"}."""
    pieces: dict[int, list[int]] = {}
    size = 0
    if section.adopt is not None:
        content, pieces = adopt(
            Path(section.adopt), split_pattern=section.split_pattern, reserved=section.reserved_tokens
        )
    else:
        expected = min(section.sample_bytes, total)
        with progress("learning merges", expected, "B") as bar:
            if expected < OWN_PROCESS:
                content, size = _learn(bar.update, section, str(corpus), total)
            else:
                content, size = in_process(_learn, section, str(corpus), total, heard=bar.update)
    if section.extra_tokens:
        present = Tokenizer(content).tokens()
        extra = [token for token in section.extra_tokens if token.encode() not in present]
        content, more = extend(content, extra, where="tokenizer.extra_tokens")
        pieces |= more
    tokenizer = Tokenizer(content)
    if section.adopt is None and tokenizer.vocabulary_size < section.vocabulary_size:
        log(
            f"the corpus gives {tokenizer.vocabulary_size} tokens, not the {section.vocabulary_size} asked for: "
            f"no pair occurs {section.min_frequency} times any more"
        )
    return tokenizer, {"sample_bytes": size, "pieces": {str(number): ids for number, ids in pieces.items()}}


def _learn(say: Callable[[float], None], section: TokenizerSection, corpus: str, total: int) -> tuple[str, int]:
    """(tokenizer.json, bytes of text) learned on the corpus's sample; tells how many bytes are read."""
    sample = Sample(Path(corpus), total, section.sample_bytes, say)
    learned = train_bpe(
        sample,
        section.vocabulary_size - len(section.extra_tokens),
        reserved=section.reserved_tokens,
        split_pattern=section.split_pattern or "qwen2",
        digits=section.digits,
        min_frequency=section.min_frequency,
    )
    return learned.to_str(pretty=True), sample.bytes


def _write_split(
    tokenizer: Tokenizer,
    corpus: Path,
    split: str,
    sources: list[ShardSource],
    folder: Path,
    out: Path,
    expected_bytes: int,
    workers: int,
) -> dict[str, Any]:
    """Encode one split into shards; its metrics, each named `<split>_…`."""
    tasks = make_tasks(corpus, split, folder, [source.name for source in sources])
    size = 0
    with progress(f"tokens of {split}", expected_bytes, "B") as bar:
        for record in in_processes(encode_unit, tasks, workers):
            size += record["bytes"]
            bar.advance(record["bytes"])
    parts = [Path(task["out"]) for task in tasks]
    join_shards(parts, out, sources)
    used = np.stack([np.fromfile(part / "counts.bin", "<u8") for part in parts]).sum(axis=0, dtype=np.uint64)
    write_bytes(out / "counts.bin", used.astype("<u8").tobytes())
    shards = TokenShards(out)
    count = int(shards.lengths.sum())
    return {
        f"{split}_documents": len(shards),
        f"{split}_tokens": count,
        f"{split}_bytes": size,
        f"{split}_bytes_per_token": size / max(1, count - len(shards)),
        f"{split}_median_document_tokens": float(np.median(shards.lengths)) if len(shards) else 0.0,
        f"{split}_vocabulary_used": float(np.count_nonzero(used) / len(used)),
        f"{split}_mixture": _mixture(sources, shards),
    }


def _mixture(sources: list[ShardSource], shards: TokenShards) -> dict[str, dict[str, float]]:
    """Of each source its documents and tokens, its share of the tokens, and its share of a pass by the weights."""
    documents = np.bincount(shards.source_numbers, minlength=len(sources))
    tokens = np.bincount(shards.source_numbers, weights=shards.lengths, minlength=len(sources))
    weighted = tokens * [source.weight for source in sources]
    shares, passed = tokens / max(1.0, tokens.sum()), weighted / max(1.0, weighted.sum())
    return {
        source.name: {
            "documents": int(documents[index]),
            "tokens": int(tokens[index]),
            "share": float(shares[index]),
            "share_of_a_pass": float(passed[index]),
        }
        for index, source in enumerate(sources)
    }
