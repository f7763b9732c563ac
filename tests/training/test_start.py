"""Weights to go on from, where the run's tokenizer has tokens that they don't know."""

from pathlib import Path

import pytest
import torch

from groundup.interchange import save_model
from groundup.model import Architecture, Transformer, initialise
from groundup.run import UserError, write_json
from groundup.tokenizer import Tokenizer, extend, train_bpe
from groundup.training import load_start

TEXT = ["the cat sat on the mat and the dog sat on the cat"] * 3


def saved(vocabulary_size: int, directory: Path) -> Transformer:
    model = Transformer(
        Architecture(
            vocabulary_size=vocabulary_size,
            layers=1,
            hidden_size=16,
            heads=2,
            kv_heads=1,
            head_dim=8,
            intermediate_size=24,
            context_length=32,
        )
    )
    initialise(model, 3)
    directory.mkdir(parents=True)
    save_model(model, directory)
    return model


def test_new_tokens_begin_as_the_mean_of_their_pieces(tmp_path: Path) -> None:
    old = Tokenizer(train_bpe(TEXT, 300).to_str())
    content, pieces = extend(old.json, ["dogcat", " zebra"])
    new = Tokenizer(content)
    new.save(tmp_path / "run" / "tokenizer")
    write_json(tmp_path / "run" / "tokenizer" / "pieces.json", {str(number): ids for number, ids in pieces.items()})
    model = saved(old.vocabulary_size, tmp_path / "start")
    grown = load_start(tmp_path / "start", tmp_path / "run", new)
    assert grown.arch.vocabulary_size == new.vocabulary_size == old.vocabulary_size + 2
    table, before = grown.model.embed_tokens.weight, model.model.embed_tokens.weight
    assert torch.equal(table[: old.vocabulary_size], before)
    for number, text in ((old.vocabulary_size, "dogcat"), (old.vocabulary_size + 1, " zebra")):
        mean = before[old.encode(text)].double().mean(0).float()
        torch.testing.assert_close(table[number], mean)
        assert new.encode(text) == [number]


def test_weights_that_know_the_vocabulary_stay_as_they_are(tmp_path: Path) -> None:
    tokenizer = Tokenizer(train_bpe(TEXT, 300).to_str())
    model = saved(tokenizer.vocabulary_size, tmp_path / "start")
    found = load_start(tmp_path / "start", tmp_path, tokenizer)
    assert all(torch.equal(a, b) for a, b in zip(found.parameters(), model.parameters(), strict=True))


def test_weights_of_another_vocabulary_are_refused(tmp_path: Path) -> None:
    tokenizer = Tokenizer(train_bpe(TEXT, 300).to_str())
    saved(tokenizer.vocabulary_size - 2, tmp_path / "start")
    with pytest.raises(UserError, match="the weights know .* tokens and the tokenizer has"):
        load_start(tmp_path / "start", tmp_path, tokenizer)
