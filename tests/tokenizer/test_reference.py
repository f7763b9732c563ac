"""The plain-Python BPE: against a count done by hand, a trainer that recounts everything, and the fast engines."""

import gzip
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import islice, pairwise
from pathlib import Path

import pytest
import rustbpe
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Regex, models, pre_tokenizers

from groundup.run import UserError
from groundup.tokenizer import train_bpe
from groundup.tokenizer.patterns import SPLIT_PATTERNS
from groundup.tokenizer.reference import (
    Pair,
    ReferenceTokenizer,
    count_words,
    encode_word,
    learn,
    vocabulary,
)

QWEN2 = SPLIT_PATTERNS["qwen2"]
SPACES = r"\s+|\S+"  # long words with many repeats

# Few letters, so that ties, overlaps and repeats are the rule.
corpora = st.lists(st.text("ab c", max_size=25), max_size=8)
word_counts = st.dictionaries(st.text("abc", max_size=12).map(str.encode), st.integers(1, 4), max_size=8)


def test_the_worked_example_merge_by_merge() -> None:
    """Sennrich et al.'s four words. Ties: es before st, lo before ow, ew before ne, des… before wi and id."""
    counts = {b"low": 5, b"lower": 2, b"newest": 6, b"widest": 3}
    expected = [
        (b"e", b"s"),  # 9, as st
        (b"es", b"t"),  # 9
        (b"l", b"o"),  # 7, as ow
        (b"lo", b"w"),  # 7
        (b"e", b"w"),  # 6, as ne and w+est: e is the smallest left id
        (b"n", b"ew"),  # 6, as ew+est: the byte n is a smaller id than the token ew
        (b"new", b"est"),  # 6
        (b"d", b"est"),  # 3, as wi and id
        (b"i", b"dest"),  # 3, as wi: i is smaller than w
        (b"w", b"idest"),  # 3
        (b"e", b"r"),  # 2, as low+e
        (b"low", b"er"),  # 2
    ]
    assert learn(counts, 100) == expected
    for merges in range(12):
        assert learn(counts, merges) == expected[:merges]
    ranks = {pair: rank for rank, pair in enumerate(expected)}
    assert encode_word(b"lowest", ranks) == [b"low", b"est"]
    assert encode_word(b"newer", ranks) == [b"new", b"er"]
    ids = vocabulary(expected, first_id=16)
    assert len(ids) == 268
    assert (ids[b"\x00"], ids[b"\xff"], ids[b"es"], ids[b"lower"]) == (16, 271, 272, 283)


def test_overlapping_places_count_each_and_merge_once() -> None:
    assert learn({b"aaa": 2, b"bc": 3}, 1) == [(b"a", b"a")]  # 4 against 3, though made only twice
    assert learn({b"aaaaa": 3}, 9) == [(b"a", b"a"), (b"aa", b"a"), (b"aa", b"aaa")]  # (256, 97) before (256, 256)
    assert learn({b"ab": 2, b"ba": 2, b"aa": 2}, 3) == [(b"a", b"a"), (b"a", b"b"), (b"b", b"a")]
    assert learn({}, 5) == learn({b"": 9, b"x": 9}, 5) == learn({b"xy": 9}, 0) == []


def test_merges_at_the_end_that_were_made_too_seldom_are_cut() -> None:
    counts = {b"abc": 3, b"xy": 1}
    assert learn(counts, 9, min_frequency=1) == [(b"a", b"b"), (b"ab", b"c"), (b"x", b"y")]
    assert learn(counts, 9) == learn(counts, 9, min_frequency=3) == [(b"a", b"b"), (b"ab", b"c")]
    assert learn(counts, 9, min_frequency=4) == []
    # "aaa" once: its pair counts two, but is merged once. Alone at the end it goes; before a frequent one it stays.
    assert learn({b"aaa": 1}, 9, min_frequency=1) == [(b"a", b"a"), (b"aa", b"a")]
    assert learn({b"aaa": 1}, 9) == []
    assert learn({b"aaa": 1, b"bc": 2}, 9) == [(b"a", b"a"), (b"b", b"c")]
    assert learn({b"aaa": 1, b"bc": 2}, 1) == []


