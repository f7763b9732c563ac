"""The tokenizer chapter's facts."""

import json
import runpy
from pathlib import Path

import pytest

from groundup.book.text import token_text
from groundup.book.tokens import _merge_steps, _pattern
from groundup.tokenizer import Tokenizer, adopt


@pytest.mark.parametrize("kind", ["gemma", "llama"])
def test_words_of_sentencepiece_are_put_together_from_characters(kind, tmp_path):
    made = runpy.run_path(str(Path(__file__).parents[1] / "tokenizer" / "made_pieces.py"))
    (tmp_path / "tokenizer.json").write_text(made["piece_tokenizer"](kind).to_str(), encoding="utf-8")
    tool = Tokenizer(adopt(tmp_path).json)
    content = json.loads(tool.json)
    steps = _merge_steps(tool, "The  cat été didn't", [tuple(pair) for pair in content["model"]["merges"]])
    assert steps["words"] == ["The", "␣␣cat", "␣été", "␣didn't"]
    assert steps["word"] == "␣didn't"
    assert steps["states"][0]["pieces"] == ["␣", "d", "i", "d", "n", "'", "t"]
    assert steps["states"][-1]["pieces"] == [token_text(tool.token(number)) for number in tool.encode(" didn't")]
    assert _pattern(content) == "\u2581*[^\u2581]+"
    assert _pattern(content | {"pre_tokenizer": None}) == ""
