"""Other people's vocabularies: ids as their own programs give them, and what is refused."""

import base64
import copy
import gzip
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import tiktoken
import tokenizers
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiktoken.load import data_gym_to_mergeable_bpe_ranks
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers, processors, trainers

from groundup.run import UserError
from groundup.tokenizer import Tokenizer
from groundup.tokenizer.adopt import adopt
from groundup.tokenizer.alphabet import byte_of_character
from groundup.tokenizer.patterns import SPLIT_PATTERNS
from groundup.tokenizer.ranks import read_ranks
from groundup.tokenizer.special import NAMED, special_tokens
from groundup.tokenizer.tokenizer import read_tokenizer

TEXT = ["the cat sat on the mat, the cat ran; 2024 we'll see\n\n  été Ωμέγα 世界 😀"] * 3
pieces = st.one_of(st.text(max_size=12), st.sampled_from([*NAMED, "the", " cat", "'ll", "\r\n", " 1234", "<think>"]))
any_text = st.lists(pieces, max_size=12).map("".join)
few = settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])


def trained() -> tokenizers.Tokenizer:
    """A vocabulary as a stranger would train it: <s> first, <think> no special token, an NFC normalizer."""
    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=["<s>"], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(TEXT, trainer)
    tokenizer.add_special_tokens([AddedToken("<|end|>", special=True, normalized=False)])
    tokenizer.add_tokens([AddedToken("<think>", normalized=False)])
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    return tokenizer


THEIRS = trained()
FILE: dict[str, Any] = json.loads(THEIRS.to_str())
SIZE = THEIRS.get_vocab_size()


def ranks_of(file: dict[str, Any]) -> dict[bytes, int]:
    """The tokens of a file but its special ones, numbered from 0 in the order of their ids."""
    table = byte_of_character()
    tokens = sorted(file["model"]["vocab"].items(), key=lambda item: item[1])
    return {bytes(table[c] for c in token): rank for rank, (token, _) in enumerate(tokens[1:])}


RANKS = ranks_of(FILE)


def write_json(folder: Path, content: Any) -> Path:
    path = folder / "tokenizer.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def write_ranks(path: Path, ranks: dict[bytes, int]) -> Path:
    path.write_bytes(b"".join(base64.b64encode(token) + b" %d\n" % rank for token, rank in ranks.items()))
    return path


def real_texts(real_data: Path, each: int) -> Iterator[str]:
    with gzip.open(real_data / "wikitext2" / "valid.txt.gz", "rt", encoding="utf-8") as file:
        yield file.read(50 * each)
    for path in sorted((real_data / "languages").glob("*.txt.gz")):
        with gzip.open(path, "rt", encoding="utf-8") as file:
            yield file.read(each)
    yield from json.loads((real_data / "conformance" / "blns.json").read_text(encoding="utf-8"))


def test_gpt2s_own_files(real_data: Path, tmp_path: Path) -> None:
    """Ids of tiktoken, of `tokenizers` and ours are equal, whether of the pair, the ranks or the JSON."""
    folder = real_data / "gpt2_bpe"
    adopted = adopt(folder)
    ranks = data_gym_to_mergeable_bpe_ranks(str(folder / "vocab.bpe"), str(folder / "encoder.json"))
    judge = tiktoken.Encoding(
        "gpt2", pat_str=SPLIT_PATTERNS["gpt2"], mergeable_ranks=ranks, special_tokens={"<|endoftext|>": 50256}
    )
    ours = Tokenizer(adopted.json)
    library = tokenizers.Tokenizer(models.BPE.from_file(str(folder / "encoder.json"), str(folder / "vocab.bpe")))
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    texts = list(real_texts(real_data, 2000))
    expected = judge.encode_ordinary_batch(texts, num_threads=1)
    assert sum(map(len, expected)) > 50_000
    assert ours.encode_batch(texts) == expected
    assert [encoding.ids for encoding in library.encode_batch(texts)] == expected
    assert all(ours.decode_bytes(found) == text.encode() for text, found in zip(texts, expected, strict=True))
    assert (ours.endoftext, ours.pad, ours.vocabulary_size) == (50256, 50257, 50257 + 6 + 9)
    assert adopted.pieces[50257] == judge.encode("<|pad|>")
    assert list(adopted.pieces) == list(range(50257, 50272))
    again = adopt(write_ranks(tmp_path / "r50k_base.tiktoken", ranks))
    assert again.pieces == adopted.pieces
    first, second = (Tokenizer(content.json) for content in (adopted, again))
    assert first.merges() == second.merges()
    assert first.special_ids() == second.special_ids()
    assert [first.token(number) for number in range(50272)] == [second.token(number) for number in range(50272)]


