"""Cleaning: exact values, idempotence on any text, and the guarded steps against the same steps without guards."""

import gzip
import itertools
import json
import time
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import ftfy
import pytest
from ftfy.badness import MOJIBAKE_CATEGORIES
from hypothesis import given, settings
from hypothesis import strategies as st

from groundup.corpus import clean as module
from groundup.corpus.clean import LONGEST_MARKS, clean, plain_spaces
from groundup.corpus.gutenberg import strip_gutenberg
from groundup.corpus.text import mend_surrogates, normalise

any_text = st.text(st.characters(exclude_categories=()))  # surrogates and controls too
# Characters at which something happens, much oftener than they would come by chance.
trouble = st.text(
    st.sampled_from(
        "a Z.\n\t\r\v\f\x00\x1b[m0\x7f\x80\x85\x92\x9d\xa0\xad©«»ÂÃâ€™œŒé\u0301\u0327\u0345\u0958\u1100\u1161\u11a8"
        "\u200b\u2007\u2019\u2028\u202f\u2060\u3000\ufeff\ufffc\ufffd\ufffe\ud83d\ude00\U0001f600\U0001d15e–“”вЂ°×²ØÙ"
    )
)
mojibake = st.builds(
    lambda text, name: text.encode().decode(name, "replace"),
    st.text(st.sampled_from("aé’“ñ—ß 世😀Ж·\xa0\n")),
    st.sampled_from(["latin-1", "cp1252", "sloppy-windows-1252", "cp1251", "cp1250", "mac-roman", "cp437"]),
)


def slowly(text: str) -> str:
    """The reference: every step on the whole text, without guards, again and again until none changes it."""
    steps = (mend_surrogates, module._with_short_marks, repair, plain_spaces, module._without_controls, normalise)
    while True:
        changed = next((new for step in (*steps, strip_gutenberg) if (new := step(text)) != text), None)
        if changed is None:
            return text
        text = changed


def repair(text: str) -> str:
    return ftfy.fix_text(text, module._ENCODING_ONLY)


@pytest.mark.parametrize(
    ("text", "cleaned", "edits"),
    [
        ("plain\n\n\n\tcode", "plain\n\n\n\tcode", ()),
        ("", "", ()),
        (" \ufeff\u200b\n  edges \t\n", "edges", ("white_space",)),
        ("a \t\nb\r\nc\rd", "a\nb\nc\nd", ("white_space",)),
        ("a\n\n\n\nb\n \n\t\n\nc", "a\n\nb\n\nc", ("white_space",)),
        ("12\xa0000\u202fkm\u2007x", "12 000 km x", ("white_space",)),
        ("def f():\n\treturn  1", "def f():\n\treturn  1", ()),
        ("\x1b[1;31mred\x1b[0m \x1b]0;title\x07text\x00\x07", "red text", ("controls",)),
        ("a\fb\vc", "a\nb\nc", ("controls",)),
        ("zero\ufeff width\ufffc\u2028line", "zero width\nline", ("controls",)),
        ("e\u0301 \u212b", "é Å", ("encoding",)),
        ("\ud83d\ude00 \ud800", "😀 \ufffd", ("encoding",)),
        ("donâ€™t Ã©tÃ©", "don’t été", ("encoding",)),
        ("1549–\x961619, l\x92École", "1549––1619, l’École", ("encoding",)),
        ("Ã\x00©", "é", ("controls", "encoding")),
        ("à la carte\xa0! Ã\xa0 la carte", "à la carte ! à la carte", ("encoding", "white_space")),
        ("â\x80\x99\x00", "’", ("encoding", "controls")),
        ("undefined \x81 in Windows-1252", "undefined  in Windows-1252", ("controls",)),
        # What is no damage stays.
        ("&lt;p&gt; &amp;amp; “curly” ﬁ Ａ １ œuvre Ångström ÇÉ SÃO", None, ()),
        ("x\u200dy \u200c क्\u200dष \u200b ส\u200bว", None, ()),  # joiners and word breaks
        ("Слово «в кавычках» – и “ещё”…", None, ()),
    ],
)
def test_values(text: str, cleaned: str | None, edits: tuple[str, ...]) -> None:
    assert clean(text) == (text if cleaned is None else cleaned, edits)


def test_edits_come_in_their_order_and_once() -> None:
    header = "The Project Gutenberg EBook of X\n*** START OF THIS PROJECT GUTENBERG EBOOK X ***\r\n"
    assert clean(header + "Ã©t\x00Ã© \xa0") == ("été", ("encoding", "white_space", "controls", "gutenberg"))


