"""Vocabularies of SentencePiece: ids as the library gives them, texts that come back, and what is refused."""

import copy
import gzip
import json
import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st

from groundup.run import UserError
from groundup.tokenizer import Tokenizer, adopt, extend
from groundup.tokenizer.special import NAMED

MADE = runpy.run_path(str(Path(__file__).with_name("made_pieces.py")))
MARK, piece_tokenizer, without_prefix = (MADE[name] for name in ("MARK", "piece_tokenizer", "without_prefix"))
KINDS = ("gemma", "llama", "mistral")
FILES: dict[str, dict[str, Any]] = {kind: json.loads(piece_tokenizer(kind).to_str()) for kind in KINDS}
SIZE = len(FILES["llama"]["model"]["vocab"])
pieces = st.one_of(st.text(max_size=10), st.sampled_from([*NAMED, "the cat", "  ", "\n\n", "</s>", "<0x41>", "    x"]))
texts = st.lists(pieces, max_size=10).map("".join)


def adopted(kind: str, folder: Path, **changes: Any) -> Tokenizer:
    folder.mkdir(exist_ok=True)
    (folder / "tokenizer.json").write_text(json.dumps(FILES[kind] | changes), encoding="utf-8")
    return Tokenizer(adopt(folder).json)


@pytest.fixture(scope="module")
def all_kinds(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tokenizer]:
    return {kind: adopted(kind, tmp_path_factory.mktemp(kind)) for kind in KINDS}


def theirs(kind: str) -> tokenizers.Tokenizer:
    """The library with the file as it is but for the space before a text, and with special tokens taken as text."""
    found = tokenizers.Tokenizer.from_str(json.dumps(without_prefix(FILES[kind])))
    found.encode_special_tokens = True
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_ids_are_those_of_the_file(kind: str, all_kinds: dict[str, Tokenizer]) -> None:
    library, ours = theirs(kind), all_kinds[kind]

    @given(texts)
    @settings(max_examples=150, deadline=None)
    def check(text: str) -> None:
        ids = ours.encode(text)
        assert ours.decode(ids) == text
        if MARK not in text and "</s>" not in text:
            assert ids == library.encode(text, add_special_tokens=False).ids

    check()
    assert ours.sentencepiece
    assert ours.engine == "tokenizers"
    assert [ours.token(ours.special_ids()[name], special=True) for name in ("<s>", "<|end|>")] == [b"<s>", b"<|end|>"]


@pytest.mark.parametrize("kind", KINDS)
def test_no_text_becomes_special_or_loses_its_marks(kind: str, all_kinds: dict[str, Tokenizer]) -> None:
    ours = all_kinds[kind]
    assert ours.special_ids()["</s>"] == 2
    assert 2 in theirs(kind).encode("</s>").ids  # by merging, which the file as it is allows
    ids = ours.encode(f"a{MARK}b {MARK}{MARK} </s><s><|end|>")
    assert ours.decode(ids) == f"a{MARK}b {MARK}{MARK} </s><s><|end|>"
    assert not set(ids) & set(ours.special_ids().values())
    assert ours.encode("<0x41>") != ours.encode("A")
    assert ours.decode_bytes(ours.encode("😀")[1:]) == "😀".encode()[1:]
    assert sum(ours.token_bytes()[number] for number in ours.encode("  été 😀")) == len("  été 😀".encode())


def test_ids_stay_and_ours_come_last(all_kinds: dict[str, Tokenizer]) -> None:
    """The first word has no space before it; within a text all is as the file's own tokenizer has it."""
    ours, whole = all_kinds["llama"], piece_tokenizer("llama")
    assert whole.encode("The cat", add_special_tokens=False).ids == ours.encode(" The cat")
    assert whole.decode(ours.encode(" The cat")) == "The cat"
    assert ours.special_ids()["<|endoftext|>"] == SIZE
    read = tokenizers.Tokenizer.from_str(ours.json)
    assert read.decode(ours.encode("  été\n 世界😀")) == "  été\n 世界😀"


