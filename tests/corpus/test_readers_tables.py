"""Readers of tables and Parquet: every row comes back, broken ones cost no other."""

import csv
import gzip
import io
import json
import os
import random
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from groundup.corpus.documents import Part, Raw, ReaderOptions, Refused
from groundup.corpus.readers import format_of, parquet_row_groups, read_part

OPTIONS = ReaderOptions()
plain_text = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)
packers = {"": bytes, ".gz": gzip.compress, ".zst": zstandard.ZstdCompressor().compress}


def read(path: Path, kind: str = "", options: ReaderOptions = OPTIONS, **fields: Any) -> list[Raw | Refused]:
    part = Part(str(path), kind or format_of(path.name) or "", path.stat().st_size, **fields)
    return list(read_part(part, options))


def written(path: Path, data: bytes) -> list[Raw | Refused]:
    path.write_bytes(data)
    return read(path)


def texts_of(found: list[Raw | Refused]) -> list[str]:
    return [item.text for item in found if isinstance(item, Raw)]


def refusals(found: list[Raw | Refused]) -> list[tuple[int, str]]:
    return [(item.record, item.reason) for item in found if isinstance(item, Refused)]


def table(rows: list[list[str]], delimiter: str = ",", **options: Any) -> bytes:
    file = io.StringIO()
    csv.writer(file, delimiter=delimiter, **options).writerows(rows)
    return file.getvalue().encode()


@given(st.data())
@settings(max_examples=30)
def test_every_row_is_read(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    field = st.text(st.sampled_from("ab\"',;\t\n é😀") | st.characters(exclude_categories=["Cs", "Cc"]))
    rows = data.draw(st.lists(st.tuples(field, field.filter(bool)), max_size=8))
    suffix, delimiter = data.draw(st.sampled_from([(".csv", ","), (".tsv", "\t"), (".csv", ";"), (".csv", "\t")]))
    terminator = data.draw(st.sampled_from(["\n", "\r\n"]))
    content = table([["id", "text"], *map(list, rows)], delimiter, lineterminator=terminator)
    path = tmp_path_factory.mktemp("table") / f"a{suffix}"
    assert texts_of(written(path, content)) == [text for _, text in rows]


def test_broken_rows_cost_no_other(tmp_path: Path) -> None:
    lines = [
        "id,text,url",
        "1,one,http://one",
        "2,too,many,fields",
        "3",
        '4,"two\nlines, ""quoted""",',
        "",
        '5,a "mark" inside,',
        '6,"sloppy" marks,',
        '7,"never closed,',
        "8,eight,",
        "9,nine,",
        '10,"open again',
        "11,eleven,",
    ]
    found = written(tmp_path / "a.csv", "\n".join(lines).encode())
    assert [(item.record, item.text) for item in found if isinstance(item, Raw)] == [
        (2, "one"),
        (5, 'two\nlines, "quoted"'),
        (8, 'a "mark" inside'),
        (9, "sloppy marks"),
        (11, "eight"),
        (12, "nine"),
        (14, "eleven"),
    ]
    assert refusals(found) == [(3, "broken_row"), (4, "broken_row"), (10, "broken_row"), (13, "broken_row")]
    assert found[0] == Raw("one", str(tmp_path / "a.csv"), 2, "http://one", encoding="utf-8")


def test_marks_in_tables_separated_by_tabs(tmp_path: Path) -> None:
    found = written(tmp_path / "a.tsv", b'text\tn\n"Hello\t1\n12" disk\t2\n"a ""b"""\t3\n')
    assert texts_of(found) == ['"Hello', '12" disk', 'a "b"']


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"id,content\n1,x\n", [(1, "no_text_field")]),
        (b"", [(0, "no_text_field")]),
        (b"\n \n", [(0, "no_text_field")]),
        (b"text", []),
        (b"\x89PNG\0\0", [(0, "binary_file")]),
        (b"text\n" + b"x" * 200_000 + b"\n", []),
        (b"y" * 200_000, [(1, "no_text_field")]),
        (b'"text\n1', []),
        (b"TEXT\n1", [(1, "no_text_field")]),
        (b"id,te\rxt,text\n1,2", [(1, "no_text_field")]),
    ],
)
def test_headers(content: bytes, expected: list[tuple[int, str]], tmp_path: Path) -> None:
    assert refusals(written(tmp_path / "a.csv", content)) == expected


def test_a_table_in_an_older_character_set(tmp_path: Path) -> None:
    rows = ["Съешь же ещё этих мягких", "французских булок,\nда выпей чаю", "да"]
    content = table([["id", "text"], *([str(number), row] for number, row in enumerate(rows))])
    found = written(tmp_path / "a.csv", content.decode().encode("cp1251"))
    assert texts_of(found) == rows
    assert {item.encoding for item in found if isinstance(item, Raw)} == {"cp1251"}


