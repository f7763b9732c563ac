"""Units of work: every byte and row group in one of them, whatever the target; and what is read of them."""

import gzip
import json
import os
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from groundup import storyworld
from groundup.corpus import units
from groundup.corpus.documents import Part, Raw, ReaderOptions, Refused
from groundup.corpus.sources import Source, resolve_sources
from groundup.corpus.units import Unit, content_bytes, cut, make_units, read_unit
from groundup.recipe import CorpusSection, SourceTable


def units_of(*sources: Any, target: int = 2**20) -> tuple[list[Source], list[Unit]]:
    found = resolve_sources(CorpusSection.model_validate({"sources": list(sources)}))
    return found, make_units(found, target)


def read(sources: list[Source], made: list[Unit], seed: int = 1) -> list[Raw | Refused]:
    return [item for unit in made for item in read_unit(unit, sources[unit.source].table, ReaderOptions(), seed)]


def texts(items: list[Raw | Refused]) -> list[str]:
    assert all(isinstance(item, Raw) for item in items)
    return [item.text for item in items if isinstance(item, Raw)]


PARTS = st.builds(
    Part,
    st.sampled_from(["a.txt", "b.jsonl", "c.jsonl.gz", "d.html", "e.jsonl.zst", "f.warc.xz"]),
    st.just("text"),
    st.integers(0, 5000),
).map(lambda part: Part(part.path, "jsonl" if "jsonl" in part.path else "text", part.bytes))


@given(
    st.lists(st.tuples(st.lists(PARTS, max_size=12), st.none() | st.integers(1, 9)), max_size=4), st.integers(1, 9000)
)
def test_every_byte_is_in_one_unit(sources: list[tuple[list[Part], int | None]], target: int) -> None:
    given_sources = [
        Source(f"s{index}", SourceTable(path="s", documents=limit), index, tuple(parts))
        for index, (parts, limit) in enumerate(sources)
    ]
    made = make_units(given_sources, target)
    assert [unit.index for unit in made] == list(range(len(made)))
    assert [unit.source for unit in made] == sorted(unit.source for unit in made)
    for source in given_sources:
        own = [unit for unit in made if unit.source == source.index]
        pieces = [part for unit in own for part in unit.parts]
        at = 0
        for part in source.parts:  # each file in turn: alone, or its stretches one after another
            covered = 0
            while True:
                piece = pieces[at]
                at += 1
                assert (piece.path, piece.format, piece.start) == (part.path, part.format, covered)
                covered = part.bytes if piece.stop is None else piece.stop
                assert piece.bytes == covered - piece.start
                if covered == part.bytes:
                    break
                assert part.path == "b.jsonl"
        assert at == len(pieces)
        if source.table.documents is not None:
            assert [unit.documents for unit in own] == [source.table.documents]
            assert own[0].parts == source.parts
            continue
        for unit in own:
            assert sum(map(content_bytes, unit.parts)) <= target or len(unit.parts) == 1
        for before, unit in pairwise(own):  # each as full as the order allows
            assert sum(map(content_bytes, before.parts)) + content_bytes(unit.parts[0]) > target


LINES = st.lists(st.text(st.characters(codec="utf-8"), max_size=30), min_size=1, max_size=40)


