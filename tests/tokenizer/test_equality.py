"""The same ids from every engine: ours, the plain reference, Hugging Face's tokenizers, and tiktoken."""

import gzip
import json
import sys
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import tiktoken
from hypothesis import example, given, settings
from hypothesis import strategies as st

from groundup.tokenizer import Tokenizer, train_bpe
from groundup.tokenizer.adopt import adopt
from groundup.tokenizer.patterns import SPLIT_PATTERNS
from groundup.tokenizer.reference import ReferenceTokenizer

PIECE = 2000  # characters; each engine sees texts of many lengths
NAMES = sorted({pattern: name for name, pattern in SPLIT_PATTERNS.items()}.values())


class Engines(NamedTuple):
    """One vocabulary in four implementations; those beside ours know no special tokens."""

    ours: Tokenizer
    exact: Any
    reference: ReferenceTokenizer
    tiktoken: tiktoken.Encoding

    def agree(self, text: str) -> None:
        ids = self.ours.encode(text)
        assert ids == self.exact.encode(text, add_special_tokens=False).ids
        assert ids == self.reference.encode(text)
        assert ids == self.tiktoken.encode_ordinary(text)
        assert self.ours.decode(ids) == text


def engines_of(ours: Tokenizer, pattern: str) -> Engines:
    import tokenizers

    exact = tokenizers.Tokenizer.from_str(ours.json)
    exact.encode_special_tokens = True
    special = set(ours.special_ids().values())
    ids = {ours.token(number): number for number in range(ours.vocabulary_size) if number not in special}
    ids.pop(b"", None)
    return Engines(
        ours,
        exact,
        ReferenceTokenizer(ours.merges(), ids, pattern),
        tiktoken.Encoding("x", pat_str=pattern, mergeable_ranks=ids, special_tokens={}),
    )


def samples(folder: Path) -> Iterator[str]:
    """Texts of the built-in kind: the tests' own source, and a little of many scripts."""
    yield from (path.read_text(encoding="utf-8") for path in sorted(folder.glob("*.py")))
    yield (
        "Grüße an die 世界! Ça va? Привет, мир. 12345 6.78 don't WE'LL \t\n\n  spaced   out 😀😀 שלום مرحبا नमस्ते ไทย "
        * 4
    )


@pytest.fixture(scope="module", params=NAMES)
def engines(request: pytest.FixtureRequest) -> Engines:
    """A small vocabulary of each split pattern."""
    learned = train_bpe(samples(Path(__file__).parent), 1500, split_pattern=request.param)
    ours = Tokenizer(learned.to_str())
    assert ours.engine == "gigatoken"
    return engines_of(ours, SPLIT_PATTERNS[request.param])


@pytest.fixture(scope="module")
def gpt2(real_data: Path) -> Engines:
    """GPT-2's own files: ids up to 50,256 are its ids."""
    ours = Tokenizer(adopt(real_data / "gpt2_bpe").json)
    found = engines_of(ours, SPLIT_PATTERNS["gpt2"])
    encoder = json.loads((real_data / "gpt2_bpe" / "encoder.json").read_text(encoding="utf-8"))
    assert ours.encode("Hello world") == [encoder["Hello"], encoder["Ġworld"]] == [15496, 995]
    assert ours.endoftext == 50256
    return found


awkward = st.text(
    st.one_of(
        st.characters(exclude_categories=["Cs"]),
        st.sampled_from(
            "  \t\n\r\x0b\x0c\x1c\x85\xa0\u2028\u3000'’stmdrevlSTLſ019½٣²aAbBéß世界ʰǅ\u0301\u200d\ufeff😀<|>_-/"
        ),
    ),
    max_size=40,
)


@settings(max_examples=700, deadline=None)
@given(text=awkward)
@example("'ſ 'S'LL x'll\u2019s")
@example(" " * 300 + "a\n \n  \r\n")
def test_hypothesis(engines: Engines, text: str) -> None:
    engines.agree(text)


@pytest.mark.slow
@settings(max_examples=10_000, deadline=None)
@given(text=awkward)
def test_ten_thousand(engines: Engines, text: str) -> None:
    engines.agree(text)