def test_a_truncated_table(tmp_path: Path) -> None:
    rows = [[str(number), f'"{number}"\nsecond line ' * 20] for number in range(2000)]
    packed = gzip.compress(table([["id", "text"], *rows]))
    found = written(tmp_path / "a.csv.gz", packed[: len(packed) // 2])
    texts = texts_of(found)
    assert texts == [text for _, text in rows[: len(texts)]]
    assert len(texts) > 500
    assert [reason for _, reason in refusals(found)] == ["damaged_archive"]


def test_many_stray_marks_take_linear_time(tmp_path: Path) -> None:
    lines = b"id,text\n" + b'1,"open\n' * 30_000
    found = written(tmp_path / "a.csv", lines)
    assert len(found) == 30_000  # each line is a broken row of its own, read twice at most


# Parquet


def parquet(path: Path, table: pa.Table, **options: Any) -> list[Raw | Refused]:
    pq.write_table(table, path, **options)
    return read(path)


@pytest.mark.parametrize(
    "kind",
    [pa.string(), pa.large_string(), pa.binary(), pa.large_binary(), pa.string_view(),
     pa.dictionary(pa.int32(), pa.string())],
    ids=str,
)  # fmt: skip
def test_columns_of_text(kind: pa.DataType, tmp_path: Path) -> None:
    values = ["one", None, "Grüße 😀", "", "one"]
    column = pa.array(values, pa.string()).cast(kind)
    found = parquet(
        tmp_path / "a.parquet", pa.table({"id": range(5), "text": column, "url": ["u", None, "v", "w", "x"]})
    )
    assert [(item.record, item.text) for item in found if isinstance(item, Raw)] == [
        (1, "one"),
        (3, "Grüße 😀"),
        (4, ""),
        (5, "one"),
    ]
    assert refusals(found) == [(2, "null_text")]
    assert found[0] == Raw("one", str(tmp_path / "a.parquet"), 1, "u", encoding="utf-8")


def test_columns_that_are_no_text(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    (missing,) = parquet(path, pa.table({"content": ["x"], "n": [1]}))
    assert isinstance(missing, Refused)
    assert missing.reason == "no_text_field"
    assert "content (string), n (int64)" in missing.excerpt
    assert refusals(parquet(path, pa.table({"text": [1.5]}))) == [(0, "text_field_is_no_string")]
    assert refusals(parquet(path, pa.table({"text": [["x"]]}))) == [(0, "text_field_is_no_string")]
    assert refusals(written(path, b"PAR1 but not really PAR1")) == [(0, "damaged_archive")]
    assert refusals(written(path, b"")) == [(0, "damaged_archive")]


def test_chats_in_parquet(tmp_path: Path) -> None:
    chat = [{"role": "user", "content": "Hi."}, {"role": "assistant", "content": "Hello."}]
    (found,) = parquet(tmp_path / "a.parquet", pa.table({"messages": [chat]}))
    assert isinstance(found, Raw)
    assert (found.messages, found.text) == (chat, "Hi.\nHello.")
    found, plain = parquet(tmp_path / "b.parquet", pa.table({"messages": [json.dumps(chat), None], "text": ["", "x"]}))
    assert isinstance(found, Raw)
    assert found.messages == chat
    assert isinstance(plain, Raw)
    assert (plain.messages, plain.text) == (None, "x")


@given(st.lists(plain_text, max_size=30), st.integers(1, 7), st.lists(st.integers(0, 30), max_size=3))
@settings(max_examples=25)
def test_every_row_group_is_read_once(
    tmp_path_factory: pytest.TempPathFactory, strings: list[str], rows: int, cuts: list[int]
) -> None:
    path = tmp_path_factory.mktemp("groups") / "a.parquet"
    pq.write_table(pa.table({"text": pa.array(strings, pa.string())}), path, row_group_size=rows)
    groups = len(parquet_row_groups(str(path)))
    assert groups == max(1, -(-len(strings) // rows)) or not strings
    borders = sorted(min(cut, groups) for cut in cuts)
    found: list[Raw | Refused] = []
    for start, stop in zip([0, *borders], [*borders, None], strict=True):
        found += read(path, start=start, stop=stop)
    assert texts_of(found) == strings
    assert [item.record for item in found] == list(range(1, len(strings) + 1))


def test_names_that_are_no_utf8(tmp_path: Path) -> None:
    table = pa.table({"text": ["one"], "license": ["MIT"]})
    pq.write_table(table, tmp_path / "a.parquet")
    name = os.fsdecode(os.fsencode(tmp_path) + b"/\xff.parquet")
    os.rename(tmp_path / "a.parquet", name)
    assert len(parquet_row_groups(name)) == 1
    (found,) = read_part(Part(name, "parquet", 0), OPTIONS)
    assert found == Raw("one", name, 1, licence="MIT", encoding="utf-8")


def test_parquet_behind_a_url(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": ["one", "two"]}), tmp_path / "a.parquet", row_group_size=1)
    fsspec.filesystem("memory").pipe("/a.parquet", (tmp_path / "a.parquet").read_bytes())
    assert len(parquet_row_groups("memory://a.parquet")) == 2
    assert texts_of(list(read_part(Part("memory://a.parquet", "parquet", 0, 1, 2), OPTIONS))) == ["two"]
    gone = list(read_part(Part("memory://gone.parquet", "parquet", 0), OPTIONS))
    assert refusals(gone) == [(0, "unreadable_file")]


def test_a_file_that_has_shrunk_since_it_was_cut(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": ["one"]}), tmp_path / "a.parquet")
    (tmp_path / "a.jsonl").write_text('{"text": "one"}\n')
    for name in ("a.parquet", "a.jsonl"):
        assert read(tmp_path / name, start=100, stop=200) == []


def test_row_groups_of_what_cannot_be_cut(tmp_path: Path) -> None:
    table = pa.table({"text": ["a" * 1000, "b"]})
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=1)
    first, second = parquet_row_groups(str(tmp_path / "a.parquet"))
    assert first > second > 0
    packed = gzip.compress((tmp_path / "a.parquet").read_bytes())
    assert texts_of(written(tmp_path / "a.parquet.gz", packed)) == ["a" * 1000, "b"]
    for name in ("a.parquet.gz", "gone.parquet", "folder.parquet"):
        assert parquet_row_groups(str(tmp_path / name)) == []
    assert refusals(written(tmp_path / "b.parquet.gz", packed[:-20])) == [(0, "damaged_archive")]


def test_a_damaged_row_group_costs_no_other(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    texts = [random.Random(number).randbytes(300).hex() for number in range(30)]
    pq.write_table(pa.table({"text": texts}), path, row_group_size=10, compression="gzip", use_dictionary=False)
    column = pq.read_metadata(path).row_group(1).column(0)
    data = bytearray(path.read_bytes())
    middle = column.data_page_offset + column.total_compressed_size // 2
    data[middle : middle + 30] = bytes(30)
    found = written(path, bytes(data))
    assert texts_of(found) == texts[:10] + texts[20:]
    assert refusals(found) == [(11, "damaged_archive")]


def test_strings_that_are_not_utf8(tmp_path: Path) -> None:
    bad = pa.Array.from_buffers(pa.string(), 2, pa.array([b"gr\xfc\xdfe", b"x"]).buffers())
    (first, second) = parquet(tmp_path / "a.parquet", pa.table({"text": bad}))
    assert isinstance(first, Raw)
    assert (first.text, first.encoding) == ("grüße", "cp1252")
    assert isinstance(second, Raw)
    assert second.text == "x"


def test_parquet_ends_at_the_limit(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": ["x" * 10_000] * 1000}), path, row_group_size=100)
    assert path.stat().st_size < 100_000
    found = read(path, options=ReaderOptions(unpacked_limit=2 * 10**6))
    assert 100 <= len(texts_of(found)) <= 200
    assert [reason for _, reason in refusals(found)] == ["unpacked_limit"]


def test_naughty_strings_come_back(real_data: Path, tmp_path: Path) -> None:
    """The Big List of Naughty Strings through every format of records, plain and compressed."""
    strings = json.loads((real_data / "conformance" / "blns.json").read_bytes())
    assert len(strings) > 500
    rows = [json.dumps({"text": each}, ensure_ascii=number % 2 == 0).encode() for number, each in enumerate(strings)]
    single = [each for each in strings if each and "\r" not in each]  # a row of one empty field is a blank line
    for suffix, pack in packers.items():
        assert texts_of(written(tmp_path / f"a.jsonl{suffix}", pack(b"\n".join(rows)))) == strings
        assert texts_of(written(tmp_path / f"a.json{suffix}", pack(b"[" + b", ".join(rows) + b"]"))) == strings
        assert texts_of(written(tmp_path / f"a.csv{suffix}", pack(table([["text"], *([s] for s in single)])))) == single
    assert texts_of(parquet(tmp_path / "a.parquet", pa.table({"text": strings}))) == strings