@settings(max_examples=300)
@given(st.one_of(any_text, trouble, mojibake, st.builds("".join, st.lists(st.one_of(trouble, mojibake), max_size=4))))
def test_clean_is_idempotent_and_guards_change_nothing(text: str) -> None:
    cleaned = clean(text)
    assert clean(cleaned.text) == (cleaned.text, ())
    assert cleaned.text == slowly(text)
    assert bool(cleaned.edits) == (cleaned.text != text)
    assert unicodedata.is_normalized("NFC", cleaned.text)
    assert cleaned.text == cleaned.text.strip()
    assert not any(unicodedata.category(c) in ("Cc", "Cs") and c not in "\n\t" for c in cleaned.text)


def test_characters_of_no_kind_need_nothing() -> None:
    """What the table passes over is left as it is by each step, all of it at once."""
    kinds = module._kinds_of_units()
    spaces = plain_spaces.__globals__["_FIXED_SPACES"]
    passed = [chr(code) for code in range(0x80, 0x10000) if not kinds[code] and chr(code) not in spaces]
    assert len(passed) > 50_000
    text = "".join(f"x{character}" for character in passed) + "x"
    assert normalise(text) == text == plain_spaces(text) == repair(text)
    assert clean(text) == (text, ())
    for code in (*range(0x300), *range(0x2000, 0x2100), *range(0xF900, 0x10000, 7), 0x1D15E, 0x2F800, 0x1F600):
        assert clean(f"x{chr(code)}y").text == slowly(f"x{chr(code)}y"), hex(code)


