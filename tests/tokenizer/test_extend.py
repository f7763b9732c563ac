"""Added tokens: their ids, their pieces, and that text still comes back."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from groundup.run import UserError
from groundup.tokenizer import Tokenizer
from groundup.tokenizer.extend import extend

WORDS = ["myoglobin", " haem", "世界語", " Größe", "glob", "\t\t\t", "€uro"]
words = st.lists(st.one_of(st.sampled_from([*WORDS, "myoglob", "in", " ", "Größe"]), st.text(max_size=4)), max_size=12)


def test_ids_and_pieces(tokenizer: Tokenizer) -> None:
    text, pieces = extend(tokenizer.json, WORDS)
    longer = Tokenizer(text)
    assert pieces == {700 + number: tokenizer.encode(word) for number, word in enumerate(WORDS)}
    assert [longer.encode(word) for word in WORDS] == [[700 + number] for number in range(len(WORDS))]
    assert longer.vocabulary_size == 700 + len(WORDS)
    assert longer.special_ids() == tokenizer.special_ids()
    assert [longer.token(number) for number in range(700)] == [tokenizer.token(number) for number in range(700)]
    assert longer.encode("the myoglobins") == [*tokenizer.encode("the "), 700, *tokenizer.encode("s")]
    assert json.loads(text)["model"] == json.loads(tokenizer.json)["model"]
    unchanged, none = extend(tokenizer.json, [])
    assert (json.loads(unchanged), none) == (json.loads(tokenizer.json), {})


@pytest.fixture(scope="module")
def longer(tokenizer: Tokenizer) -> Tokenizer:
    return Tokenizer(extend(tokenizer.json, WORDS)[0])


@given(parts=words)
def test_text_comes_back_and_other_text_keeps_its_ids(
    tokenizer: Tokenizer, longer: Tokenizer, parts: list[str]
) -> None:
    text = "".join(parts)
    found = longer.encode(text)
    assert longer.decode_bytes(found) == text.encode()
    if not any(word in text for word in WORDS):
        assert found == tokenizer.encode(text)


def test_special_tokens_are_never_taken_from_text(tokenizer: Tokenizer) -> None:
    text, pieces = extend(tokenizer.json, ["<|think|>", "<|image|>"], special=True)
    longer = Tokenizer(text)
    assert (longer.special_id("<|think|>"), longer.special_id("<|image|>")) == (700, 701)
    assert longer.encode("a <|think|>") == tokenizer.encode("a <|think|>")
    assert pieces == {700: tokenizer.encode("<|think|>"), 701: tokenizer.encode("<|image|>")}
    assert longer.decode([700, *longer.encode("a")]) == "a"
    twice, more = extend(text, ["myoglobin"])
    assert list(more) == [702]
    assert Tokenizer(twice).encode("myoglobin<|think|>") == [702, *tokenizer.encode("<|think|>")]


@pytest.mark.parametrize(
    ("tokens", "special", "message"),
    [
        (["new", ""], False, r"without a spelling.*tokens\[1\]"),
        (["new!", "b", "new!"], False, r"'b' is in the vocabulary already.*tokens\[1\]"),
        (["new!", "new!"], False, r"'new!' is given twice.*tokens\[1\]"),
        (["the"], False, "'the' is in the vocabulary already, as id"),
        ([" the"], False, "' the' is in the vocabulary already, as id"),
        (["Ġthe"], False, "would not decode the token 'Ġthe'"),
        (["Größe"], False, "would not decode the token 'Größe'.*try: .*' Größe'"),
        (["\ud800"], False, "is no text"),
        (["<|pad|>"], False, "'<|pad|>' is in the vocabulary already, as id 1"),
        (["<|pad|>"], True, "'<|pad|>' is in the vocabulary already, as id 1"),
        (["x<|pad|>"], False, "overlaps with the special token '<|pad|>'"),
        (["|user|"], False, "overlaps with the special token '<|user|>'"),
    ],
)
def test_what_is_refused(tokenizer: Tokenizer, tokens: list[str], special: bool, message: str) -> None:
    escaped = message.replace("|", r"\|")
    with pytest.raises(UserError, match="(?s)" + escaped):
        extend(tokenizer.json, tokens, special=special)


def test_special_tokens_around_text_tokens_are_refused(tokenizer: Tokenizer) -> None:
    text, _ = extend(tokenizer.json, ["myoglobin"])
    with pytest.raises(UserError, match="'myoglobin' overlaps with the special token '<myoglobin>'"):
        extend(text, ["<myoglobin>"], special=True)


def test_what_is_no_tokenizer_json(tokenizer: Tokenizer) -> None:
    for broken in ("", "{}", tokenizer.json[:-20]):
        with pytest.raises(UserError, match="not a tokenizer.json"):
            extend(broken, ["myoglobin"])
    file = json.loads(tokenizer.json)
    del file["model"]["merges"][-1:]
    last = max(file["model"]["vocab"], key=file["model"]["vocab"].__getitem__)
    file["model"]["vocab"][last] += 1
    with pytest.raises(UserError, match="700 tokens, and its last id is 700"):
        extend(json.dumps(file), ["myoglobin"])
