"""Readers of texts, pages and JSON: nothing is lost, and what cannot be read is counted."""

import gzip
import io
import json
from pathlib import Path
from typing import Any

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from groundup.corpus.documents import Part, Raw, ReaderOptions, Refused
from groundup.corpus.readers import FORMATS, format_of, is_splittable, read_part, texts
from groundup.corpus.readers.json_values import read_values

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


@pytest.mark.parametrize(
    ("name", "expected", "splittable"),
    [
        ("a.txt", "text", False),
        ("a/b.c/README.MD", "text", False),
        ("a.rst.xz", "text", False),
        ("page.XHTML.gz", "html", False),
        ("a.jsonl", "jsonl", True),
        ("a.ndjson", "jsonl", True),
        ("a.jsonl.zst", "jsonl", False),
        ("c4-train.00000-of-01024.json.gz", "jsonl", False),
        ("a.json", "jsonl", False),
        ("a.tsv.bz2", "csv", False),
        ("hf://datasets/x/y/train-00000.parquet", "parquet", False),
        ("https://host/a.parquet?download=true", "parquet", False),
        ("CC-MAIN-2024.warc.gz", "warc", False),
        ("CC-MAIN-2024.warc.wet.gz", "wet", False),
        ("CC-MAIN-2024.warc.wat.gz", None, False),
        ("old.arc.gz", "arc", False),
        ("enwiki-20240301-pages-articles1.xml-p1p41242.bz2", "mediawiki", False),
        ("enwiki-latest-pages-articles-multistream.xml.bz2", "mediawiki", False),
        ("a.tar.gz", None, False),
        ("a.pdf", None, False),
        ("Makefile", None, False),
        (".txt", None, False),
        ("s3://bucket/a?b#c.jsonl", "jsonl", True),
        ("a.gz", None, False),
    ],
)
def test_formats_by_name(name: str, expected: str | None, splittable: bool) -> None:
    assert format_of(name) == expected
    assert is_splittable(name) == splittable


def test_every_format_has_a_reader(tmp_path: Path) -> None:
    for suffix, kind in FORMATS.items():
        path = tmp_path / f"file{suffix}"
        path.write_bytes(b"")
        assert all(item.file == str(path) for item in read(path, kind))


# Texts and pages


def test_a_text_is_a_document(tmp_path: Path) -> None:
    (found,) = written(tmp_path / "a.md", "\ufeffGrüße\r\n".encode())
    assert found == Raw("Grüße\r\n", str(tmp_path / "a.md"), encoding="utf-8")
    (empty,) = written(tmp_path / "empty.txt", b"")
    assert empty == Raw("", str(tmp_path / "empty.txt"), encoding="utf-8")
    assert refusals(written(tmp_path / "image.txt", b"\x89PNG\0\0\0")) == [(0, "binary_file")]


