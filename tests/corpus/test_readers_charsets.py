"""Character sets: real sentences written in the sets of their languages are told apart and come back."""

import gzip
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from groundup.corpus.text import codec_of, decode, legacy_encoding, looks_binary

# Language, character set, and the share of texts that must come back: of five sentences and of fifty.
SETS = [
    ("ru", "cp1251", 1, 1), ("ru", "koi8-r", 1, 1), ("ru", "iso8859-5", 1, 1), ("ru", "cp866", 1, 1),
    ("uk", "cp1251", 1, 1), ("uk", "koi8-u", 1, 1), ("bg", "cp1251", 1, 1), ("be", "cp1251", 0.95, 1),
    ("sr", "cp1251", 1, 1), ("mk", "cp1251", 1, 1),
    ("ja", "cp932", 1, 1), ("ja", "euc_jp", 1, 1), ("ja", "iso2022_jp", 1, 1),
    ("zh", "gb18030", 1, 1), ("zh", "gbk", 1, 1), ("zh", "big5", 1, 1), ("ko", "euc_kr", 1, 1),
    ("pl", "iso8859-2", 0.95, 0.95), ("pl", "cp1250", 1, 1), ("cs", "iso8859-2", 0.9, 1), ("cs", "cp1250", 0.9, 1),
    ("hu", "iso8859-2", 1, 1), ("hu", "cp1250", 1, 1), ("sk", "cp1250", 1, 1), ("sl", "cp1250", 0.95, 1),
    ("hr", "cp1250", 1, 1), ("de", "cp1252", 1, 1), ("fr", "cp1252", 1, 1), ("pt", "cp1252", 1, 1),
    ("it", "cp1252", 1, 1), ("sv", "cp1252", 1, 1), ("fi", "cp1252", 1, 1), ("nb", "cp1252", 1, 1),
    ("da", "cp1252", 1, 1), ("ca", "cp1252", 0.95, 1), ("is", "cp1252", 0.75, 0.9), ("tr", "cp1254", 1, 1),
    ("tr", "iso8859-9", 1, 1), ("el", "cp1253", 0.95, 1), ("el", "iso8859-7", 0.95, 0.9), ("he", "cp1255", 1, 1),
    ("ar", "cp1256", 1, 1), ("fa", "cp1256", 0.95, 1), ("lt", "cp1257", 1, 1), ("lv", "cp1257", 1, 1),
    ("th", "cp874", 1, 1), ("vi", "cp1258", 0.7, 1),
]  # fmt: skip


@pytest.mark.parametrize(("language", "charset", "five", "fifty"), SETS)
def test_sentences_come_back(language: str, charset: str, five: float, fifty: float, real_data: Path) -> None:
    with gzip.open(real_data / "languages" / f"{language}.txt.gz", "rt", encoding="utf-8") as file:
        sentences = file.read().splitlines()
    for count, least in ((5, five), (50, fifty)):
        right = wrong = 0
        for start in range(0, len(sentences) - count, max(count, 20)):
            data = "\n".join(sentences[start : start + count]).encode(charset, "ignore")
            if data.isascii() and charset != "iso2022_jp":
                continue
            if decode(data).text == data.decode(charset):
                right += 1
            else:
                wrong += 1
            assert decode(data, charset).text == data.decode(charset), "where it is declared, it is believed"
        assert right + wrong >= 5
        assert right >= least * (right + wrong)


def test_utf8_of_all_languages_stays(real_data: Path) -> None:
    for path in sorted((real_data / "languages").glob("*.txt.gz")):
        data = gzip.decompress(path.read_bytes())
        assert decode(data) == (data.decode(), "utf-8")
        damaged = data[:2000] + b"\xff" + data[2000:4000]
        if not data[:4000].isascii() and sum(byte >= 0xC2 for byte in data[:4000]) > 20:
            assert decode(damaged).encoding == "utf-8-repaired", path.name