def test_a_tokenizer_json_keeps_its_ids(tmp_path: Path) -> None:
    adopted = adopt(write_json(tmp_path, FILE).parent)
    ours = Tokenizer(adopted.json)
    missing = [token for token in special_tokens(9) if token != "<|end|>"]
    assert ours.end == SIZE - 2
    assert [ours.special_id(token) for token in missing] == list(range(SIZE, SIZE + 15)) == list(adopted.pieces)
    assert ours.special_ids().keys() == {*special_tokens(9), "<s>"}
    exact = read_tokenizer(adopted.json)
    vocabulary = exact.get_vocab(with_added_tokens=True)
    assert THEIRS.get_vocab(with_added_tokens=True).items() <= vocabulary.items()
    assert exact.encode("the cat").ids == THEIRS.encode("the cat", add_special_tokens=False).ids  # no <s> any more
    assert ours.encode("<think>") == [SIZE - 1]
    file = json.loads(adopted.json)
    assert (file["normalizer"], file["post_processor"], file["decoder"]["type"]) == (None, None, "ByteLevel")


def test_a_token_of_our_spelling_becomes_special(tmp_path: Path) -> None:
    file = copy.deepcopy(FILE)
    file["added_tokens"] = file["added_tokens"][:1]
    file["model"]["vocab"]["<|tool|>"] = SIZE - 2
    adopted = adopt(write_json(tmp_path, file))
    ours = Tokenizer(adopted.json)
    assert ours.tool == SIZE - 2
    assert ours.tool in ours.special_ids().values()
    assert ours.tool not in ours.encode("<|tool|>")
    assert len(adopted.pieces) == 15
    file["model"]["vocab"] |= {"<|tool|": SIZE - 1}
    file["model"]["merges"] += [["<|tool|", ">"]]
    with pytest.raises(UserError, match=r"text can become the added token '<\|tool\|>': merges make it"):
        adopt(write_json(tmp_path, file))


@given(text=any_text)
@few
def test_ids_on_nfc_text_and_every_text_comes_back(tmp_path: Path, text: str) -> None:
    ours = Tokenizer(adopt(write_json(tmp_path, FILE), reserved=0).json)
    judge = tokenizers.Tokenizer.from_str(json.dumps(FILE))
    judge.encode_special_tokens = True
    nfc = normalizers.NFC().normalize_str(text)
    assert ours.encode(nfc) == judge.encode(nfc, add_special_tokens=False).ids
    assert ours.decode_bytes(ours.encode(text)) == text.encode()
    assert not {*ours.encode(text)} & {*ours.special_ids().values()}