def test_a_program_has_its_licence(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("print()")
    (found,) = read(tmp_path / "a.py", "code", licence="MIT (LICENSE)")
    assert found == Raw("print()", str(tmp_path / "a.py"), licence="MIT (LICENSE)", encoding="utf-8")


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_wide_files_of_every_kind(encoding: str, newline: str, tmp_path: Path) -> None:
    rows = ["Grüße", "😀 日本", "x"]
    contents = {
        "a.txt": "\n".join(rows),
        "a.jsonl": "\n".join(json.dumps({"text": row}) for row in rows),
        "a.json": json.dumps([{"text": row} for row in rows], indent=1, ensure_ascii=False),
        "a.csv": "\n".join(["text", *rows]),
    }
    for name, content in contents.items():
        for suffix, pack in packers.items():
            found = written(tmp_path / (name + suffix), pack(content.replace("\n", newline).encode(encoding)))
            assert "\n".join(texts_of(found)).replace("\r", "") == "\n".join(rows)
            assert {item.encoding for item in found if isinstance(item, Raw)} == {encoding}
            assert not refusals(found)


def test_a_long_text_is_read_in_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(texts, "BLOCK", 4096)
    paragraphs = [f"Paragraph {number}.\nIts second line, Grüße.\n\n" for number in range(60_000)]
    content = "".join(paragraphs)
    found = written(tmp_path / "a.txt", content.encode())
    assert len(found) > 2
    assert "".join(texts_of(found)) == content
    assert [item.record for item in found] == list(range(1, len(found) + 1))
    assert all(text.endswith("\n") for text in texts_of(found))
    one_line = written(tmp_path / "b.txt", ("é" * 1_000_001).encode())
    assert "".join(texts_of(one_line)) == "é" * 1_000_001
    (short,) = written(tmp_path / "c.txt", b"short")
    assert short.record == 0
    russian = "".join(paragraphs).replace("Its second line, Grüße", "Вторая строка, привет")
    in_1251 = written(tmp_path / "d.txt", b"ASCII first.\n" * 30_000 + russian.encode("cp1251"))
    assert "".join(texts_of(in_1251)) == "ASCII first.\n" * 30_000 + russian


def test_a_page_is_kept_as_it_came(tmp_path: Path) -> None:
    page = "<html><meta charset=koi8-r><p>Привет".encode("koi8-r")
    (found,) = written(tmp_path / "a.html", page)
    assert found == Raw(html=page, file=str(tmp_path / "a.html"))
    (wide,) = written(tmp_path / "b.htm.gz", gzip.compress("<p>Привет".encode("utf-16")))
    assert wide == Raw(html="<p>Привет".encode(), file=str(tmp_path / "b.htm.gz"), charset="utf-8", encoding="utf-16")
    assert refusals(written(tmp_path / "c.html", b"%PDF\0\0\0\0")) == [(0, "binary_file")]


def test_a_page_too_long_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(texts, "LONGEST", 10_000)
    assert refusals(written(tmp_path / "a.html", b"<p>" * 5000)) == [(0, "page_too_long")]


# JSON


def test_records_of_a_jsonl_file(tmp_path: Path) -> None:
    lines = [
        b'\xef\xbb\xbf{"text": "one", "url": "https://example.org/", "language": "en", "license": "MIT", "id": 7}\r',
        b"{broken",
        b" ",
        b'{"other": 1}',
        b'{"text": 3, "url": 4}',
        b'{"text": null}',
        b"[1]",
        b"",
        b"\xd1\x84\xe8\xeb\xee",
        '{"text": "Съешь же ещё этих мягких французских булок"}'.encode("cp1251"),
        b'{"text": "tw\xffo \xc3\xa4\xc3\xb6"}',
        b'{"text": "\\ud83d\\ude00 \\ud800 \\u0000", "url": "\\udfff"}',
        b'{"text": "nan", "x": [NaN, 1e999, 123456789012345678901234567890]}',
        b"[" * 10**5,
        b'{"text": ""}',
    ]
    found = written(tmp_path / "a.jsonl", b"\n".join(lines))
    assert [(item.record, item.text, item.encoding) for item in found if isinstance(item, Raw)] == [
        (1, "one", "utf-8"),
        (10, "Съешь же ещё этих мягких французских булок", "cp1251"),
        (11, "tw\ufffdo äö", "utf-8-repaired"),
        (12, "😀 \ufffd \x00", "utf-8"),
        (13, "nan", "utf-8"),
        (15, "", "utf-8"),
    ]
    assert refusals(found) == [
        (2, "broken_json"),
        (4, "no_text_field"),
        (5, "text_field_is_no_string"),
        (6, "text_field_is_no_string"),
        (7, "no_json_object"),
        (9, "broken_json"),
        (14, "broken_json"),
    ]
    first = found[0]
    assert isinstance(first, Raw)
    assert (first.url, first.language, first.licence) == ("https://example.org/", "en", "MIT")
    assert [item.url for item in found if isinstance(item, Raw)][3] == "\ufffd"
    assert all(len(item.excerpt) <= 1500 for item in found if isinstance(item, Refused))


def test_other_names_of_the_fields(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"content": "one", "link": "x", "text": "no"}\n{"text": "two"}')
    found = read(tmp_path / "a.jsonl", options=ReaderOptions("content", "link"))
    assert found[0] == Raw("one", str(tmp_path / "a.jsonl"), 1, "x", encoding="utf-8")
    assert refusals(found) == [(2, "no_text_field")]


def test_chats(tmp_path: Path) -> None:
    chat = [{"role": "user", "content": "Hi."}, {"role": "assistant", "content": "Hello! \ud83d\ude00"}]
    rows = [
        {"messages": chat},
        {"messages": json.dumps(chat), "text": "ignored"},
        {"messages": [chat[0] | {"name": "Ana"}]},
        {"messages": []},
        {"messages": [], "text": "a text"},
        {"messages": [{"role": "user", "content": None}]},
        {"messages": [{"role": "user"}], "text": "a text"},
        {"messages": "no chat"},
        {"messages": {"role": "user", "content": "x"}},
    ]
    found = written(tmp_path / "a.jsonl", b"\n".join(json.dumps(row).encode() for row in rows))
    mended = [chat[0], {"role": "assistant", "content": "Hello! 😀"}]
    assert [(item.record, item.text, item.messages) for item in found if isinstance(item, Raw)] == [
        (1, "Hi.\nHello! 😀", mended),
        (2, "Hi.\nHello! 😀", mended),
        (3, "Hi.", chat[:1]),
        (5, "a text", None),
        (7, "a text", None),
    ]
    assert refusals(found) == [(4, "no_text_field"), (6, "broken_messages"), (8, "broken_messages"),
                               (9, "broken_messages")]  # fmt: skip


@given(st.data())
@settings(max_examples=40)
def test_every_line_is_read_once_and_in_order(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    strings = data.draw(st.lists(plain_text, max_size=12))
    newline = data.draw(st.sampled_from([b"\n", b"\r\n", b"\n\n"]))
    content = newline.join(
        json.dumps({"text": each}, ensure_ascii=data.draw(st.booleans())).encode() for each in strings
    ) + data.draw(st.sampled_from([b"", newline]))
    folder = tmp_path_factory.mktemp("rows")
    for suffix, pack in packers.items():
        assert texts_of(written(folder / f"a.jsonl{suffix}", pack(content))) == strings
    cuts = sorted(data.draw(st.lists(st.integers(0, len(content)), max_size=6)))
    found: list[str] = []
    packed: list[str] = []
    for start, stop in zip([0, *cuts], [*cuts, None], strict=True):
        found += texts_of(read(folder / "a.jsonl", start=start, stop=stop))
        packed += texts_of(read(folder / "a.jsonl.gz", start=start, stop=stop)) if (start, stop) != (0, 0) else []
    assert found == strings
    assert not cuts or not cuts[0] or packed == strings  # all of it belongs to the stretch from 0 on


def test_conformance_of_lines(real_data: Path, tmp_path: Path) -> None:
    """JSONTestSuite, each file's content as a field of a record: what must be accepted is, what must not isn't."""
    names: list[str] = []
    lines: list[bytes] = []
    for path in sorted((real_data / "conformance" / "json_test_suite").glob("*.json")):
        content = path.read_bytes()
        if b"\n" not in content and not content.startswith((b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")):
            names.append(path.stem)
            lines.append(b'{"text": "kept", "value": %b}' % content)
    found = written(tmp_path / "a.jsonl", b"\n".join(lines))
    assert [item.record for item in found] == list(range(1, len(names) + 1))
    kept = {name for name, item in zip(names, found, strict=True) if isinstance(item, Raw)}
    must = {name for name in names if name.startswith("y_")}
    must_not = {name for name in names if name.startswith("n_")}
    assert len(must) > 90
    assert must <= kept
    assert len(must_not) > 170
    # Python's own numbers; and what, put in here, closes the record and leaves a comment or nothing behind it.
    assert must_not & kept <= {"n_number_NaN", "n_number_infinity", "n_number_minus_infinity"}


def test_conformance_of_files(real_data: Path) -> None:
    """The same as files: no crash, no document (none has a text), and a refusal where there is a value."""
    for path in sorted((real_data / "conformance" / "json_test_suite").glob("*.json")):
        found = read(path)
        assert not texts_of(found)
        try:
            value = json.loads(path.read_bytes())
        except (ValueError, RecursionError):
            continue
        if path.name.startswith("y_"):
            expected = len(value) if isinstance(value, list) else 1
            assert len(found) == expected, path.name
            assert not any(reason == "broken_json" for _, reason in refusals(found)), path.name


class Drip:
    """A stream that gives a few bytes at a time."""

    def __init__(self, data: bytes, size: int) -> None:
        self._file, self._size = io.BytesIO(data), size

    def read(self, size: int = 0, /) -> bytes:
        return self._file.read(self._size)

    def resume(self) -> bool:
        return False


@given(st.data())
@settings(max_examples=30)
def test_values_are_found_in_any_layout(data: st.DataObject) -> None:
    leaf = st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=8)
    value = st.recursive(leaf, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner))
    rows = data.draw(st.lists(st.dictionaries(st.text(max_size=3), value, max_size=3), max_size=5))
    indent = data.draw(st.sampled_from([None, 0, 2]))
    ascii_ = data.draw(st.booleans())
    if data.draw(st.booleans()):
        content = json.dumps(rows, indent=indent, ensure_ascii=ascii_)
    else:
        between = data.draw(st.sampled_from(["", " ", "\n", ",\n"]))
        content = between.join(json.dumps(row, indent=indent, ensure_ascii=ascii_) for row in rows)
    drip = Drip(content.encode("utf-8", "surrogatepass"), data.draw(st.integers(1, 50)))
    found = list(read_values(drip))
    assert [number for number, _, _ in found] == list(range(1, len(rows) + 1))
    assert [parsed.value for _, _, parsed in found] == [json.loads(json.dumps(row)) for row in rows]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ('{"text": "a"}', ["a"]),
        ('{"text": "a"}\n{"text": "b"}\n{torn\n{"text": "c"}', ["a", "b", "broken_json", "c"]),
        ('[{"text": "a"}, {"text": "b"}]', ["a", "b"]),
        ('[{"text": "a"},, {"text": "b"},]', ["a", "b"]),
        ('[\n{"text": "a", "x": [{}, "}]"]},\n{"text": "b"}\n]\n', ["a", "b"]),
        ('[{"text": "a"}, 17, "s,]", null, {"text": "b"}]', ["a", *3 * ["no_json_object"], "b"]),
        ('[{"text": "a"}, {"text": b}, {"text": "c"}]', ["a", "broken_json", "c"]),
        ('{\n "text": "a"\n}\n{\n "text": "b"\n}', ["a", "b"]),
        ('[{"text": "a"}]\n[{"text": "b"}]', ["a", "b"]),
        ('[{"text": "a"}, {"text": "b', ["a", "broken_json"]),
        ('[{"text": "a"}]}', ["a", "broken_json"]),
        ('{"data": [{"text": "a"}]}', ["no_text_field"]),
        ("no JSON at all\nin two lines", ["broken_json", "broken_json"]),
        ("[]", []),
        ("", []),
        (" \n ", []),
        ("[[1], [2]]", ["no_json_object", "no_json_object"]),
        ("\0\0\0", ["binary_file"]),
    ],
)
def test_layouts_of_json_files(content: str, expected: list[str], tmp_path: Path) -> None:
    for name, data in (("a.json", content.encode()), ("a.json.gz", gzip.compress(content.encode()))):
        found = written(tmp_path / name, data)
        assert [item.text if isinstance(item, Raw) else item.reason for item in found] == expected
        (tmp_path / name).write_bytes(data)
        assert read(tmp_path / name, start=5, stop=9) == []  # the stretch from 0 stands for all


def test_a_truncated_json_file(tmp_path: Path) -> None:
    rows = [{"text": f"{number} " * 50} for number in range(500)]
    packed = gzip.compress(json.dumps(rows, indent=1).encode())
    found = written(tmp_path / "a.json.gz", packed[: len(packed) // 2])
    texts = texts_of(found)
    assert texts == [row["text"] for row in rows[: len(texts)]]
    assert len(texts) > 100
    assert refusals(found) == [(len(texts) + 1, "damaged_archive")]


def test_a_value_too_long_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("groundup.corpus.readers.json_values.LONGEST", 10**6)
    rows = ['{"text": "a"}', '{"text": "' + "x" * 3 * 10**6 + '"}', '{"text": "b"}']
    found = written(tmp_path / "a.json", ("[" + ",\n".join(rows) + "]").encode())
    assert [item.text if isinstance(item, Raw) else item.reason for item in found] == ["a", "record_too_long", "b"]
