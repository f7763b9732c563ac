"""Learning: the fast trainer is the reference's equal, and what the patterns and thresholds do."""

import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from groundup.recipe.tokenizer import SPECIAL_AND_BYTES
from groundup.run import UserError
from groundup.tokenizer import ShardWriter, Tokenizer, TokenShards, dtype_for, train_bpe
from groundup.tokenizer.bpe import ALPHABET, LONGEST_SPACE, assemble
from groundup.tokenizer.patterns import SPLIT_PATTERNS, pattern_of, split_words
from groundup.tokenizer.reference import count_words, learn
from groundup.tokenizer.special import special_tokens

SOURCES = [path.read_text(encoding="utf-8") for path in sorted(Path(__file__).parent.glob("*.py"))]


def learned(texts: list[str], size: int, **options: object) -> Tokenizer:
    return Tokenizer(train_bpe(texts, size, **options).to_str())  # type: ignore[arg-type]


@pytest.mark.parametrize("name", SPLIT_PATTERNS)
def test_merges_are_the_references(name: str) -> None:
    counts = count_words(SOURCES, SPLIT_PATTERNS[name])
    tokenizer = learned(SOURCES, 272 + 600, split_pattern=name)
    assert tokenizer.merges() == learn(counts, 600)
    assert [tokenizer.token(272 + rank) for rank in range(600)] == [a + b for a, b in tokenizer.merges()]


@settings(max_examples=150, deadline=None)
@given(
    texts=st.lists(st.text("ab é\n", max_size=30), max_size=6),
    merges=st.integers(1, 30),
    least=st.integers(1, 4),
)
def test_small_corpora_ties_and_rare_pairs(texts: list[str], merges: int, least: int) -> None:
    tokenizer = learned(texts, 272 + merges, min_frequency=least)
    assert tokenizer.merges() == learn(count_words(texts, SPLIT_PATTERNS["qwen2"]), merges, least)


def test_real_text(real_data: Path) -> None:
    text = (real_data / "small" / "taylorswift.txt").read_text(encoding="utf-8")
    for name in ("gpt4", "o200k"):
        tokenizer = learned([text], 272 + 1500, split_pattern=name)
        assert tokenizer.merges() == learn(count_words([text], SPLIT_PATTERNS[name]), 1500)


def test_the_order_of_texts_does_not_matter() -> None:
    shuffled = [*SOURCES]
    random.Random(1).shuffle(shuffled)
    assert train_bpe(SOURCES, 700).to_str() == train_bpe(iter(shuffled), 700).to_str()


def test_the_recipe_knows_how_much_room_is_taken() -> None:
    assert len(special_tokens(0)) + ALPHABET == SPECIAL_AND_BYTES


def test_bytes_come_by_value_behind_the_special_tokens() -> None:
    tokenizer = learned(["abab"], 300, reserved=3)
    specials = special_tokens(3)
    assert tokenizer.special_ids() == {name: number for number, name in enumerate(specials)}
    assert [tokenizer.token(len(specials) + byte) for byte in range(256)] == [bytes([byte]) for byte in range(256)]


def test_endless_words() -> None:
    """White space is learned from in part (the trainer's regex engine overflows its stack at a million of it)."""
    tokenizer = learned([" " * 3_000_000 + "x", "a" * 100_000, "=-" * 30_000], 310)
    tokens = [tokenizer.token(number) for number in range(272, tokenizer.vocabulary_size)]
    assert 100 < max(len(token) for token in tokens if not token.strip()) <= LONGEST_SPACE
    assert max(map(len, tokens)) > 10_000
    text = " " * 5000 + "\n" * 5000 + "a" * 70_000
    assert tokenizer.decode(tokenizer.encode(text)) == text


@pytest.mark.parametrize(
    ("name", "digits", "words"),
    [
        ("qwen2", "pattern", ["x", "1", "2", "3", "4", "5"]),
        ("gpt4", "pattern", ["x", "123", "45"]),
        ("gpt2", "pattern", ["x", "12345"]),
        ("o200k", 1, ["x", "1", "2", "3", "4", "5"]),
        ("qwen2", 2, ["x", "12", "34", "5"]),
    ],
)
def test_digits(name: str, digits: object, words: list[str]) -> None:
    assert split_words("x12345", pattern_of(name, digits)) == words  # type: ignore[arg-type]


def test_own_patterns() -> None:
    tokenizer = learned(SOURCES, 400, split_pattern=r"\w+|\W")
    assert tokenizer.engine == "tokenizers"  # the fast engine doesn't know it
    assert tokenizer.decode(tokenizer.encode("don't, 世界")) == "don't, 世界"
    assert all(b" " not in token or len(token) == 1 for token in map(tokenizer.token, range(272, 400)))
    assert [ids.tolist() for ids in tokenizer.encode_arrays(["a b", ""])] == [tokenizer.encode("a b"), []]


@pytest.mark.parametrize(
    ("name", "digits", "message"),
    [
        ("gpt5", "pattern", "unknown split pattern 'gpt5'"),
        (r"(\w+", "pattern", "not a regular expression"),
        (r"[a-z]+|\s+", "pattern", "leaves out"),
        (r"\w+|\W", 2, "digits are for named patterns"),
    ],
)
def test_wrong_patterns(name: str, digits: object, message: str) -> None:
    with pytest.raises(UserError, match=message):
        pattern_of(name, digits)  # type: ignore[arg-type]


@pytest.mark.parametrize("pattern", [r"(?~abc)|\S|\s", "[^\n]+$|\n|.", "(?m).+", r"^#+ |\w+|\s|\S"])
def test_own_patterns_are_learned_with_the_words_that_are_encoded(pattern: str) -> None:
    """Regex engines differ in what these mean."""
    texts = ["abcabc ab ab\n# ab abc\nab\n", "ab\nab ab"] * 3
    assert learned(texts, 290, split_pattern=pattern).merges() == learn(count_words(texts, pattern), 18)


@given(text=st.text(max_size=80))
def test_words_are_the_text(text: str) -> None:
    for pattern in SPLIT_PATTERNS.values():
        assert "".join(split_words(text, pattern)) == text


def test_a_vocabulary_beyond_65536(tmp_path: Path) -> None:
    """Ids that need 32 bits, from text to shards and back."""
    merges = [(bytes([left]), bytes([right])) for left in range(256) for right in range(256)]
    tokenizer = Tokenizer(assemble(merges, special_tokens(9), SPLIT_PATTERNS["qwen2"]).to_str())
    assert tokenizer.vocabulary_size == 272 + 65_536
    assert dtype_for(tokenizer.vocabulary_size) == "uint32"
    text = "\xff\xfe " + "".join(map(chr, range(0x4E00, 0x5E00))) + "".join(map(chr, range(0xAC00, 0xBC00)))
    ids = tokenizer.encode_array(text)
    assert ids.max() > 60_000
    with pytest.raises(ValueError, match="do not fit uint16"):
        ShardWriter(tmp_path, "uint16", pad_id=tokenizer.pad).add([*ids, 65_807])
    with ShardWriter(tmp_path, "uint32", pad_id=tokenizer.pad) as writer:
        writer.add([*ids, 65_807])
    stored = TokenShards(tmp_path).doc(0)
    assert stored.max() == 65_807
    assert tokenizer.decode(stored[:-1]) == text
    assert tokenizer.token(65_807) == b"\xff\xff"