@pytest.mark.parametrize(
    ("name", "codec"),
    [
        ("UTF-8", "utf-8"),
        (" 'utf8' ", "utf-8"),
        ("ISO-8859-1", "cp1252"),
        ("latin1", "cp1252"),
        ("us-ascii", "cp1252"),
        ("Windows-1251", "cp1251"),
        ("gb2312", "gb18030"),
        ("x-sjis", "cp932"),
        ("Shift_JIS", "cp932"),
        ("ks_c_5601-1987", "cp949"),
        ("KOI8-R", "koi8-u"),
        ("iso-8859-9", "cp1254"),
        ("utf-16", "utf-16-le"),
        ("macintosh", "mac-roman"),
        ("ibm866", "cp866"),
        ("cp852", "cp852"),
        ("rot13", None),
        ("hex", None),
        ("unicode_escape", None),
        ("idna", None),
        ("utf-7", None),
        ("undefined", None),
        ("nonsense", None),
        ("gb\0", None),
        ("", None),
        (None, None),
    ],
)
def test_names_of_character_sets(name: str | None, codec: str | None) -> None:
    assert codec_of(name) == codec


@given(
    st.binary(max_size=100),
    st.sampled_from(["utf-8", "cp1251", "utf-16", "utf-32", "gbk", "iso-2022-jp", "johab", "x"]),
)
@settings(max_examples=200)
def test_any_bytes_with_any_declaration(data: bytes, declared: str) -> None:
    for begins in (True, False):
        text, encoding = decode(data, declared, begins=begins)
        assert isinstance(text, str)
        assert encoding
    legacy_encoding(data)


def test_what_is_declared() -> None:
    assert decode("Ünïcödé".encode(), "iso-8859-1") == ("Ünïcödé", "utf-8")  # it is hardly UTF-8 by chance
    assert decode(b"\xe4", "iso-8859-5") == ("ф", "iso8859-5")
    assert decode(b"\x81\x81", "cp1252").encoding == "latin-1"  # codes that the set leaves empty
    assert decode("é".encode("utf-16-be"), "UTF-16BE") == ("é", "utf-16-be")
    assert decode(b"plain", "utf-16") == ("plain", "utf-8")


def test_marks_only_where_a_text_begins() -> None:
    assert decode(b"\xff\xfea\0") == ("a", "utf-16")
    assert decode(b"\xff\xfea", begins=False) == ("ÿþa", "cp1252")
    assert decode(b"\xef\xbb\xbfa") == ("a", "utf-8")
    assert decode(b"\xef\xbb\xbfa", begins=False) == ("\ufeffa", "utf-8")


def test_one_damaged_character_in_a_thousand_costs_no_more() -> None:
    text = "こんにちは世界。" * 500
    data = text.encode("cp932")
    damaged = data[:1000] + b"\xff" + data[1000:]
    assert decode(damaged).encoding == "cp932"
    assert decode(damaged).text.count("\ufffd") <= 2


MULTIBYTE = re.compile(rb"[\xc2-\xdf][\x80-\xbf]|[\xe0-\xef][\x80-\xbf]{2}|[\xf0-\xf4][\x80-\xbf]{3}")


@given(
    st.lists(st.sampled_from([b"a", b"\xff", b"\x80", b"\xc3", "é".encode(), "世".encode(), "\ufffd".encode()])).map(
        b"".join
    )
)
def test_damaged_utf8_is_told_by_its_sound_characters(data: bytes) -> None:
    text = data.decode("utf-8", "replace")
    bad = text.count("\ufffd") - data.count("\ufffd".encode())
    if bad and not data.startswith((b"\xff\xfe", b"\xef\xbb\xbf")):
        assert (decode(data).encoding == "utf-8-repaired") == (len(MULTIBYTE.findall(data)) > bad)


def reference_looks_binary(data: bytes) -> bool:
    if data.startswith((b"\xff\xfe", b"\xfe\xff", b"\0\0\xfe\xff")):
        return False
    controls = [byte for byte in data if byte < 32 and chr(byte) not in "\t\n\v\f\r\x1b"]
    return 0 in controls or 10 * len(controls) > len(data)


@given(st.binary(max_size=60) | st.text("ab\x01\x02 ", max_size=60).map(str.encode))
def test_looks_binary(data: bytes) -> None:
    assert looks_binary(data) == reference_looks_binary(data)
