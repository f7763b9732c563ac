"""Exactness of the tokenizer, and its agreement with Hugging Face's reading of the same file."""

import json
from pathlib import Path
from typing import Any

import gigatoken
import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from groundup.run import UserError
from groundup.tokenizer import Tokenizer, engine, extend, train_bpe
from groundup.tokenizer.patterns import SPLIT_PATTERNS
from groundup.tokenizer.special import NAMED, special_tokens

pieces = st.one_of(st.text(max_size=12), st.sampled_from([*NAMED, "<|reserved_3|>", "<|", "'ll", "\r\n", " 1234"]))
any_text = st.lists(pieces, max_size=12).map("".join)


def test_the_order_of_ids(tokenizer: Tokenizer) -> None:
    specials = special_tokens(9)
    assert specials[:8] == [
        "<|endoftext|>", "<|pad|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>", "<|tool|>",
        "<|reserved_0|>",
    ]  # fmt: skip
    assert tokenizer.special_ids() == {name: number for number, name in enumerate(specials)}
    alphabet = [tokenizer.token(number) for number in range(16, 272)]
    assert sorted(alphabet) == [bytes([byte]) for byte in range(256)]
    assert all(len(tokenizer.token(number)) > 1 for number in range(272, 700))
    assert tokenizer.vocabulary_size == 700 == len(tokenizer.token_bytes())
    assert tokenizer.token_bytes()[:16] == [0] * 16
    named = (tokenizer.endoftext, tokenizer.pad, tokenizer.system, tokenizer.user, tokenizer.assistant)
    assert (*named, tokenizer.end, tokenizer.tool) == tuple(range(7))


@given(text=any_text)
def test_text_comes_back_and_is_never_special(tokenizer: Tokenizer, text: str) -> None:
    ids = tokenizer.encode(text)
    assert tokenizer.decode_bytes(ids) == text.encode()
    assert tokenizer.decode(ids) == text
    assert all(number >= 16 for number in ids)
    lengths = tokenizer.token_bytes()
    assert sum(lengths[number] for number in ids) == len(text.encode())


@given(texts=st.lists(any_text, max_size=5))
def test_batches_equal_single_texts(tokenizer: Tokenizer, texts: list[str]) -> None:
    assert tokenizer.encode_batch(texts) == [tokenizer.encode(text) for text in texts]


@given(data=st.binary(max_size=40))
def test_every_byte_string_has_ids(tokenizer: Tokenizer, data: bytes) -> None:
    single = {tokenizer.token(number): number for number in range(16, 272)}
    ids = [single[bytes([byte])] for byte in data]
    assert tokenizer.decode_bytes(ids) == data
    assert tokenizer.decode(ids) == data.decode("utf-8", "replace")


def test_special_ids_are_spelled_only_on_request(tokenizer: Tokenizer) -> None:
    ids = [tokenizer.user, *tokenizer.encode("hi"), tokenizer.end]
    assert tokenizer.decode(ids) == "hi"
    assert tokenizer.decode(ids, special=True) == "<|user|>hi<|end|>"
    with pytest.raises(ValueError, match="id 700 is outside the vocabulary of 700"):
        tokenizer.decode([700])
    with pytest.raises(ValueError, match="id -1"):
        tokenizer.decode([-1])


def test_lone_surrogates_are_replaced(tokenizer: Tokenizer) -> None:
    assert tokenizer.decode(tokenizer.encode("a\ud800b")) == "a\ufffdb"
    assert tokenizer.decode(tokenizer.encode("\ud83d\ude00")) == "😀"


def test_the_split_is_qwen2s(tokenizer: Tokenizer) -> None:
    words = tokenizer._tokenizer.pre_tokenizer.pre_tokenize_str("We'll pay 1234 euros!!\n\n  ok")
    parts = ["We", "'ll", "Ġpay", "Ġ", "1", "2", "3", "4", "Ġeuros", "!!ĊĊ", "Ġ", "Ġok"]
    assert [word for word, _ in words] == parts


