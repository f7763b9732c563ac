"""A recipe of translation from the command line: build, expect, evaluate, translate, and what it isn't for."""

import io
import json

import pytest

from groundup.cli import command_line

RECIPE = """
[run]
seed = 3

[seq2seq]
steps = 2
pairs_per_update = 4
tests = 4
data = [{ path = "builtin:translation", count = 16 }]

[seq2seq.model]
layers = 1
hidden_size = 16
heads = 2
intermediate_size = 16
context_length = 48

[hardware]
device = "cpu"
precision = "fp32"
compile = false
threads = 1

[expect]
"seq2seq/translation/iid" = ">= 0"
"baseline_bag_of_words/translation/iid" = "<= 0.75"
"""


def run(*arguments) -> int:
    return command_line([str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    folder = tmp_path_factory.mktemp("translation")
    (folder / "recipe.toml").write_text(RECIPE)
    assert run("build", folder / "recipe.toml", "--out", folder / "run", "--json") == 0
    return folder


def test_the_build_shows_scores_and_translations(built, capsys):
    assert run("build", built / "recipe.toml", "--out", built / "run") == 0
    out = capsys.readouterr().out
    assert "translation, %" in out
    assert "baseline" in out
    assert "unseen_combinations" in out
    assert "Translations of test sentences" in out
    assert "(wrong: " in out
    assert "0 stages built, 1 done before" in out
    assert "A conversation" not in out


def test_an_expectation_missed_ends_with_3(built, capsys):
    wish = 'expect."seq2seq/translation/iid"=">= 0.99"'
    assert run("build", built / "recipe.toml", "--out", built / "run", "--set", wish) == 3
    captured = capsys.readouterr()
    assert "MISSED" in captured.out
    assert "seq2seq/translation/iid: measured 0, expected >= 0.99" in captured.err


def test_evaluate_shows_the_scores_of_the_run(built, capsys):
    assert run("evaluate", built / "run", "--json") == 0
    results = json.loads(capsys.readouterr().out)
    assert results["seq2seq"]["translation"]["longer"]["n"] == 4
    assert run("evaluate", built / "run", "--details") == 0
    assert "translation_bleu" in capsys.readouterr().out
    assert run("verify", built / "run") == 0


def test_translate_prints_one_line_a_sentence(built, capsys, monkeypatch):
    assert run("translate", built / "run", "the old dog sees the cat .", "this cat jumps .", "--beam", 2) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert run("translate", built / "run", "the old dog sees the cat .", "--n-best", 2, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found[0]["source"] == "the old dog sees the cat ."
    assert len(found[0]["translations"]) == 2
    assert found[0]["translations"][0]["score"] >= found[0]["translations"][1]["score"]
    monkeypatch.setattr("sys.stdin", io.StringIO("the old dog sees the cat .\n\nthis cat jumps .\n"))
    assert run("translate", built / "run", "--beam", 2) == 0
    assert capsys.readouterr().out.splitlines() == lines


def test_translate_names_unknown_words_and_refuses_what_it_cannot(built, capsys, tmp_path):
    assert run("translate", built / "run", "the zebra sees the cat .") == 0
    assert "not in the vocabulary: zebra" in capsys.readouterr().err
    for arguments, message in (
        (("a", "--n-best", 3, "--beam", 2), "--n-best 3"),
        (("a", "--beam", 0), "--beam 0"),
        (("a", "--length-penalty", -1), "--length-penalty"),
        (("a", "--stage", "sft"), "no stage 'sft'"),
        ((" ".join(["dog"] * 48),), "49 words"),
    ):
        assert run("translate", built / "run", *arguments) == 2
        assert message in capsys.readouterr().err
    assert run("translate", tmp_path) == 2
    assert "is not a run" in capsys.readouterr().err


def test_what_needs_a_language_model_says_so(built, capsys):
    chat = ("chat", built / "run", "--prompt", "hi")
    for arguments in (chat, (*chat, "--stage", "seq2seq"), ("export", built / "run", "--format", "hf")):
        assert run(*arguments) == 2, arguments
        assert "Traceback" not in capsys.readouterr().err


def test_a_run_without_a_translator_says_so(tmp_path, capsys):
    (tmp_path / "recipe.toml").write_text("[corpus]\n")
    assert run("translate", tmp_path, "a") == 2
    assert "no translator" in capsys.readouterr().err