@settings(max_examples=300)
@given(counts=word_counts, merges=st.integers(0, 30), min_frequency=st.integers(1, 6))
def test_learning_is_the_rule_taken_literally(counts: dict[bytes, int], merges: int, min_frequency: int) -> None:
    assert learn(counts, merges, min_frequency) == recount(counts, merges, min_frequency)


def recount(counts: Mapping[bytes, int], merges: int, min_frequency: int) -> list[Pair]:
    """Count all pairs of all words anew each round, and stop only when there is none."""
    tokens = [bytes([value]) for value in range(256)]
    words = [(list(word), count) for word, count in counts.items()]
    learned, made = [], []
    while len(learned) < merges:
        pairs = Counter(pair for word, count in words for pair in pairwise(word) for _ in range(count))
        if not pairs:
            break
        left, right = min(pairs, key=lambda pair: (-pairs[pair], pair))
        made.append(0)
        for word, count in words:
            place = 0
            while place < len(word) - 1:
                if word[place : place + 2] == [left, right]:
                    word[place : place + 2] = [len(tokens)]
                    made[-1] += count
                place += 1
        tokens.append(tokens[left] + tokens[right])
        learned.append((tokens[left], tokens[right]))
    while made and made[-1] < min_frequency:
        made.pop()
    return learned[: len(made)]


@settings(max_examples=200)
@given(texts=corpora, text=st.text("ab c", max_size=40))
def test_small_corpora_give_the_tokens_and_ids_of_rustbpe(texts: list[str], text: str) -> None:
    same_as_rustbpe(texts, 40, SPACES, text)


def same_as_rustbpe(texts: Sequence[str], merges: int, pattern: str, text: str) -> None:
    """Equal tokens in equal order, and equal ids of a text."""
    fast = rustbpe.Tokenizer()
    fast.train_from_iterator(iter(texts), 256 + merges, pattern=pattern)
    learned = learn(count_words(texts, pattern), merges, min_frequency=1)
    ids = vocabulary(learned)
    assert len(ids) == 256 + len(learned)  # no two merges make the same token
    assert list(ids) == [token for token, _ in fast.get_mergeable_ranks()]
    assert ReferenceTokenizer(learned, ids, pattern).encode(text) == fast.encode(text)


@settings(max_examples=100)
@given(texts=corpora, min_frequency=st.integers(1, 5))
def test_small_corpora_give_the_merges_and_ids_of_train_bpe(texts: list[str], min_frequency: int) -> None:
    fast = train_bpe(texts, 16 + 256 + 40, split_pattern=SPACES, min_frequency=min_frequency)
    merges = learn(count_words(texts, SPACES), 40, min_frequency)
    found = json.loads(fast.to_str())["model"]["merges"]
    assert [tuple(pair) for pair in found] == [(spelled(left), spelled(right)) for left, right in merges]
    assert {
        spelled(token): number for token, number in vocabulary(merges, 16).items()
    }.items() <= fast.get_vocab().items()


def test_an_article_gives_the_tokens_and_ids_of_rustbpe(real_data: Path) -> None:
    text = (real_data / "small" / "taylorswift.txt").read_text(encoding="utf-8")
    same_as_rustbpe([text], 2000, QWEN2, text)
    same_as_rustbpe([text[:20_000]], 100_000, QWEN2, text)  # until every word is one token


def test_markup_and_code_give_the_tokens_and_ids_of_rustbpe(real_data: Path) -> None:
    texts = markup(real_data)
    assert sum(map(len, texts)) > 200_000
    same_as_rustbpe(texts, 1000, SPLIT_PATTERNS["gpt4"], texts[0])


def test_75_languages_give_the_tokens_and_ids_of_rustbpe(real_data: Path) -> None:
    texts = languages(real_data, 15)
    assert len(texts) == 75
    same_as_rustbpe(texts, 1000, SPLIT_PATTERNS["o200k"], "\n".join(languages(real_data, 2)))


