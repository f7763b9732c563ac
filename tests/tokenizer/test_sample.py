"""The sample that merges are learned from: drawn by digests, never beyond its limit, the same in any files."""

import hashlib
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from groundup.recipe import TokenizerSection
from groundup.run import write_json
from groundup.tokenizer import Tokenizer, build_tokenizer
from groundup.tokenizer.sample import Sample


def corpus(directory: Path, texts: list[str], rows: int = 7) -> Path:
    """A corpus directory of these training texts."""
    (directory / "documents").mkdir(parents=True)
    columns = {
        "id": [hashlib.blake2b(text.encode(), digest_size=16).hexdigest() for text in texts],
        "text": texts,
        "mixture": ["m"] * len(texts),
    }
    table = pa.table(columns)
    pq.write_table(table, directory / "documents" / "train-00000.parquet", row_group_size=rows)
    pq.write_table(table.slice(0, 0), directory / "documents" / "validation-00000.parquet")
    tally = {"documents": len(texts), "bytes": sum(len(text.encode()) for text in texts)}
    steps = {"train": tally, "validation": {"documents": 0, "bytes": 0}}
    sources = [{"name": "m", "weight": 1.0, "epochs": None}]
    write_json(directory / "funnel.json", {"total": {"steps": steps}, "sources": sources})
    return directory


def drawn(directory: Path, texts: list[str], limit: int) -> list[str]:
    sample = Sample(directory, sum(len(text.encode()) for text in texts), limit, lambda _: None)
    found = list(sample)
    assert list(sample) == found
    assert sample.bytes == sum(len(text.encode()) for text in found) <= limit
    return found


@pytest.mark.parametrize("limit", [1, 50, 1000, 5000, 10**6])
def test_the_lowest_digests_that_fit(tmp_path: Path, limit: int) -> None:
    texts = [f"Document {n} é " + "x" * (n % 40) for n in range(300)]
    found = drawn(corpus(tmp_path / "a", texts), texts, limit)
    if limit == 10**6:
        assert found == texts
        return

    def key(text: str) -> int:
        return int(hashlib.blake2b(text.encode(), digest_size=16).hexdigest()[16:28], 16)

    order = sorted(texts, key=key)
    held, size = [order[0]], len(order[0].encode())
    for text in order[1:]:
        size += len(text.encode())
        if size > limit:
            break
        held.append(text)
    expected = [text for text in texts if text in held]
    assert found == ([expected[0].encode()[:limit].decode("utf-8", "ignore")] if limit < 10 else expected)
    shuffled = sorted(texts)
    assert sorted(drawn(corpus(tmp_path / "b", shuffled, rows=50), shuffled, limit)) == sorted(found)


def test_large_documents_give_at_least_one(tmp_path: Path) -> None:
    """Documents of a novel's length, and a sample smaller than any of them."""
    texts = [f"{n} the cat sat on the mat and the dog ran. " * 500 for n in range(12)]
    found = drawn(corpus(tmp_path, texts), texts, 4096)
    assert len(found) == 1
    assert 4090 <= len(found[0]) <= 4096
    section = TokenizerSection(vocabulary_size=512, sample_bytes=4096)
    metrics = build_tokenizer(section, tmp_path, tmp_path / "out")
    assert metrics["sample_bytes"] <= 4096
    assert Tokenizer.load(tmp_path / "out").vocabulary_size > 290