def test_both_ways_to_write_merges_and_types(tmp_path: Path) -> None:
    """GPT-2's published file has no type, empty affixes, and merges as strings; nested sequences are laid flat."""
    older = copy.deepcopy(FILE)
    del older["model"]["type"]
    older["model"] |= {"continuing_subword_prefix": "", "end_of_word_suffix": "", "unk_token": "<s>"}
    older["model"]["merges"] = [" ".join(pair) for pair in FILE["model"]["merges"]]
    split = {"type": "Digits", "individual_digits": True}
    inner = {"type": "Sequence", "pretokenizers": [FILE["pre_tokenizer"]]}
    older["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [split, inner]}
    adopted = json.loads(adopt(write_json(tmp_path, older)).json)
    assert adopted["model"] == json.loads(adopt(write_json(tmp_path, FILE)).json)["model"]
    kinds = [part["type"] for part in adopted["pre_tokenizer"]["pretokenizers"]]
    assert kinds == ["Digits", "ByteLevel"]


def change(*keys: str | int, to: Any) -> Callable[[dict[str, Any]], None]:
    def apply(file: Any) -> None:
        for key in keys[:-1]:
            file = file[key]
        file[keys[-1]] = to

    return apply


def added(number: int, content: str, **flags: bool) -> Callable[[dict[str, Any]], None]:
    return lambda file: file["added_tokens"].append({"id": number, "content": content, **flags})


def split(**parts: Any) -> Callable[[dict[str, Any]], None]:
    return change("pre_tokenizer", to={"type": "Split", "pattern": {"String": " "}, "behavior": "Isolated", **parts})


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (change("model", "type", to="Unigram"), r"the model is 'Unigram'.*model\.type"),
        (change("model", "type", to="WordPiece"), "the model is 'WordPiece'"),
        (change("model", to=[]), "model is '.*'.*model of type dict"),
        (change("model", "byte_fallback", to=True), "'NFC' changes text.*normalizer"),
        (change("model", "dropout", to=0.1), "dropout is 0.1: ids would be random"),
        (change("model", "end_of_word_suffix", to="</w>"), "end_of_word_suffix is '</w>'"),
        (change("normalizer", to={"type": "Lowercase"}), "normalizer 'Lowercase' changes text"),
        (
            change("normalizer", to={"type": "Sequence", "normalizers": [{"type": "NFC"}, {"type": "NFKC"}]}),
            "normalizer 'NFKC'",
        ),
        (change("pre_tokenizer", "add_prefix_space", to=True), "add_prefix_space.*pre_tokenizer"),
        (change("pre_tokenizer", to={"type": "Metaspace"}), "pre-tokenizer 'Metaspace' changes text"),
        (change("pre_tokenizer", to=None), "0 pre-tokenizers 'ByteLevel'"),
        (change("pre_tokenizer", to="Split"), "pre-tokenizer 'Split' changes text"),
        (split(), "0 pre-tokenizers 'ByteLevel'"),
        (split(behavior="Removed"), "'Split' removes what it splits at"),
        (change("model", "vocab", "!", to=9999), "no token has id 1, but the last id is 9999"),
        (change("model", "vocab", "!", to=5), r"'!' and '.' have the same id 5"),
        (change("model", "vocab", "!", to="1"), r"id of '!' is '1'.*whole number"),
        (lambda file: file["model"]["vocab"].pop("!"), "no token for the byte 0x21, spelled '!'"),
        (change("model", "vocab", "a b", to=SIZE), "'a b' of id .* not spelled in GPT-2's byte alphabet"),
        (change("model", "merges", 1, to=["a", "zz"]), r"names 'zz', which is no token.*model\.merges\[1\]"),
        (change("model", "merges", 1, to="a b c"), r"the merge is 'a b c'.*merges\[1\]"),
        (change("model", "merges", 1, to=FILE["model"]["merges"][0]), "are merged twice"),
        (change("added_tokens", to={}), None),
        (change("added_tokens", to=[7]), "an added token is 7"),
        (added(SIZE, ""), "without content"),
        (added(SIZE, "\ud800"), "is no text"),
        (added(SIZE, "e\u0301"), "is not in NFC"),
        (added(SIZE, "<mask>", lstrip=True), "'<mask>' swallows the white space"),
        (added(SIZE, "<think>"), r"'<think>' occurs twice.*added_tokens\[3\]"),
        (added(3, "<x>"), "'<x>' has id 3, which contradicts"),
        (added(SIZE + 1, "<x>"), f"no token has id {SIZE}"),
        (added(SIZE, "the"), "'the' has id"),
        (added(SIZE, "user"), "text token 'user' overlaps with the special token '<|user|>'"),
        (added(FILE["model"]["vocab"]["the"], "the", special=True), "text can become the added token 'the'"),
        (added(FILE["model"]["vocab"]["!"], "!", special=True), "text can become the added token '!'"),
        (added(FILE["model"]["vocab"]["Ġ"], "Ġ"), "text can become the added token 'Ġ'"),
    ],
)
def test_what_is_refused(tmp_path: Path, harm: Callable[[dict[str, Any]], Any], message: str | None) -> None:
    file = copy.deepcopy(FILE)
    harm(file)
    path = write_json(tmp_path, file)
    if message is None:
        assert Tokenizer(adopt(path).json).vocabulary_size == SIZE - 1 + 15  # without <think>
        return
    with pytest.raises(UserError, match="(?s)" + message) as caught:
        adopt(path)
    assert str(path) in str(caught.value)


