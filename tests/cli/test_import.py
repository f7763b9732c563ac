"""`groundup import`: what it prints, what it refuses, and that the run goes on from there."""

import json
import runpy
import shlex
from pathlib import Path

import pytest

from groundup.cli import command_line
from groundup.run import read_json

pytest.importorskip("transformers")
MADE = runpy.run_path(str(Path(__file__).parents[1] / "build" / "made_checkpoint.py"))
PLAIN = ("device=cpu", "precision=fp32", "compile=false", "threads=1")
SETTINGS = [word for setting in PLAIN for word in ("--set", f"hardware.{setting}")]


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return MADE["checkpoint"]("qwen3", tmp_path_factory.mktemp("with space") / "tiny qwen")


@pytest.fixture(scope="module")
def imported(source, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "tiny run!"
    assert run("import", source, "--out", out) == 0
    return out


def run(*arguments):
    return command_line([str(argument) for argument in arguments])


def test_it_says_what_came_in_and_how_to_go_on(source, tmp_path, capsys):
    assert run("import", source, "--out", tmp_path / "run") == 0
    shown = capsys.readouterr().out.splitlines()
    facts = read_json(tmp_path / "run" / "import" / "import.json")
    assert shown[0] == f"qwen3: {facts['parameters']:,} parameters, bfloat16, 283 tokens in 323 rows"
    assert "chat template is kept in import/source" in shown[1]
    assert shown[2] == f"run: {tmp_path / 'run'}"
    assert shown[3].startswith("next: groundup build finetune --out ")
    assert f"'import.source={source}'" in shown[3]


def test_the_way_on_names_a_vocabulary_that_lies_elsewhere(source, tmp_path, capsys):
    words = (tmp_path / "my words.json").resolve()
    words.write_bytes((source / "tokenizer.json").read_bytes())
    assert run("import", source, "--tokenizer", words, "--out", tmp_path / "run") == 0
    way = capsys.readouterr().out.splitlines()[-1]
    assert shlex.split(way)[2:] == [
        *("build", "finetune", "--out", f"{tmp_path / 'run'}", "--set", f"import.source={source}"),
        *("--set", f"import.tokenizer={words}", "--set", 'sft.data=["chats.jsonl"]'),
    ]


def test_an_export_that_is_refused_leaves_the_run_as_it_was(source, tmp_path, capsys):
    out = tmp_path / "run"
    assert run("import", source, "--out", out) == 0
    before = (out / "recipe.toml").read_bytes()
    assert run("export", out, "--format", "gguf") == 2
    assert "which an imported model has not learned" in capsys.readouterr().err
    assert (out / "recipe.toml").read_bytes() == before
    assert run("export", out, "--format", "hf") == 0
    assert (out / "export" / "hf" / "model.safetensors").is_file()
    assert run("export", out, "--format", "gguf") == 2
    assert run("export", out, "--format", "hf") == 0
    assert "export: done before" in capsys.readouterr().err


def test_json(source, imported, capsys):
    capsys.readouterr()
    assert run("import", source, "--out", imported, "--json") == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["run"] == str(imported)
    assert (facts["family"], facts["tokens"], facts["rows"]) == ("qwen3", 283, 323)
    assert read_json(imported / "run.json")["name"] == "tiny-run"


def test_again_is_done_before_and_a_beginning_is_carried_on(source, imported, tmp_path, capsys):
    assert run("import", source, "--out", imported) == 0
    assert "[1/2] import: done before" in capsys.readouterr().err
    (tmp_path / ".hashes.json").write_text("{}")  # of one that was killed while it read
    assert run("import", source, "--out", tmp_path) == 0


def test_what_is_there_is_never_written_over(source, imported, tmp_path, capsys):
    (tmp_path / "notes.txt").write_text("mine")
    assert run("import", source, "--out", tmp_path) == 2
    assert "is there already" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
    assert run("import", source, "--out", tmp_path / "notes.txt") == 2
    other = MADE["checkpoint"]("gpt2", tmp_path / "gpt2")
    capsys.readouterr()
    assert run("import", other, "--out", imported) == 2
    assert "is there already" in capsys.readouterr().err


def test_the_run_goes_on_with_finetune(source, imported, tmp_path, capsys):
    chats = tmp_path / "chats.jsonl"
    records = [
        {"messages": [{"role": "user", "content": f"Say {i}."}, {"role": "assistant", "content": f"{i}!"}]}
        for i in range(300)
    ]
    chats.write_text("".join(json.dumps(record) + "\n" for record in records))
    data = ["--set", f'sft.data=["{chats}"]', "--set", f"import.source={source}"]
    small = ["--set", "sft.steps=2", "--set", "sft.tokens_per_update=512", *SETTINGS]
    assert run("build", "finetune", "--out", imported, *data, *small) == 0
    captured = capsys.readouterr()
    assert "[1/5] import: done before" in captured.err
    assert "[2/5] tokenizer: done before" in captured.err
    assert "A conversation" in captured.out
    assert run("evaluate", imported, "--json") == 0
    assert list(json.loads(capsys.readouterr().out)) == ["import", "sft"]
    assert run("chat", imported, "--prompt", "Say 3.", "--stage", "import", "--max-tokens", "4") == 0
    assert run("chat", imported, "--prompt", "Say 3.", "--max-tokens", "4") == 0
    assert run("show", imported) == 0
    assert run("verify", imported) == 0
    assert run("book", imported) == 2
    assert "tells how a model was made from the ground up" in capsys.readouterr().err


def test_a_bare_import_has_nothing_to_be_measured_on(source, tmp_path, capsys):
    assert run("import", source, "--out", tmp_path / "run") == 0
    assert run("evaluate", tmp_path / "run") == 2
    assert "conversations that [sft] holds out, and there is none" in capsys.readouterr().err
    tasks = tmp_path / "mine.jsonl"
    tasks.write_text(json.dumps({"query": "The cat sat on the", "choices": ["mat", "dogs"], "gold": 0}) + "\n")
    assert run("evaluate", tmp_path / "run", "--tasks", tasks, "--json") == 0
    assert json.loads(capsys.readouterr().out)["import"]["mine"]["all"]["n"] == 1