@given(text=st.text(max_size=60))
def test_transformers_reads_the_same_ids(tokenizer: Tokenizer, text: str) -> None:
    theirs = PreTrainedTokenizerFast(tokenizer_object=tokenizer._tokenizer)
    ids = tokenizer.encode(text)
    assert theirs(text)["input_ids"] == ids
    assert theirs.decode(ids, clean_up_tokenization_spaces=False) == text


def test_save_and_load(tokenizer: Tokenizer, tmp_path: Path) -> None:
    tokenizer.save(tmp_path)
    again = Tokenizer.load(tmp_path)
    assert again.fingerprint == tokenizer.fingerprint
    assert again.encode("Grüße <|end|>") == tokenizer.encode("Grüße <|end|>")


def test_training_is_deterministic_and_ends_when_nothing_repeats(tokenizer: Tokenizer) -> None:
    texts = ["the cat sat on the mat, the cat ran"] * 2
    first, second = (train_bpe(texts, 4096).to_str() for _ in range(2))
    assert first == second
    small = Tokenizer(first)
    assert 272 < small.vocabulary_size < 400
    assert small.decode(small.encode("unseen: Ωmega")) == "unseen: Ωmega"
    assert Tokenizer(train_bpe([], 4096).to_str()).vocabulary_size == 272


def test_errors(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no tokenizer\.json"):
        Tokenizer.load(tmp_path)
    with pytest.raises(UserError, match="no room for merges"):
        train_bpe(["a"], 272)
    with pytest.raises(UserError, match="not a tokenizer"):
        Tokenizer("{}")
    with pytest.raises(UserError, match="lacks the special tokens <|end|>".replace("|", r"\|")):
        Tokenizer(train_bpe(["ab ab"], 300).to_str().replace("<|end|>", "<|fin|>"))


SPLIT = {"type": "Split", "pattern": {"Regex": SPLIT_PATTERNS["qwen2"]}, "behavior": "Isolated", "invert": False}
BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ([SPLIT, BYTES], "gigatoken"),
        ([{"type": "Digits", "individual_digits": True}, SPLIT, BYTES], "tokenizers"),
        ([SPLIT, BYTES | {"use_regex": True}], "tokenizers"),
        ([SPLIT | {"behavior": "Removed", "invert": True}, BYTES], "tokenizers"),
        ([SPLIT, SPLIT, BYTES], "tokenizers"),
    ],
)
def test_the_fast_engine_is_used_only_where_it_is_known_to_be_right(
    tokenizer: Tokenizer, parts: list[dict[str, Any]], expected: str
) -> None:
    content = json.loads(tokenizer.json)
    content["pre_tokenizer"]["pretokenizers"] = parts
    assert Tokenizer(json.dumps(content)).engine == expected


def test_a_token_that_stands_only_between_words_is_left_to_the_exact_engine(tokenizer: Tokenizer) -> None:
    content = json.loads(extend(tokenizer.json, ["cat"])[0])
    assert Tokenizer(json.dumps(content)).engine == "gigatoken"
    content["added_tokens"][-1]["single_word"] = True
    found = Tokenizer(json.dumps(content))
    assert found.engine == "tokenizers"
    assert found.encode("concatenate") == tokenizer.encode("concatenate")


def test_the_fast_engine_begins_anew_and_goes_on(tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would otherwise keep every word that it ever saw."""
    made = []
    real = gigatoken.Tokenizer.from_json
    monkeypatch.setattr(gigatoken.Tokenizer, "from_json", lambda content: made.append(1) or real(content))
    monkeypatch.setattr(engine, "RENEWED", 1000)
    found = Tokenizer(tokenizer.json)
    texts = [f"word{n} and text of forty characters, more or less" for n in range(200)]
    assert [found.encode(text) for text in texts] == tokenizer.encode_batch(texts)
    assert found.encode_batch(texts) == tokenizer.encode_batch(texts)
    characters = sum(map(len, texts))
    assert characters // 1000 <= len(made) <= 2 * characters // 900
