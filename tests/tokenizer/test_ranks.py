"""tiktoken's rank files: ids as tiktoken gives them, known files, and broken ones."""

import base64
import gzip
from pathlib import Path

import pytest
import tiktoken
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from groundup.run import UserError
from groundup.tokenizer import Tokenizer, train_bpe
from groundup.tokenizer.adopt import adopt
from groundup.tokenizer.patterns import SPLIT_PATTERNS
from groundup.tokenizer.ranks import KNOWN, KnownRanks, merges_of
from groundup.tokenizer.tokenizer import read_tokenizer

TEXT = ["the cat sat on the mat, the cat ran; 2024 we'll see\n\n  été Ωμέγα 世界 😀"] * 3
MERGES = Tokenizer(train_bpe(TEXT, 300).to_str()).merges()
RANKS = {bytes([byte]): byte for byte in range(256)} | {
    left + right: 256 + number for number, (left, right) in enumerate(MERGES)
}
few = settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])


def write_ranks(path: Path, ranks: dict[bytes, int]) -> Path:
    path.write_bytes(b"".join(base64.b64encode(token) + b" %d\n" % rank for token, rank in ranks.items()))
    return path


def ids(json_text: str, text: str) -> list[int]:
    found: list[int] = read_tokenizer(json_text).encode(text, add_special_tokens=False).ids
    return found


@pytest.mark.parametrize("pattern", sorted(SPLIT_PATTERNS))
def test_rank_files_give_tiktokens_ids(tmp_path: Path, pattern: str, real_data: Path) -> None:
    adopted = adopt(write_ranks(tmp_path / "own.tiktoken", RANKS), split_pattern=pattern)
    judge = tiktoken.Encoding(pattern, pat_str=SPLIT_PATTERNS[pattern], mergeable_ranks=RANKS, special_tokens={})
    ours = Tokenizer(adopted.json)
    paths = sorted((real_data / "languages").glob("*.txt.gz"))
    assert len(paths) >= 75
    for path in paths:
        with gzip.open(path, "rt", encoding="utf-8") as file:
            text = file.read(200)
        assert ours.encode(text) == judge.encode_ordinary(text)
    assert list(adopted.pieces) == list(range(len(RANKS), len(RANKS) + 16))
    assert adopted.pieces[len(RANKS)] == judge.encode_ordinary("<|endoftext|>")


@given(
    tokens=st.lists(st.text("ab", min_size=2, max_size=6), unique=True, max_size=12),
    texts=st.lists(st.text("ab ", max_size=24), max_size=8),
    rotation=st.integers(0, 255),
)
@few
def test_any_ranks_at_all(tmp_path: Path, tokens: list[str], texts: list[str], rotation: int) -> None:
    """Ranks in no order that training gives: parts later than wholes, and tokens that no merges make."""
    singles = [bytes([(byte + rotation) % 256]) for byte in range(256)]
    half = len(tokens) // 2
    order = [*(token.encode() for token in tokens[:half]), *singles, *(token.encode() for token in tokens[half:])]
    ranks = {token: rank for rank, token in enumerate(order)}
    judge = tiktoken.Encoding("any", pat_str=SPLIT_PATTERNS["gpt2"], mergeable_ranks=ranks, special_tokens={})
    adopted = adopt(write_ranks(tmp_path / "any.tiktoken", ranks), split_pattern="gpt2")
    assert [ids(adopted.json, text) for text in [*texts, *tokens]] == [
        judge.encode_ordinary(text) for text in [*texts, *tokens]
    ]


def test_merges_are_those_that_were_learned() -> None:
    assert merges_of(RANKS) == (MERGES, [])
    assert len(MERGES) == 28


def test_merges_by_hand() -> None:
    ranks = {b"a": 0, b"b": 1, b"c": 2, b"ab": 3, b"abc": 4, b"cc": 5, b"bcca": 6}
    assert merges_of(ranks) == ([(b"a", b"b"), (b"ab", b"c"), (b"c", b"c")], [b"bcca"])


def test_known_files_have_their_special_tokens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Special tokens fill the gaps between ranks, as in p50k_base; other free ids get tokens that nothing uses."""
    hole, end = 40, len(RANKS) + 3
    ranks = {token: rank + (rank >= hole) for token, rank in RANKS.items()}
    path = write_ranks(tmp_path / "known.tiktoken", ranks)
    with pytest.raises(UserError, match="split pattern of .* ranks named 'known' isn't known"):
        adopt(path)
    with pytest.raises(UserError, match=f"no token has id {hole}"):
        adopt(path, split_pattern="gpt2")
    monkeypatch.setitem(KNOWN, "known", KnownRanks(len(ranks), "qwen2", {"<|endoftext|>": hole, "<|x|>": end}))
    adopted = adopt(tmp_path)
    ours = Tokenizer(adopted.json)
    assert (ours.endoftext, ours.special_id("<|x|>")) == (hole, end)
    assert ours.special_id(f"<|unused_{len(RANKS) + 1}|>") == len(RANKS) + 1
    assert min(adopted.pieces) == end + 1
    judge = tiktoken.Encoding("x", pat_str=SPLIT_PATTERNS["qwen2"], mergeable_ranks=ranks, special_tokens={})
    assert all(ours.encode(text) == judge.encode_ordinary(text) for text in [*TEXT, "<|endoftext|><|x|>"])
    monkeypatch.setitem(KNOWN, "known", KnownRanks(len(ranks) + 1, "qwen2", {}))
    with pytest.raises(UserError, match="isn't known"):
        adopt(path)


def test_the_table_of_known_files_fits_together() -> None:
    """Ids of special tokens are distinct, start after the ranks or in their gap, and end where the model's do."""
    last = {
        "r50k_base": 50256,
        "p50k_base": 50256,
        "cl100k_base": 100276,
        "o200k_base": 200018,
        "qwen": 151850,
        "tokenizer": 128255,
    }
    assert {name: max(known.special.values()) for name, known in KNOWN.items()} == last
    for name, known in KNOWN.items():
        numbers = set(known.special.values())
        assert len(numbers) == len(known.special)
        assert min(numbers) >= (50256 if name == "p50k_base" else known.ranks)
        assert known.pattern in SPLIT_PATTERNS


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"YQ== 0\nYg==\n", "the line is.*line 2"),
        (b"YQ== 0\nYg== -1\n", "the line is.*line 2"),
        (b"YQ== 0\nYg== 1234567890\n", "the line is.*line 2"),
        (b"YQ== 0\nY?== 1\n", "not base64.*line 2"),
        (b"YQ== 0\n\nYg== 0\n", "rank 0 stands in line 1 too.*line 3"),
        (b"YQ== 0\nYQ== 1\n", "b'a' stands in line 1 too.*line 2"),
        (b"YQ== 0\nYg== 1\n", "no token for the byte 0x00"),
        (b"", "no token for the byte 0x00"),
    ],
)
def test_broken_rank_files(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "x.tiktoken"
    path.write_bytes(content)
    with pytest.raises(UserError, match="(?s)" + message):
        adopt(path, split_pattern="gpt2")