def test_whole_words_never_become_special(tmp_path: Path) -> None:
    """With ignore_merges a word that is a token needs no merge; so a special token must not be a word of text."""
    file = copy.deepcopy(FILE)
    file["model"]["ignore_merges"] = True
    assert json.loads(adopt(write_json(tmp_path, file)).json)["model"]["ignore_merges"] is True
    byte_level = FILE["pre_tokenizer"] | {"use_regex": False}
    file["pre_tokenizer"] = byte_level
    with pytest.raises(UserError, match="text that spells the added token '<s>' would become it"):
        adopt(write_json(tmp_path, file))


def write_pair(folder: Path) -> tuple[Path, Path]:
    table, merges = folder / "vocab.json", folder / "merges.txt"
    numbered = {token: number - 1 for token, number in FILE["model"]["vocab"].items() if token != "<s>"}
    table.write_text(json.dumps(numbered | {"<|endoftext|>": len(numbered)}))
    lines = "\n".join(" ".join(pair) for pair in FILE["model"]["merges"])
    merges.write_text(f"#version: 0.2\n{lines}\n", encoding="utf-8")
    return table, merges


def test_the_pair_of_files_and_its_errors(tmp_path: Path) -> None:
    table, merges = write_pair(tmp_path)
    ours = Tokenizer(adopt(tmp_path, reserved=2).json)
    assert ours.endoftext == SIZE - 3
    assert ours.vocabulary_size == SIZE - 2 + 6 + 2
    judge = tiktoken.Encoding("x", pat_str=SPLIT_PATTERNS["gpt2"], mergeable_ranks=RANKS, special_tokens={})
    assert ours.encode(TEXT[0]) == judge.encode_ordinary(TEXT[0])
    good = merges.read_text(encoding="utf-8")
    for line, message in [("a", "a merge is 'a'"), ("a  b", "a merge is"), ("a ##", "names '##', which is no token")]:
        merges.write_text(good.replace("\n", f"\n{line}\n", 1), encoding="utf-8")
        with pytest.raises(UserError, match=f"(?s){message}.*merges.txt: line 2"):
            adopt(tmp_path)
    merges.write_text(good + "\n\n", encoding="utf-8")
    with pytest.raises(UserError, match=f"a merge is ''.*\n.*line {good.count(chr(10)) + 1}"):
        adopt(tmp_path)
    merges.write_text("\n".join(good.split("\n")[:-3]), encoding="utf-8")
    with pytest.raises(UserError, match=r"(?s)no merge makes the token.*merges\.txt"):
        adopt(tmp_path)
    (tmp_path / "added_tokens.json").write_text("{}")
    with pytest.raises(UserError, match="adopt its tokenizer.json"):
        adopt(tmp_path)


def test_braces_in_a_path_are_no_format(tmp_path: Path) -> None:
    (tmp_path / "{x}{}").mkdir()
    file = copy.deepcopy(FILE)
    file["model"]["merges"][2] = ["a", "zz"]
    with pytest.raises(UserError, match=r"(?s)\{x\}\{\}.*model\.merges\[2\]"):
        adopt(write_json(tmp_path / "{x}{}", file))