def markup(real_data: Path) -> list[str]:
    folder = real_data / "techdocs" / "peps"
    return [read(path)[:20_000] for path in sorted(path for path in folder.rglob("*") if path.is_file())[:30]]


def languages(real_data: Path, lines: int) -> list[str]:
    folder = real_data / "languages"
    return ["\n".join(islice(read(path).splitlines(), lines)) for path in sorted(folder.glob("*.txt.gz"))]


def read(path: Path) -> str:
    content = path.read_bytes()
    return (gzip.decompress(content) if path.suffix == ".gz" else content).decode("utf-8")


@lru_cache(maxsize=1)
def stand_ins() -> dict[int, str]:
    """GPT-2's printable character for each byte."""
    plain = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in plain]
    return {byte: chr(byte) for byte in plain} | {byte: chr(256 + rank) for rank, byte in enumerate(others)}


def spelled(token: bytes) -> str:
    return "".join(stand_ins()[byte] for byte in token)


def hugging_face(merges: Sequence[Pair], ids: Mapping[bytes, int], pattern: str) -> tokenizers.Tokenizer:
    """The same merges and ids in Hugging Face's `tokenizers`."""
    named = {spelled(token): number for token, number in ids.items()}
    fast = tokenizers.Tokenizer(models.BPE(named, [(spelled(left), spelled(right)) for left, right in merges]))
    split = pre_tokenizers.Split(Regex(pattern), behavior="isolated")
    to_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    fast.pre_tokenizer = pre_tokenizers.Sequence([split, to_bytes])
    return fast


def same_as_hugging_face(merges: Sequence[Pair], ids: Mapping[bytes, int], pattern: str, texts: list[str]) -> None:
    ours, theirs = ReferenceTokenizer(merges, ids, pattern), hugging_face(merges, ids, pattern)
    for text in texts:
        found = ours.encode(text)
        assert found == theirs.encode(text).ids
        assert ours.decode(found) == text
        assert ours.decode_bytes(found) == text.encode()


@pytest.fixture(scope="module")
def trained() -> tuple[ReferenceTokenizer, tokenizers.Tokenizer, list[Pair]]:
    """Both engines with merges learned from this folder's tests, and those merges."""
    texts = [path.read_text(encoding="utf-8") for path in sorted(Path(__file__).parent.glob("*.py"))]
    merges = learn(count_words([*texts, "Привет, мир. 世界 Grüße 😀😀 ção\u0301"] * 2, QWEN2), 600)
    ids = vocabulary(merges, 16)
    return ReferenceTokenizer(merges, ids, QWEN2), hugging_face(merges, ids, QWEN2), merges


@settings(max_examples=300)
@given(text=st.text() | st.text("abcdefrstn _.(\n'Пиé世😀"))
def test_any_text_gets_hugging_face_s_ids_and_comes_back(
    trained: tuple[ReferenceTokenizer, tokenizers.Tokenizer, list[Pair]], text: str
) -> None:
    ours, theirs, _ = trained
    ids = ours.encode(text)
    assert ids == theirs.encode(text).ids
    assert ours.decode(ids) == text


@settings(max_examples=200)
@given(word=st.binary(max_size=60) | st.text("deftrns_ 世é", max_size=40).map(str.encode))
def test_any_bytes_come_back_and_no_merge_is_left(
    trained: tuple[ReferenceTokenizer, tokenizers.Tokenizer, list[Pair]], word: bytes
) -> None:
    ranks = {pair: rank for rank, pair in enumerate(trained[2])}
    tokens = encode_word(word, ranks)
    assert b"".join(tokens) == word
    assert not any(pair in ranks for pair in pairwise(tokens))


@st.composite
def merges_in_any_order(draw: st.DrawFn) -> list[Pair]:
    """Merges that no training gives: in any order, and several ways to the same token."""
    tokens, merges = [b"a", b"b", b"c"], []
    for _ in range(draw(st.integers(1, 12))):
        pair = (draw(st.sampled_from(tokens)), draw(st.sampled_from(tokens)))
        if pair not in merges:
            merges.append(pair)
            tokens.append(b"".join(pair))
    return draw(st.permutations(merges))