@settings(max_examples=40)
@given(LINES, st.integers(1, 300), st.sampled_from(["\n", "\r\n", "\n\n"]), st.booleans())
def test_a_json_lines_file_in_stretches(
    tmp_path_factory: pytest.TempPathFactory, lines: list[str], target: int, end: str, ended: bool
) -> None:
    file = tmp_path_factory.mktemp("lines") / "rows.jsonl"
    content = end.join(json.dumps({"text": text}, ensure_ascii=False) for text in lines) + (end if ended else "")
    file.write_bytes(content.encode())
    sources, made = units_of(str(file), target=target)
    assert len(made) == -(-file.stat().st_size // target)
    found = read(sources, made)
    assert texts(found) == lines
    whole = read(*units_of(str(file), target=10**9))
    assert [item.record for item in found] == [item.record for item in whole]


@settings(max_examples=25)
@given(st.lists(st.lists(st.text(st.characters(codec="utf-8"), max_size=20), max_size=5), min_size=1, max_size=8),
       st.integers(1, 2000))  # fmt: skip
def test_a_parquet_file_by_row_groups(
    tmp_path_factory: pytest.TempPathFactory, groups: list[list[str]], target: int
) -> None:
    file = tmp_path_factory.mktemp("groups") / "rows.parquet"
    with pq.ParquetWriter(file, pa.schema([("text", pa.string())])) as writer:
        for rows in groups:
            writer.write_table(pa.table({"text": pa.array(rows, pa.string())}), row_group_size=max(1, len(rows)))
    sources, made = units_of(str(file), target=target)
    assert texts(read(sources, made)) == [row for rows in groups for row in rows]
    pieces = [part for unit in made for part in unit.parts]
    assert sum(part.bytes for part in pieces) == file.stat().st_size
    if len(pieces) > 1:
        assert [part.start for part in pieces] == [0, *(part.stop for part in pieces[:-1])]
        assert pieces[-1].stop == pq.ParquetFile(file).num_row_groups
    again = [Unit.from_json(json.loads(json.dumps(unit.as_json()))) for unit in made]
    assert again == made


def test_row_groups_go_together_up_to_the_target(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(units, "parquet_row_groups", lambda path: [50, 40, 30, 200, 10, 0])
    pieces = cut(Part("a.parquet", "parquet", 330), 100)
    assert [(piece.start, piece.stop) for piece in pieces] == [(0, 2), (2, 3), (3, 4), (4, 6)]
    assert sum(piece.bytes for piece in pieces) == 330
    assert cut(Part("a.parquet", "parquet", 50), 100) == [Part("a.parquet", "parquet", 50)]
    assert len(cut(Part("https://host/a.parquet", "parquet", 330), 100)) == 1
    monkeypatch.setattr(units, "parquet_row_groups", lambda path: [])  # damaged: its reader says so
    assert cut(Part("a.parquet", "parquet", 330), 100) == [Part("a.parquet", "parquet", 330)]


def test_what_is_not_cut() -> None:
    for part in (
        Part("a.jsonl.gz", "jsonl", 1000),
        Part("a.txt", "text", 1000),
        Part("a.csv", "csv", 1000),
        Part("https://host/a.jsonl", "jsonl", 1000),
    ):
        assert cut(part, 10) == [part]
    assert len(cut(Part("s3://bucket/a.jsonl", "jsonl", 1000), 10)) == 100
    assert content_bytes(Part("a.jsonl.gz", "jsonl", 10)) == 30
    assert content_bytes(Part("https://host/a.txt.xz?x=1", "text", 10)) == 40


def test_compressed_lines_under_a_plain_name_are_read_once(tmp_path: Path) -> None:
    rows = [f"document {number}" for number in range(500)]
    data = "\n".join(json.dumps({"text": row}) for row in rows).encode()
    (tmp_path / "rows.jsonl").write_bytes(gzip.compress(data))
    (tmp_path / "wide.jsonl").write_bytes(data.decode().encode("utf-16"))
    sources, made = units_of(str(tmp_path), target=300)
    assert len(made) > 10
    assert texts(read(sources, made)) == rows + rows


def test_a_number_of_documents_counts_along_the_source(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        lines = [json.dumps({"text": f"{name}1"}), "broken", json.dumps({"text": f"{name}2"}), "broken"]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(lines))
    sources, made = units_of({"path": str(tmp_path), "documents": 3}, target=1)
    assert len(made) == 1
    found = read(sources, made)
    assert [item.text if isinstance(item, Raw) else item.reason for item in found] == [
        "a1", "broken_json", "a2", "broken_json", "b1"
    ]  # fmt: skip
    assert [Path(item.file).name for item in found] == ["a.jsonl"] * 4 + ["b.jsonl"]


def test_programs_that_nobody_wrote_are_refused(tmp_path: Path) -> None:
    (tmp_path / "LICENSE").write_text("Mozilla Public License Version 2.0")
    (tmp_path / "a.go").write_text("// Code generated by x. DO NOT EDIT.\n")
    (tmp_path / "b.js").write_text("var a=1;" * 1000)
    (tmp_path / "c.py").write_text("print(1)\n")
    (tmp_path / "d.py").write_bytes(b"\0\1\2\3" * 100)
    sources, made = units_of({"path": str(tmp_path), "format": "code"})
    found = {Path(item.file).name: item for item in read(sources, made)}
    assert {name: item.reason for name, item in found.items() if isinstance(item, Refused)} == {
        "a.go": "generated_code", "b.js": "minified_code", "d.py": "binary_file"
    }  # fmt: skip
    program = found["c.py"]
    assert isinstance(program, Raw)
    assert (program.text, program.licence) == ("print(1)\n", "MPL-2.0 (LICENSE)")
    assert len(found["b.js"].excerpt) == 1500  # type: ignore[union-attr]


def test_built_in_texts() -> None:
    sources, made = units_of(
        {"path": "builtin:storyworld", "documents": 5}, {"path": "builtin:storyworld-chats", "documents": 4},
        "builtin:storyworld", "builtin:python-docs",
    )  # fmt: skip
    assert [(unit.builtin, unit.documents, unit.parts) for unit in made] == [
        ("builtin:storyworld", 5, ()), ("builtin:storyworld-chats", 4, ()),
        ("builtin:storyworld", None, ()), ("builtin:python-docs", None, ()),
    ]  # fmt: skip
    stories = read(sources, made[:1], seed=3)
    assert texts(stories) == list(storyworld.documents(3, 5))
    assert [(raw.file, raw.record) for raw in stories] == [("builtin:storyworld", number) for number in range(1, 6)]
    chats = read(sources, made[1:2])
    assert len(chats) == 4
    for chat in chats:
        assert isinstance(chat, Raw)
        assert chat.messages is not None
        assert chat.text == "\n".join(message["content"] for message in chat.messages)
    library = read(sources, made[3:])
    by_file = {item.file: item for item in library}
    assert "def wrap(text, width=70, **kwargs)" in getattr(by_file["textwrap.py"], "text", "")
    assert len([item for item in library if item.file == "pydoc_data/topics.py"]) > 50
    assert not any(Path(item.file).is_absolute() for item in library)


def test_units_survive_json_whatever_their_files_are_called() -> None:
    strange = os.fsdecode(b"dir/\xff\xfe.jsonl")
    unit = Unit(3, 1, (Part(strange, "jsonl", 9, 2, 7), Part("ö.py", "code", 1, licence="MIT (LICENSE)")), None, 8)
    text = json.dumps(unit.as_json(), ensure_ascii=False)
    text.encode("utf-8")
    assert Unit.from_json(json.loads(text)) == unit
    builtin = Unit(0, 0, builtin="builtin:storyworld")
    assert Unit.from_json(json.loads(json.dumps(builtin.as_json()))) == builtin


@pytest.fixture
def memory() -> Iterator[Any]:
    store = fsspec.filesystem("memory")
    store.store.clear()
    yield store
    store.store.clear()


def test_remote_files_are_read_like_local_ones(memory: Any, tmp_path: Path) -> None:
    rows = [f"document {number}" for number in range(200)]
    data = "\n".join(json.dumps({"text": row}) for row in rows).encode()
    pq.write_table(pa.table({"text": rows}), tmp_path / "c.parquet", row_group_size=20)
    for name, content in {"a.jsonl": data, "b.jsonl.gz": gzip.compress(data)}.items():
        (tmp_path / name).write_bytes(content)
    for file in tmp_path.iterdir():
        memory.pipe(f"/set/{file.name}", file.read_bytes())
    local_sources, local = units_of(str(tmp_path), target=1000)
    sources, made = units_of("memory://set", target=1000)
    assert texts(read(sources, made)) == texts(read(local_sources, local)) == rows * 3
    assert [[(Path(p.path).name, p.bytes, p.start, p.stop) for p in unit.parts] for unit in made] == [
        [(Path(p.path).name, p.bytes, p.start, p.stop) for p in unit.parts] for unit in local
    ]
