"""The command line: output, exit codes, errors without tracebacks."""

import json
import os
import re
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from groundup.build import Speaker
from groundup.build.stages import ADAPTERS
from groundup.cli import app, command_line
from groundup.run import UserError, write_json

COMMANDS = (
    "build", "import", "chat", "translate", "evaluate", "book", "corpus", "tokenize", "tokenizer",
    "show", "verify", "export", "runs", "recipes", "doctor",
)  # fmt: skip
GROUPS = ("corpus", "tokenizer")
SCORES = {
    "sft": {
        "bits_per_byte": {"validation": {"value": 1.234, "low": 1.2, "high": 1.3, "n": 40, "metric": "bits_per_byte"}},
        "storyworld_qa": {"iid": {"value": 0.5, "low": 0.402, "high": 0.598, "n": 96, "metric": "accuracy"}},
        "storyworld_qa_where": {"iid": {"value": 0.25, "low": 0.1, "high": 0.5, "n": 12, "metric": "accuracy"}},
    },
    "baseline_random": {
        "storyworld_qa": {"iid": {"value": 0.2, "low": 0.1, "high": 0.3, "n": 96, "metric": "accuracy"}}
    },
}


@pytest.fixture
def stand_in(monkeypatch):
    """Adapters that write a file each, so that commands are tested without training."""

    def adapter(context):
        (context.out / "out.txt").write_text(context.stage.name)
        if context.stage.kind == "evaluate":
            write_json(context.out / "results.json", SCORES)
        if context.stage.kind == "book":
            (context.out / "book.pdf").write_bytes(b"%PDF")
        if context.stage.kind == "export":
            (context.out / "hf").mkdir()
            (context.out / "hf" / "config.json").write_text("{}")
        return {}

    for kind in ADAPTERS:
        monkeypatch.setitem(ADAPTERS, kind, adapter)
    talk = [{"role": "user", "content": "Where is [b]Mia[/b]?"}, {"role": "assistant", "content": "In the park."}]
    monkeypatch.setattr("groundup.build.sample_conversation", lambda run, seed: talk)


def run(*arguments):
    return command_line([str(argument) for argument in arguments])


def test_help_is_quick_and_names_every_command():
    command = [sys.executable, "-m", "groundup", "--help"]
    times = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        times.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert all(f"│ {name} " in shown for name in COMMANDS)
    assert not any(f"│ {name} " in shown for name in ("serve", "plan"))
    # Processor time, which other processes on a busy machine don't lengthen as they do the clock's.
    assert min(times) < 0.6