@pytest.mark.parametrize("step", [7, pytest.param(1, marks=pytest.mark.slow)])
def test_every_code_point(engines: Engines, step: int) -> None:
    """Each (seventh) character of Unicode, among spaces, letters, digits, quotes and itself."""
    line = " {0} a{0}b'{0}1{0}{0}\n  {0}\r\n"
    for plane in range(0, sys.maxunicode + 1, 0x800):
        points = [chr(point) for point in range(plane, plane + 0x800, step) if not 0xD800 <= point < 0xE000]
        if not points or all(unicodedata.category(point) in ("Cn", "Co") for point in points):
            points = points[:1]
        text = "".join(line.format(point) for point in points)
        ids = engines.ours.encode(text)
        assert ids == engines.exact.encode(text, add_special_tokens=False).ids, hex(plane)
        assert engines.ours.decode(ids) == text


@given(data=st.binary(max_size=60))
def test_every_byte_string(engines: Engines, data: bytes) -> None:
    """Also what is no UTF-8 has ids, by the bytes' own tokens."""
    single = {engines.ours.token(number): number for number in range(16, 272)}
    assert engines.ours.decode_bytes([single[bytes([byte])] for byte in data]) == data
    text = data.decode("utf-8", "replace")
    assert engines.ours.decode(engines.ours.encode(text)) == text


def texts_of(folder: Path) -> dict[str, list[str]]:
    """Real texts by kind, in pieces."""

    def unpacked(path: Path) -> str:
        data = path.read_bytes()
        return (gzip.decompress(data) if path.suffix == ".gz" else data).decode("utf-8")

    documents = [path for path in sorted((folder / "techdocs").rglob("*")) if path.is_file()]
    return {
        "wikitext2": [unpacked(folder / "wikitext2" / f"{split}.txt.gz") for split in ("valid", "test")],
        "techdocs": [unpacked(path) for path in documents],
        "languages": [unpacked(path) for path in sorted((folder / "languages").glob("*.txt.gz"))],
        "naughty strings": json.loads(unpacked(folder / "conformance" / "blns.json")),
        "Unicode": [unpacked(path) for path in sorted((folder / "conformance").glob("*Test.txt.gz"))]
        + list(unicode_lines(unpacked(folder / "conformance" / "NormalizationTest.txt.gz"))),
    }


def unicode_lines(table: str) -> Iterator[str]:
    """The strings that Unicode's table of normalisation tests spells in hexadecimal."""
    for line in table.splitlines():
        if line and line[0] not in "#@":
            for column in line.split(";")[:5]:
                yield "".join(chr(int(code, 16)) for code in column.split())


KINDS = ["wikitext2", "techdocs", "languages", "naughty strings", "Unicode"]


@pytest.mark.parametrize("kind", KINDS)
def test_real_texts(gpt2: Engines, real_data: Path, kind: str) -> None:
    """All of it by the fast engines; some hundred pieces by tokenizers and the reference, which are slower."""
    compare(gpt2, texts_of(real_data)[kind], exact=400, reference=100)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_real_texts_whole(gpt2: Engines, real_data: Path, kind: str) -> None:
    compare(gpt2, texts_of(real_data)[kind], exact=10**9, reference=2000)


def compare(engines: Engines, texts: list[str], exact: int, reference: int) -> None:
    """Ours and tiktoken on every piece of the texts, and the others on about so many."""
    assert texts
    pieces = [text[start : start + PIECE] for text in texts for start in range(0, max(1, len(text)), PIECE)]
    ours = engines.ours.encode_batch(pieces)
    assert ours == engines.tiktoken.encode_ordinary_batch(pieces)
    assert [engines.ours.decode(ids) for ids in ours] == pieces
    step = max(1, len(pieces) // exact)
    found = engines.exact.encode_batch_fast(pieces[::step], add_special_tokens=False)
    assert ours[::step] == [encoding.ids for encoding in found]
    step = max(1, len(pieces) // reference)
    assert ours[::step] == [engines.reference.encode(piece) for piece in pieces[::step]]