def test_files_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        adopt(tmp_path / "none")
    with pytest.raises(UserError, match="no vocabulary here"):
        adopt(tmp_path)
    for name in ("a.tiktoken", "b.tiktoken"):
        write_ranks(tmp_path / name, RANKS)
    with pytest.raises(UserError, match="2 rank files"):
        adopt(tmp_path)
    with pytest.raises(UserError, match="own split pattern"):
        adopt(write_json(tmp_path, FILE), split_pattern="gpt2")
    for content, message in [("[1]", "holds a list"), ('{"model": ', "not JSON"), ("[" * 9999, "not JSON")]:
        (tmp_path / "tokenizer.json").write_text(content)
        with pytest.raises(UserError, match=message):
            adopt(tmp_path)
    (tmp_path / "tokenizer.json").write_bytes(b"\xff{}")
    with pytest.raises(UserError, match="can't be read"):
        adopt(tmp_path)
    with pytest.raises(UserError, match="can't be read"):
        read_ranks(tmp_path)


def places(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """The keys to every part of a JSON value, at most five of each long list or table."""
    keys: list[Any] = (
        list(value)[-5:] if isinstance(value, dict) else list(range(len(value)))[:5] if isinstance(value, list) else []
    )
    for key in keys:
        yield (*path, key)
        yield from places(value[key], (*path, key))


PLACES = list(places(FILE))
junk = st.one_of(
    st.none(), st.booleans(), st.integers(-2, 400), st.floats(), st.text(max_size=3),
    st.sampled_from(["ByteLevel", "Sequence", "BPE", "(", "\ud800", [], {}, [[]], {"type": "NFC"}, {"Regex": "("}]),
)  # fmt: skip


@given(st.lists(st.tuples(st.sampled_from(PLACES), junk), min_size=1, max_size=3))
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_harmed_json_is_refused_or_read(tmp_path: Path, harms: list[tuple[tuple[str | int, ...], Any]]) -> None:
    file: Any = copy.deepcopy(FILE)
    for keys, value in harms:
        try:
            change(*keys, to=copy.deepcopy(value))(file)
        except (TypeError, KeyError, IndexError):  # an earlier harm took the place away
            continue
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(file))
    only_user_errors(path)


@given(data=st.data())
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_harmed_bytes_are_refused_or_read(tmp_path: Path, data: st.DataObject) -> None:
    """Bytes changed, taken out or put in, and the end cut off, in every kind of file."""
    (tmp_path / "pair").mkdir(exist_ok=True)
    table, merges = write_pair(tmp_path / "pair")
    ranks = write_ranks(tmp_path / "x.tiktoken", RANKS)
    path = data.draw(st.sampled_from([table, merges, ranks, write_json(tmp_path, FILE)]))
    content = path.read_bytes()
    for _ in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.integers(0, len(content)))
        end = data.draw(st.sampled_from([start, start + 1, start + 5, len(content)]))
        content = content[:start] + data.draw(st.binary(max_size=4)) + content[end:]
    path.write_bytes(content)
    only_user_errors(path.parent if path.parent.name == "pair" else path)


def only_user_errors(path: Path) -> None:
    """The file is refused, or what it gives keeps the promises."""
    try:
        adopted = adopt(path, split_pattern="gpt2" if path.suffix == ".tiktoken" else None, reserved=0)
    except UserError:
        return
    exact = read_tokenizer(adopted.json)
    assert sorted(exact.get_vocab().values()) == list(range(exact.get_vocab_size()))
    ours = Tokenizer(adopted.json)
    text = "the cat <|end|> été 世界\n\n <|pad|>"
    assert ours.decode_bytes(ours.encode(text)) == text.encode()
    assert not {*ours.encode(text)} & {*ours.special_ids().values()}