def test_merges_and_added_tokens(all_kinds: dict[str, Tokenizer]) -> None:
    ours = all_kinds["gemma"]
    assert (b" ", b" ") in ours.merges()
    assert ours.token(ours.encode("\n\n")[0]) == b"\n\n"
    more = Tokenizer(extend(ours.json, [" Größe", "myoglobin"])[0])
    assert [more.token(number) for number in more.encode("a Größe myoglobin")][-3:-2] != [b" "]
    assert " Größe".encode() in [more.token(number) for number in more.encode("a Größe")]
    assert more.decode(more.encode("a Größe  myoglobin")) == "a Größe  myoglobin"
    with pytest.raises(UserError, match="with spaces"):
        extend(ours.json, [f"a{MARK}"])


def test_metaspace_that_splits_words(tmp_path: Path) -> None:
    split = {"type": "Metaspace", "replacement": MARK, "prepend_scheme": "never", "split": True}
    ours = adopted("mistral", tmp_path, pre_tokenizer=split)
    library = tokenizers.Tokenizer.from_str(json.dumps(FILES["mistral"] | {"pre_tokenizer": split}))
    for text in ("the   cat", "  the cat  ", " ", "", "a\n  b"):
        assert ours.encode(text) == library.encode(text, add_special_tokens=False).ids
    assert ours.encode("    ") != adopted("mistral", tmp_path / "whole").encode("    ")


def test_tokens_beyond_a_word_are_found(tmp_path: Path) -> None:
    """Where a token holds a space within, words are not split first."""
    file = copy.deepcopy(FILES["gemma"])
    vocabulary = file["model"]["vocab"]
    for left, right in ((MARK, "s"), ("s", f"{MARK}s")):
        vocabulary.setdefault(left + right, len(vocabulary))
        file["model"]["merges"].append([left, right])
    ours = adopted("gemma", tmp_path, model=file["model"])
    assert json.loads(ours.json)["pre_tokenizer"] is None
    assert [ours.token(number) for number in ours.encode("s s")] == [b"s s"]


def change(*keys: str | int, to: Any) -> Callable[[Any], None]:
    def apply(file: Any) -> None:
        for key in keys[:-1]:
            file = file[key]
        file[keys[-1]] = to

    return apply


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (change("model", "dropout", to=0.1), r"dropout is 0.1.*model\.dropout"),
        (change("model", "ignore_merges", to=True), "ignore_merges is True"),
        (change("normalizer", to={"type": "NFKC"}), "normalizer 'NFKC' changes text"),
        (change("normalizer", to={"type": "Prepend", "prepend": MARK}), "nothing spells spaces"),
        (change("pre_tokenizer", to={"type": "ByteLevel"}), "'ByteLevel' is not known beside SentencePiece"),
        (lambda file: file["model"]["vocab"].pop("<0x41>"), "no token <0x41>"),
        (change("model", "merges", 0, to=["a", "zz"]), r"names 'zz', which is no token.*model\.merges\[0\]"),
        (change("model", "vocab", "<s>", to=9999), "contradicts|no token has id"),
        (lambda file: file["added_tokens"].append({"id": 9999, "content": "<x>"}), f"no token has id {SIZE}"),
        (lambda file: file["added_tokens"].append({"id": 5, "content": "<x>"}), "'<x>' has id 5, which contradicts"),
        (
            lambda file: file["added_tokens"].append({"id": SIZE, "content": f"{MARK}x{MARK}"}),
            "would come back with spaces",
        ),
        (
            lambda file: file["added_tokens"].append({"id": SIZE, "content": "user"}),
            r"overlaps with the special token '<\|user\|>'",
        ),
        (
            lambda file: file["added_tokens"].append(
                {"id": file["model"]["vocab"]["a"], "content": "a", "special": True}
            ),
            "text can become the special token 'a'",
        ),
    ],
)
def test_what_is_refused(tmp_path: Path, harm: Callable[[Any], Any], message: str) -> None:
    file = copy.deepcopy(FILES["llama"])
    harm(file)
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(file), encoding="utf-8")
    with pytest.raises(UserError, match="(?s)" + message) as caught:
        adopt(path)
    assert str(path) in str(caught.value)


def test_real_texts_come_back(real_data: Path, all_kinds: dict[str, Tokenizer]) -> None:
    library, ours = theirs("gemma"), all_kinds["gemma"]
    for path in sorted((real_data / "languages").glob("*.txt.gz")):
        with gzip.open(path, "rt", encoding="utf-8") as file:
            text = file.read(3000)
        ids = ours.encode(text)
        assert ours.decode(ids) == text
        assert MARK in text or ids == library.encode(text, add_special_tokens=False).ids
