"""The corpus stage on small real folders."""

import contextlib
import gzip
import json
import os
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from groundup import storyworld
from groundup.corpus import build_corpus, external_files, harvest, read_documents
from groundup.corpus.documents import Raw
from groundup.corpus.readers import texts as text_reader
from groundup.corpus.units import Unit
from groundup.recipe import CorpusSection
from groundup.run import UserError


def section(*paths: Any, **fields: Any) -> CorpusSection:
    return CorpusSection.model_validate({"sources": list(paths), **fields})


def texts(directory: Path, split: str = "train") -> list[str]:
    return [document.text for document in read_documents(directory, split)]


def everything(directory: Path) -> set[str]:
    return {*texts(directory), *texts(directory, "validation")}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "text"
    (folder / "deep").mkdir(parents=True)
    for number in range(50):
        (folder / "deep" / f"{number:02d}.txt").write_text(f"Text number {number}.")
    (folder / "copy.md").write_bytes(b"\xef\xbb\xbfText number 7.\r\n")
    (folder / "latin.txt").write_bytes("Schöne Grüße".encode("latin-1"))
    (folder / "empty.txt").write_text(" \n\n")
    (folder / "image.txt").write_bytes(b"\x89PNG\0\0\0")
    (folder / "picture.pdf").write_bytes(b"%PDF")
    (folder / ".hidden.txt").write_text("hidden")
    lines = [
        b'{"text": "one"}',
        b"{broken",
        b'{"other": 1}',
        b'{"text": 3}',
        b"[1]",
        b"",
        b'{"text": "tw\xffo"}',
    ]
    with gzip.open(folder / "rows.jsonl.gz", "wb") as file:
        file.write(b"\n".join([*lines, b'{"text": "\\ud83d\\ude00", "url": "https://example.org/a"}', b"[" * 10**5]))
    whole = gzip.compress(b"A text whose archive was cut short. " * 2000)
    (folder / "cut.txt.gz").write_bytes(whole[: len(whole) // 2])
    return folder


def test_folder(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    metrics = build_corpus(section(str(folder), passage_characters="whole"), seed=1, out=out)
    found = everything(out)
    assert {f"Text number {number}." for number in range(50)} <= found
    assert {"Schöne Grüße", "one", "twÿo", "😀"} <= found
    assert "hidden" not in found
    assert texts(out)
    assert texts(out, "validation")
    [source] = json.loads((out / "funnel.json").read_text())["sources"]
    counts = {rule: tally["documents"] for step in source["rejections"].values() for rule, tally in step.items()}
    assert counts == {
        "binary_file": 1, "broken_json": 2, "damaged_archive": 1, "exact_duplicate": 1, "empty": 1,
        "no_json_object": 1, "no_text_field": 1, "text_field_is_no_string": 1,
    }  # fmt: skip
    refused = source["rejections"]["read"]
    assert [place["record"] for place in refused["broken_json"]["examples"]] == [2, 9]
    assert refused["no_text_field"]["examples"] == [{"file": str(folder / "rows.jsonl.gz"), "record": 3}]
    assert source["skipped_files"] == {".pdf": 1}
    steps = {step: tally["documents"] for step, tally in source["steps"].items()}
    assert steps["extracted"] == steps["read"] - 7
    assert steps["cleaned"] == steps["extracted"] - 1  # the empty one
    assert steps["exact_duplicates"] == steps["cleaned"] - 1
    assert steps["kept"] == steps["train"] + steps["validation"] == len(found)
    assert steps["read"] == steps["kept"] + sum(counts.values())
    assert metrics["train_documents"] == len(texts(out))
    assert metrics["rejected"] == 9
    rejected = pq.read_table(out / "rejected").to_pylist()
    assert len(rejected) == 9
    assert {"broken_json", "empty"} <= {row["rule"] for row in rejected}
    [smile] = [d for split in ("train", "validation") for d in read_documents(out, split) if d.text == "😀"]
    assert smile.url == "https://example.org/a"


def test_two_builds_are_byte_identical(folder: Path, tmp_path: Path) -> None:
    chosen = section(str(folder), {"path": "builtin:storyworld", "documents": 300}, shard_bytes=2**16)
    for name in ("a", "b"):
        build_corpus(chosen, seed=3, out=tmp_path / name)
    files = sorted(path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("*") if path.is_file())
    assert len([path for path in files if path.name.startswith("train-")]) > 1
    for path in files:
        assert (tmp_path / "a" / path).read_bytes() == (tmp_path / "b" / path).read_bytes()


def test_one_long_file_has_both_sides(tmp_path: Path) -> None:
    play = tmp_path / "play.txt"
    play.write_text("\n\n".join(f"SPEAKER {number}:\nA line of verse, {number}." for number in range(900)))
    build_corpus(section(str(play), passage_characters=1000), seed=1, out=tmp_path / "out")
    train, held = texts(tmp_path / "out"), texts(tmp_path / "out", "validation")
    assert len(held) >= 1
    assert len(train) > 25
    assert sum(text.count("SPEAKER") for text in train + held) == 900


@pytest.mark.parametrize("count", [2, 3, 20])
def test_neither_side_is_empty(tmp_path: Path, count: int) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text("\n".join(json.dumps({"body": f"document {number}"}) for number in range(count)))
    chosen = section({"path": str(rows), "text_field": "body"}, validation_fraction=1e-9)
    build_corpus(chosen, seed=1, out=tmp_path / "out")
    assert len(texts(tmp_path / "out")) == count - 1
    assert len(texts(tmp_path / "out", "validation")) == 1


def test_a_text_keeps_its_side(tmp_path: Path) -> None:
    sides: list[set[str]] = []
    for name, numbers in (("a", range(300)), ("b", range(100, 400))):
        rows = tmp_path / f"{name}.jsonl"
        rows.write_text("\n".join(json.dumps({"text": f"document {number}"}) for number in numbers))
        build_corpus(section(str(rows), validation_fraction=0.2), seed=1, out=tmp_path / name)
        sides.append(set(texts(tmp_path / name, "validation")))
        assert not sides[-1] & set(texts(tmp_path / name))
    shared = {f"document {number}" for number in range(100, 300)}
    assert sides[0] & shared == sides[1] & shared != set()


@pytest.mark.parametrize("name", ["nowhere/at/all", "nothing/*.txt", "builtin:nothing", "", "file.pdf"])
def test_a_missing_source_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / "file.pdf").write_bytes(b"%PDF")
    path = name if name.startswith("builtin:") else str(tmp_path / name)
    with pytest.raises(UserError) as caught:
        build_corpus(section(path), seed=1, out=tmp_path / "out")
    assert repr(path) in caught.value.what
    assert caught.value.where == "corpus.sources[0]"


def test_a_corpus_of_one_document_is_refused(tmp_path: Path) -> None:
    (tmp_path / "one.txt").write_text("Only this.")
    with pytest.raises(UserError, match="none is left to train on"):
        build_corpus(section(str(tmp_path / "one.txt")), seed=1, out=tmp_path / "out")


def test_documents_limits_a_source(folder: Path, tmp_path: Path) -> None:
    build_corpus(section({"path": str(folder / "deep"), "documents": 5}), seed=1, out=tmp_path / "out")
    assert everything(tmp_path / "out") == {f"Text number {number}." for number in range(5)}


def test_surrogates_in_records_and_file_names(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"text": "a", "url": "\\ud800"}\n{"text": "b"}\n{"\\udc00": ')
    with contextlib.suppress(OSError):  # a file system that takes UTF-8 names only
        Path(os.fsdecode(bytes(tmp_path) + b"/\xff.txt")).write_text(" ")
    build_corpus(section(str(tmp_path)), seed=1, out=tmp_path / "out")
    assert {d.url for split in ("train", "validation") for d in read_documents(tmp_path / "out", split)} == {
        "\ufffd",
        None,
    }


def test_a_long_file_is_read_in_blocks_cut_at_blank_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_reader, "BLOCK", 4096)
    paragraphs = [f"Absatz {number}: " + "größer " * 40 + "Ende." for number in range(6000)]
    with gzip.open(tmp_path / "long.txt.gz", "wt", encoding="utf-8") as file:
        file.write("\n\n".join(paragraphs))
    build_corpus(section(str(tmp_path), passage_characters=5000), seed=1, out=tmp_path / "out")
    found = [part for text in everything(tmp_path / "out") for part in text.split("\n\n")]
    assert sorted(found) == sorted(paragraphs)
    funnel = json.loads((tmp_path / "out" / "funnel.json").read_text())
    assert funnel["sources"][0]["files"] == 1
    assert funnel["total"]["steps"]["read"]["documents"] >= 4


def test_external_files(folder: Path) -> None:
    files = external_files(section(str(folder / "deep" / "0*.txt"), str(folder / "deep"), "builtin:storyworld"))
    assert files == [folder / "deep" / f"{number:02d}.txt" for number in range(50)]
    assert "argparse.py" in {path.name for path in external_files(section("builtin:python-docs"))}


def test_chats_keep_their_messages_and_are_not_those_of_fine_tuning(tmp_path: Path) -> None:
    chosen = section({"path": "builtin:storyworld-chats", "documents": 50}, passage_characters=200)
    build_corpus(chosen, seed=1, out=tmp_path)
    documents = [document for split in ("train", "validation") for document in read_documents(tmp_path, split)]
    assert len(documents) == 50
    tuning = {chat[0]["content"] for chat in storyworld.conversations(1, 2000)}
    for document in documents:
        messages = json.loads(document.messages or "")
        assert [message["role"] for message in messages[:2]] == ["user", "assistant"]
        assert document.text == "\n".join(message["content"] for message in messages)
        assert messages[0]["content"] not in tuning
    assert max(len(document.text) for document in documents) > 400


def test_python_docs(tmp_path: Path) -> None:
    metrics = build_corpus(section("builtin:python-docs"), seed=1, out=tmp_path / "out")
    assert metrics["train_bytes"] > 1_000_000
    whole = "\n".join(everything(tmp_path / "out"))
    assert "module textwrap" in whole
    assert "def wrap(text, width=70, **kwargs)" in whole
    assert "class TextWrapper" in whole


def test_memory_does_not_grow_with_the_corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten times the text costs its keys and no more."""
    filler = "all work and no play makes jack a dull boy " * 60

    def many(unit: Unit, *_: object) -> Iterator[Raw]:
        for number in range(unit.documents or 0):
            yield Raw(f"{number} {filler}")

    monkeypatch.setattr(harvest, "read_unit", many)
    peaks = []
    for count in (1500, 15000):  # 4 and 40 MB; a segment's keys and a few row groups are always in memory
        pool = pa.default_memory_pool()
        tracemalloc.start()
        chosen = section({"path": "builtin:storyworld", "documents": count}, shard_bytes=4 * 2**20)
        build_corpus(chosen, seed=1, out=tmp_path / str(count))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert pool.bytes_allocated() < 2**26
    assert peaks[1] - peaks[0] < 13500 * 130 + 2**20
    assert peaks[1] < 48 * 2**20