@settings(max_examples=400)
@given(merges=merges_in_any_order(), texts=st.lists(st.text("abc", max_size=30), max_size=4))
def test_any_list_of_merges_gives_hugging_face_s_ids(merges: list[Pair], texts: list[str]) -> None:
    same_as_hugging_face(merges, vocabulary(merges), SPACES, texts)


def test_a_lone_surrogate_counts_as_the_replacement_character() -> None:
    tokenizer = ReferenceTokenizer([], vocabulary([]), SPACES)
    assert tokenizer.decode(tokenizer.encode("a\ud800b\udc00")) == "a\ufffdb\ufffd"
    assert tokenizer.encode("\ud83d\ude00") == list("😀".encode())
    assert count_words(["\ud800 \ud800"], SPACES) == {"\ufffd".encode(): 2, b" ": 1}


def test_the_lowest_rank_goes_first_then_the_leftmost_place() -> None:
    assert encode_word(b"abc", {(b"a", b"b"): 1, (b"b", b"c"): 0}) == [b"a", b"bc"]
    assert encode_word(b"aaa", {(b"a", b"a"): 0}) == [b"aa", b"a"]
    # One place at a time: after the first "ab", "aba" has a lower rank than the second "ab".
    assert encode_word(b"abab", {(b"ab", b"a"): 0, (b"a", b"b"): 1}) == [b"aba", b"b"]
    assert encode_word(b"", {(b"a", b"b"): 0}) == []


def test_real_texts_get_hugging_face_s_ids_and_come_back(real_data: Path) -> None:
    article = (real_data / "small" / "taylorswift.txt").read_text(encoding="utf-8")
    naughty = json.loads((real_data / "conformance" / "blns.json").read_text(encoding="utf-8"))
    merges = learn(count_words([article, *languages(real_data, 10)], QWEN2), 1500)
    texts = [article, *markup(real_data)[:5], *languages(real_data, 10), *naughty]
    same_as_hugging_face(merges, vocabulary(merges, 16), QWEN2, texts)


def test_gpt_2_s_own_merges_and_ids(real_data: Path) -> None:
    folder = real_data / "gpt2_bpe"
    byte = {character: bytes([value]) for value, character in stand_ins().items()}

    def content(token: str) -> bytes:
        return b"".join(byte[character] for character in token)

    named = json.loads((folder / "encoder.json").read_text(encoding="utf-8"))
    ids = {content(token): number for token, number in named.items() if token != "<|endoftext|>"}
    lines = (folder / "vocab.bpe").read_text(encoding="utf-8").splitlines()[1:]
    merges = [(content(left), content(right)) for left, right in (line.split(" ") for line in lines)]
    assert len(merges) == 50_000
    texts = [*markup(real_data)[:3], *languages(real_data, 3)]
    same_as_hugging_face(merges, ids, SPLIT_PATTERNS["gpt2"], texts)
    ours = ReferenceTokenizer(merges, ids, SPLIT_PATTERNS["gpt2"])
    assert ours.encode("Hello, world! It's 2019.") == [15496, 11, 995, 0, 632, 338, 13130, 13]


def test_a_token_without_an_id_and_an_id_without_a_token() -> None:
    ids = vocabulary([(b"a", b"b")])
    with pytest.raises(UserError, match="1 tokens have no id, the first is b'abc'"):
        ReferenceTokenizer([(b"a", b"b"), (b"ab", b"c")], ids, QWEN2)
    tokenizer = ReferenceTokenizer([(b"a", b"b")], ids, QWEN2)
    assert tokenizer.decode([256, 0x63]) == "abc"
    assert tokenizer.decode([0xE4, 0xB8]) == "\ufffd"
    assert tokenizer.decode_bytes([0xE4, 0xB8]) == b"\xe4\xb8"
    with pytest.raises(ValueError, match="id 257 is outside the vocabulary of 257"):
        tokenizer.decode([257])