def test_every_suspicious_pair_is_seen() -> None:
    """A quarter of all pairs of ftfy's characters: those it takes for mojibake are suspects of ours."""
    ranges = itertools.chain.from_iterable(module.re.findall(".-.|.", part) for part in MOJIBAKE_CATEGORIES.values())
    alphabet = [chr(code) for part in ranges for code in range(ord(part[0]), ord(part[-1]) + 1)]
    assert len(alphabet) > 350
    bad = 0
    for number, (first, second) in enumerate(itertools.product(alphabet, repeat=2)):
        if number % 4:
            continue
        text = ("a{}{}", "{}{} b", "x ВГ{}{}В z")[number // 4 % 3].format(first, second)
        if module._MOJIBAKE.search(text):
            bad += 1
            found = module.look_beyond_ascii(text)
            places = module.suspects(found)
            assert len(places), text
            assert module.may_be_mojibake(found, places), text
    assert bad > 5_000


def test_normalisation_test_of_unicode(real_data: Path) -> None:
    """NormalizationTest.txt: column 2 is the NFC of columns 1 to 3, column 4 that of 4 and 5."""
    lines = gzip.decompress((real_data / "conformance" / "NormalizationTest.txt.gz").read_bytes()).decode().splitlines()
    rows = [line.split("#")[0].split(";") for line in lines if line[:1] in "0123456789ABCDEF" and line]
    assert len(rows) > 15_000
    for row in rows[::9]:
        columns = ["x" + "".join(chr(int(code, 16)) for code in cell.split()) + "x" for cell in row[:5]]
        for column in columns:
            (nfc,) = {clean(column).text}
            assert nfc == unicodedata.normalize("NFC", plain_spaces(repair(column))), row


def texts(real_data: Path) -> Iterator[tuple[str, str]]:
    """Real texts of many kinds, a few megabytes."""
    for name in ("de", "fr", "hu", "vi", "hi", "ar", "zh", "ja", "ru", "el", "th", "ko"):
        yield name, gzip.decompress((real_data / "languages" / f"{name}.txt.gz").read_bytes()).decode()[:40_000]
    with gzip.open(real_data / "wikipedia_random" / "docs.jsonl.gz") as file:
        for line in itertools.islice(file, 0, 400, 4):
            yield "wikipedia", json.loads(line)["text"]
    for path in sorted((real_data / "techdocs").rglob("*.*"))[:40]:
        data = path.read_bytes()
        yield path.name, (gzip.decompress(data) if path.suffix == ".gz" else data).decode("utf-8", "replace")
    for text in json.loads((real_data / "conformance" / "blns.json").read_text()):
        yield "naughty string", text


def test_real_texts_come_out_as_without_guards(real_data: Path) -> None:
    changed = 0
    for name, text in texts(real_data):
        cleaned = clean(text)
        assert clean(cleaned.text) == (cleaned.text, ()), name
        if len(text) < 20_000:
            assert cleaned.text == slowly(text), name
        changed += bool(cleaned.edits)
    assert changed > 50


def test_mojibake_of_real_sentences_is_undone(real_data: Path) -> None:
    """UTF-8 read as Windows-1252 or Latin-1 comes back, for most sentences letter by letter."""
    sentences = []
    for name in ("de", "fr", "es", "ru", "el", "zh"):
        lines = gzip.decompress((real_data / "languages" / f"{name}.txt.gz").read_bytes()).decode().splitlines()
        sentences += [text for line in lines[:60] if not (text := clean(line).text).isascii()]
    for encoding in ("latin-1", "sloppy-windows-1252"):
        back = [clean(sentence.encode().decode(encoding)).text == sentence for sentence in sentences]
        assert sum(back) > 0.95 * len(sentences)


def test_good_text_is_left_alone(real_data: Path) -> None:
    """On 400 articles and 2,000 lines of Polish, Russian, Chinese and Japanese, ftfy's repair touches next to none."""
    with gzip.open(real_data / "wikipedia_random" / "docs.jsonl.gz") as file:
        articles = [json.loads(line)["text"] for line in itertools.islice(file, 400)]
    lines = []
    for name in ("pl", "ru", "zh", "ja"):
        lines += gzip.decompress((real_data / "languages" / f"{name}.txt.gz").read_bytes()).decode().splitlines()[:500]
    assert sum("encoding" in clean(text).edits for text in articles) == 0
    assert sum("encoding" in clean(text).edits for text in lines) <= 4


def test_marks_in_a_row_are_bounded() -> None:
    """Normalising takes time by the square of the marks on one letter: 100,000 of them would take minutes."""
    start = time.process_time()
    cleaned = clean("a" + "\u0301\u0327" * 50_000 + "b")
    assert time.process_time() - start < 2
    assert cleaned.edits == ("controls", "encoding")
    assert LONGEST_MARKS <= len(cleaned.text) <= LONGEST_MARKS + 2
    zalgo = "Z\u0300\u0301\u0302" * 200
    assert clean(zalgo) == (unicodedata.normalize("NFC", zalgo), ())
    assert clean("😀" * 1000) == ("😀" * 1000, ())


def test_large_texts_take_time_by_their_size() -> None:
    for text in ("\r" * 2**20, "Ã" * 2**16, "\x80" * 2**16, " \n" * 2**19, "“é" * 2**16, "*** START OF TH\n" * 2**16):
        start = time.process_time()
        clean(text)
        assert time.process_time() - start < 10


def test_speed_on_real_text(real_data: Path) -> None:
    """A quarter of the speed measured on a quiet machine, so that only a lost fast path fails."""
    with gzip.open(real_data / "wikipedia" / "train-0.jsonl.gz") as file:
        articles = [json.loads(line)["text"] for line in itertools.islice(file, 200)]
    size = sum(len(text.encode()) for text in articles)
    clean("é“")
    start = time.process_time()
    for text in articles:
        clean(text)
    assert size / (time.process_time() - start) > 25e6


HEADER = """The Project Gutenberg EBook of A Book, by Somebody

This eBook is for the use of anyone anywhere at no cost and with
almost no restrictions whatsoever.

Title: A Book
"""
START = "*** START OF THIS PROJECT GUTENBERG EBOOK A BOOK ***"
END = "*** END OF THIS PROJECT GUTENBERG EBOOK A BOOK ***"
CREDIT = "Produced by Some Body, Another\nand the Distributed Proofreaders at http://www.pgdp.net"
BOOK = (
    "A BOOK\n\nCHAPTER I\n\nIt was produced by chance, and transcribed by nobody.\n\n"
    + "It went on." * 2000
    + "\n\nTHE END"
)
OLD_END = "End of the Project Gutenberg EBook of A Book, by Somebody (also\nknown as Nobody)"
LICENCE = "Updated editions will replace the previous one.\n\n" + "Project Gutenberg-tm electronic works.\n" * 400
SMALL_PRINT = 'Why is this "Small Print!" statement here?\n' + "PROJECT GUTENBERG-tm etexts\nand lawyers.\n" * 200
SMALL_PRINT_END = "*END*THE SMALL PRINT! FOR PUBLIC DOMAIN ETEXTS*Ver.04.29.93*END*"


@pytest.mark.parametrize(
    "parts",
    [
        (HEADER, START, CREDIT, BOOK, OLD_END, END, "***** This file should be named 1.txt *****", CREDIT, LICENCE),
        (HEADER, START, BOOK),  # the first part of a book
        (BOOK, END, LICENCE),  # the last part
        (BOOK, OLD_END),
        (START.replace("*** ", "***").replace(" ***", "***").replace("THIS", "THE"), BOOK),
        (HEADER, "*** START OF THE PROJECT GUTENBERG EBOOK A BOOK: WITH\nA LONG TITLE ***", BOOK, END),
        (HEADER, SMALL_PRINT, SMALL_PRINT_END, "This etext was prepared by A. N. Other.", BOOK, OLD_END),
        (HEADER, START, CREDIT, BOOK, OLD_END, END, LICENCE, SMALL_PRINT, SMALL_PRINT_END.replace("*END*T", "*END T")),
        (HEADER, START, CREDIT, "[Transcriber's Note: spelling is as in the original.]", BOOK, END, LICENCE),
        (BOOK, "*** START: FULL LICENSE ***", "THE FULL PROJECT GUTENBERG LICENSE", LICENCE),
        (BOOK,),
    ],
)
def test_gutenberg_leaves_the_book(parts: tuple[str, ...]) -> None:
    text = "\n\n\n".join(parts)
    assert strip_gutenberg(text).strip() == BOOK
    assert clean(text).text == BOOK
    assert strip_gutenberg(BOOK) == BOOK


def test_gutenberg_credits_without_blank_lines() -> None:
    """Of a text whose blank lines are lost only the credit's first line goes."""
    lines = "\n".join([HEADER, START, "Produced by David Starner", "A BOOK", "By Somebody", "It went on. " * 100])
    assert strip_gutenberg(lines).startswith("A BOOK\nBy Somebody\nIt went on.")


def test_gutenberg_several_books() -> None:
    one = "\n\n".join([HEADER, START, CREDIT, BOOK, END, LICENCE])
    assert strip_gutenberg(f"{one}\n\n{one}") == f"{BOOK}\n\n{BOOK}"


@pytest.mark.parametrize(
    "text",
    [
        f"{BOOK}\n\n{START}\n\n{BOOK}",  # what stands before is no header
        f"{BOOK}\n\n{END}\n\n{BOOK}",  # what stands after is no licence
        f"{HEADER}\n{LICENCE * 3}\n{START}\n{BOOK}",  # too long for a header
        f"{BOOK}\nHe told us of the end of Project Gutenberg.\n" + BOOK,
        f"{BOOK}\nend of Project Gutenberg, he said, and\nlaughed",
        f"x = '{START}'\n{BOOK}",
        f"Produced by a factory.\n\n{BOOK}",
    ],
)
def test_gutenberg_removes_no_more_than_is_marked(text: str) -> None:
    assert strip_gutenberg(text) == text


piece = st.sampled_from([HEADER, START, CREDIT, BOOK, OLD_END, END, LICENCE, SMALL_PRINT, SMALL_PRINT_END, "text", ""])


@settings(max_examples=60)
@given(st.lists(st.tuples(piece, st.sampled_from(["\n", "\n\n", " ", "\n  "])), max_size=8))
def test_gutenberg_is_idempotent(pieces: list[tuple[str, str]]) -> None:
    text = "".join(part + gap for part, gap in pieces)
    stripped = strip_gutenberg(text)
    assert strip_gutenberg(stripped) == stripped
    cleaned = clean(text)
    assert clean(cleaned.text) == (cleaned.text, ())


def test_gutenberg_real_book(real_data: Path) -> None:
    text = (real_data / "small" / "botchan.txt").read_text("utf-8-sig")
    cleaned = clean(text)
    assert cleaned.edits == ("white_space", "gutenberg")
    assert cleaned.text.startswith("BOTCHAN (MASTER DARLING)\nBy The Late Mr. Kin-nosuke Natsume")
    assert cleaned.text.endswith("[Q: stumblieg]\n[R: Rad]")
    assert "Gutenberg" not in cleaned.text
    assert len(cleaned.text) > 0.9 * len(text)


def test_gutenberg_leaves_other_books(real_data: Path) -> None:
    for path in sorted((real_data / "books").glob("*.gz"))[::6]:
        assert "gutenberg" not in clean(gzip.decompress(path.read_bytes()).decode("utf-8", "replace")).edits