def test_help_loads_no_heavy_package():
    program = (
        "import sys\nfrom groundup.cli import command_line\ncommand_line(['build', '--help'])\n"
        "print(sorted({'torch', 'numpy', 'pyarrow', 'pydantic'} & sys.modules.keys()), file=sys.stderr)"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stderr == "[]\n"


@pytest.mark.parametrize(
    "name", [name for name in COMMANDS if name not in GROUPS] + ["corpus inspect", "corpus stats", "tokenizer stats"]
)
def test_every_command_has_an_example_and_json(name, capsys):
    assert run(*name.split(), "--help") == 0
    shown = capsys.readouterr().out
    assert f"Example: groundup {name}" in shown
    assert "--json" in shown
    assert "--no-" not in shown
    assert "--empty" not in shown


def test_the_commands_are_these_and_no_others():
    assert sorted(name for name in app if not name.startswith("-")) == sorted(COMMANDS)


def test_version(capsys):
    assert run("--version") == 0
    assert capsys.readouterr().out.startswith("groundup 0.")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["biuld"], 'Did you mean "build"?'),
        (["serve", "x"], 'Unknown command "serve"'),
        (["plan"], 'Unknown command "plan"'),
        (["import", "x"], "requires an argument"),
        (["import", "some/model", "--out", "run"], "nothing is downloaded"),
        (["build", "--fersh"], "Did you mean --fresh?"),
        (["build", "smoke", "more"], "more"),
        (["build", "latop"], "did you mean 'laptop'?"),
        (["build", "none.toml"], "no recipe file 'none.toml'"),
        (["build", "smoke", "--set", "pretrain.stepz=3"], "did you mean 'steps'?"),
        (["build", "smoke", "--set", "ppo.steps=3"], "unknown section [ppo]"),
        (["build", "smoke", "--until", "tokeniser"], "did you mean 'tokenizer'?"),
        (["build", "smoke", "--only", "sft"], "which is not built yet"),
        (["chat", "nowhere"], "is not a run"),
        (["chat", "nowhere", "--temperature", "-1"], "--temperature -1 can't be used"),
        (["chat", "nowhere", "--top-p", "0"], "--top-p 0 can't be used"),
        (["chat", "nowhere", "--max-tokens", "0"], "--max-tokens 0 can't be used"),
        (["chat", "nowhere", "--json"], "--json needs --prompt"),
        (["chat"], "requires an argument"),
        (["evaluate", "nowhere"], "is not a run"),
        (["book", "nowhere"], "is not a run"),
        (["verify", "nowhere"], "is not a run"),
        (["export", "nowhere", "--format", "hf"], "is not a run"),
        (["export", "nowhere", "--format", "onnx"], 'Choose from: "hf", "gguf"'),
        (["export", "nowhere", "--format", "hf", "--quantization", "q8_0"], "--quantization is for --format gguf"),
        (["runs", "nowhere"], "no folder 'nowhere'"),
    ],
)
def test_a_users_mistake_gets_a_sentence_and_exit_code_2(arguments, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run(*arguments) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.startswith("groundup: ")
    assert "Traceback" not in captured.err
    assert captured.out == ""


def test_build_shows_scores_conversation_and_paths(stand_in, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run("build", "smoke") == 0
    captured = capsys.readouterr()
    assert "1.234 (1.200-1.300)" in captured.out
    assert "50.0 (40-60)" in captured.out
    assert "storyworld_qa_where" not in captured.out
    assert "user: Where is [b]Mia[/b]?\nassistant: In the park." in captured.out
    assert "book: runs/smoke/book/book.pdf" in captured.out
    assert "export: runs/smoke/export/hf" in captured.out
    assert "[1/8] corpus: begins" in captured.err
    assert "8 stages built, 0 done before" in captured.out
    assert run("build", "smoke", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["built"] == []
    assert found["results"] == SCORES
    assert found["paths"] == {
        "run": "runs/smoke",
        "export": "runs/smoke/export/hf",
        "book": "runs/smoke/book/book.pdf",
    }


def test_the_default_recipe_is_laptop(stand_in, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run("build", "--until", "corpus", "--set", "hardware.precision=fp32", "--set", "hardware.compile=false") == 0
    assert (tmp_path / "runs" / "laptop" / "corpus" / "manifest.json").is_file()


def test_a_missed_expectation_is_exit_code_3_once_everything_is_built(stand_in, capsys, tmp_path):
    wish = 'expect."sft/storyworld_qa/iid"=">= 0.60"'
    assert run("build", "smoke", "--out", tmp_path, "--set", wish) == 3
    captured = capsys.readouterr()
    assert "sft/storyworld_qa/iid: measured 0.5, expected >= 0.6" in captured.err
    assert "MISSED" in captured.out
    assert (tmp_path / "book" / "manifest.json").is_file()
    assert run("build", "smoke", "--out", tmp_path, "--set", wish, "--until", "dpo") == 0
    assert run("build", "smoke", "--out", tmp_path, "--set", wish.replace("0.60", "0.50")) == 0


def test_verify_reports_and_exits_1_on_a_changed_byte(stand_in, capsys, tmp_path):
    assert run("build", "smoke", "--out", tmp_path) == 0
    capsys.readouterr()
    assert run("verify", tmp_path) == 0
    assert "all as it was made" in capsys.readouterr().out
    (tmp_path / "sft" / "out.txt").write_text("tfs")
    assert run("verify", tmp_path, "--json") == 1
    captured = capsys.readouterr()
    assert json.loads(captured.out)["problems"] == ["sft/out.txt: content differs from its checksum"]
    assert "sft/out.txt: content differs" in captured.err


def test_evaluate_shows_the_runs_own_results(stand_in, capsys, tmp_path):
    assert run("build", "smoke", "--out", tmp_path, "--until", "dpo") == 0
    capsys.readouterr()
    assert run("evaluate", tmp_path, "--details") == 0
    assert "storyworld_qa_where" in capsys.readouterr().out
    assert run("evaluate", tmp_path, "--json") == 0
    assert json.loads(capsys.readouterr().out) == SCORES
    assert run("evaluate", tmp_path, "--tasks", tmp_path / "none.jsonl") == 2
    assert "no task file" in capsys.readouterr().err


def test_book_and_export_print_their_paths(stand_in, capsys, tmp_path):
    assert run("build", "smoke", "--out", tmp_path) == 0
    capsys.readouterr()
    assert run("book", tmp_path) == 0
    assert capsys.readouterr().out == f"{tmp_path}/book/book.pdf\n"
    assert run("export", tmp_path, "--format", "hf", "--stage", "sft") == 0
    assert capsys.readouterr().out == f"{tmp_path}/export/hf\n"
    assert 'stage = "sft"' in (tmp_path / "recipe.toml").read_text()
    assert run("export", tmp_path, "--format", "gguf", "--quantization", "q8_0") == 0
    assert capsys.readouterr().out == f"{tmp_path}/export/model.gguf\n"
    written = (tmp_path / "recipe.toml").read_text()
    assert re.search(r'formats = \[\s*"hf",\s*"gguf",?\s*\]', written)  # what was exported before stays
    assert 'stage = "sft"' in written
    assert 'quantization = "q8_0"' in written
    assert run("export", tmp_path, "--format", "gguf", "--out", tmp_path / "recipe.toml") == 2
    assert "is there already" in capsys.readouterr().err


def test_an_export_that_fails_leaves_the_run_as_it_was(stand_in, capsys, tmp_path, monkeypatch):
    assert run("build", "smoke", "--out", tmp_path) == 0
    before, working = (tmp_path / "recipe.toml").read_bytes(), ADAPTERS["export"]

    def failing(context):
        raise UserError("llama.cpp does not know how this tokenizer splits words")

    monkeypatch.setitem(ADAPTERS, "export", failing)
    assert run("export", tmp_path, "--format", "gguf", "--stage", "sft") == 2
    assert (tmp_path / "recipe.toml").read_bytes() == before
    assert run("book", tmp_path) == 0
    assert run("build", "smoke", "--set", 'export.formats=["gguf"]', "--out", tmp_path) == 2
    monkeypatch.setitem(ADAPTERS, "export", working)
    (tmp_path / "export" / "model.gguf").unlink(missing_ok=True)
    assert run("export", tmp_path, "--format", "hf") == 0  # what is not made and can't be made stands in no way
    assert re.search(r'formats = \[\s*"hf",?\s*\]', (tmp_path / "recipe.toml").read_text())


def test_runs_lists_and_says_when_there_is_none(stand_in, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run("runs") == 0
    assert "no run in runs" in capsys.readouterr().out
    assert run("build", "smoke", "--until", "tokenizer") == 0
    capsys.readouterr()
    assert run("runs") == 0
    assert "2/8" in capsys.readouterr().out
    assert run("runs", "--json") == 0
    assert json.loads(capsys.readouterr().out)[0]["done"] == ["corpus", "tokenizer"]


def test_recipes_and_doctor(capsys):
    assert run("recipes", "--json") == 0
    assert next(iter(json.loads(capsys.readouterr().out))) == "laptop"
    assert run("recipes") == 0
    assert "shakespeare" in capsys.readouterr().out
    assert run("doctor", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["matrix_gflops"]["fp32"] > 0
    assert found["chosen"]["device"] in found["devices"]
    assert found["physical_cores"] >= 1


class Parrot(Speaker):
    """Answers with how many messages it was given and the last one."""

    def __init__(self):
        object.__setattr__(self, "stage", "sft")

    def stream(self, messages, **options):
        yield f"{len(messages)} "
        yield messages[-1]["content"].upper()


def test_chat_prompt_prints_just_the_answer(capsys, monkeypatch):
    monkeypatch.setattr("groundup.build.open_speaker", lambda run, stage: Parrot())
    assert run("chat", "run", "--prompt", "hello") == 0
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("1 HELLO\n", "")
    assert run("chat", "run", "--prompt", "hello", "--json") == 0
    assert json.loads(capsys.readouterr().out) == {"stage": "sft", "prompt": "hello", "answer": "1 HELLO"}


def test_chat_keeps_history_until_new_and_ends_with_quit(capsys, monkeypatch):
    lines = iter(["one", "", "two", "/new", "three", "/quit", "four"])
    monkeypatch.setattr("builtins.input", lambda prompt: next(lines))
    monkeypatch.setattr("groundup.build.open_speaker", lambda run, stage: Parrot())
    assert run("chat", "run") == 0
    assert capsys.readouterr().out == "1 ONE\n3 TWO\n1 THREE\n"
    assert next(lines) == "four"


def test_a_signal_is_exit_code_130_and_says_that_the_command_carries_on(tmp_path):
    command = [sys.executable, "-m", "groundup", "build", "smoke", "--out", str(tmp_path), "--until", "dpo"]
    command += ["--set", "pretrain.steps=100000"]
    with subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"}
    ) as made:
        while not (tmp_path / "pretrain" / "metrics.jsonl").exists() and made.poll() is None:
            time.sleep(0.05)
        time.sleep(0.3)
        made.send_signal(signal.SIGINT)
        _, errors = made.communicate(timeout=60)
    assert made.returncode == 130
    assert "the same command carries on" in errors
    assert "Traceback" not in errors
    assert list(Path(tmp_path / "pretrain" / "checkpoints").glob("step-*"))
