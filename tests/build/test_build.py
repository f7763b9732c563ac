"""The driver: order, skipping, staleness, interruption. Rooms are stood in for by adapters that write a file."""

import os
import shutil
import signal
import subprocess
import sys
import time

import pytest

from groundup.build import build, check_expectations, choose_stages, duration, list_runs, open_run, verify
from groundup.build.driver import brief, set_aside
from groundup.build.stages import ADAPTERS
from groundup.recipe import load_recipe, parse_recipe
from groundup.run import Interrupted, UserError, read_json, read_manifest, run_lock, write_json

NAMES = ["corpus", "tokenizer", "pretrain", "sft", "dpo", "evaluate", "export", "book"]


@pytest.fixture
def made(monkeypatch):
    """Stand-in adapters; gives the names of the stages made, in order."""
    calls = []

    def adapter(context):
        calls.append(context.stage.name)
        (context.out / "out.txt").write_text(f"{context.stage.name} {context.seed}")
        if context.stage.kind == "evaluate":
            leaf = {"value": 0.5, "low": 0.4, "high": 0.6, "n": 100, "metric": "accuracy"}
            write_json(context.out / "results.json", {"sft": {"storyworld_qa": {"iid": leaf}}})
        return {"files": 1}

    for kind in ADAPTERS:
        monkeypatch.setitem(ADAPTERS, kind, adapter)
    return calls


def smoke(*overrides):
    return load_recipe("smoke", overrides)


def test_every_stage_in_order_then_nothing(made, tmp_path):
    run = tmp_path / "run"
    report = build(smoke(), run)
    assert made == NAMES == list(report.built)
    again = build(smoke(), run)
    assert made == NAMES == list(again.skipped)
    assert again.built == ()
    assert sorted(path.name for path in run.iterdir() if not path.name.startswith(".")) == sorted(
        [*NAMES, "recipe.toml", "run.json"]
    )
    assert open_run(run) == smoke()
    record = read_json(run / "run.json")
    assert record["hardware"] == {
        "device": "cpu", "precision": "fp32", "compile": False, "threads": 1, "matrix_gflops": {},
    }  # fmt: skip
    assert record["stages"].keys() == set(NAMES)
    assert all(entry["seconds"] >= 0 and entry["finished"] for entry in record["stages"].values())


def test_manifests_chain_the_fingerprints(made, tmp_path):
    build(smoke(), tmp_path)
    manifests = {name: read_manifest(tmp_path / name) for name in NAMES}
    assert manifests["sft"].inputs == {
        "tokenizer": manifests["tokenizer"].fingerprint,
        "pretrain": manifests["pretrain"].fingerprint,
    }
    assert manifests["book"].inputs.keys() == set(NAMES) - {"book"}
    assert manifests["corpus"].metrics == {"files": 1}
    assert list(manifests["corpus"].files) == ["out.txt"]


@pytest.mark.parametrize(
    ("override", "again"),
    [
        ("dpo.beta=0.3", ["dpo", "evaluate", "export", "book"]),
        ("sft.steps=21", ["sft", "dpo", "evaluate", "export", "book"]),
        ("model.layers=3", ["pretrain", "sft", "dpo", "evaluate", "export", "book"]),
        ("book.title=Mine", ["book"]),
        ("evaluate.questions=9", ["evaluate", "book"]),
        ("run.seed=2", NAMES),
        ("hardware.precision=bf16", ["pretrain", "sft", "dpo", "evaluate", "export", "book"]),
        ("hardware.threads=2", []),
        ("run.name=other", []),
        ('expect."sft/storyworld_qa/iid"=">= 0.1"', []),
    ],
)
def test_a_change_rebuilds_only_what_depends_on_it(made, tmp_path, override, again):
    build(smoke(), tmp_path)
    made.clear()
    build(smoke(override), tmp_path)
    assert made == again


def test_the_place_of_a_run_is_no_part_of_it(made, tmp_path):
    build(smoke(), tmp_path / "a")
    shutil.copytree(tmp_path / "a", tmp_path / "elsewhere")
    made.clear()
    build(smoke(), tmp_path / "elsewhere")
    assert made == []


def test_external_content_counts_and_its_path_does_not_hide_a_change(made, tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("one")
    recipe = parse_recipe(
        f"[corpus]\nsources = ['{text}']\n[hardware]\ndevice='cpu'\nprecision='fp32'\ncompile=false\n"
    )
    run = tmp_path / "run"
    build(recipe, run)
    build(recipe, run)
    assert made == ["corpus"]
    text.write_text("two")
    build(recipe, run)
    assert made == ["corpus", "corpus"]
    os.utime(text, (1, 1))
    build(recipe, run)
    assert made == ["corpus", "corpus"]


def test_a_missing_data_file_is_refused_before_anything_is_made(made, tmp_path):
    with pytest.raises(UserError, match=r"no file 'nowhere.jsonl'"):
        build(smoke("sft.data=['nowhere.jsonl']"), tmp_path / "run")
    assert made == []


def test_an_unknown_task_is_refused_before_anything_is_made(made, tmp_path):
    with pytest.raises(UserError, match="did you mean 'storyworld_qa'"):
        build(smoke("evaluate.tasks=['storyworld_qaa']"), tmp_path)
    assert made == []


def test_a_model_that_nothing_can_load_is_refused_before_anything_is_made(made, tmp_path):
    with pytest.raises(UserError, match="bigram_rows = 500"):
        build(smoke("model.bigram_rows=500"), tmp_path)
    assert made == []
    build(smoke("model.bigram_rows=500"), tmp_path, until="pretrain")
    assert "pretrain" in made


def test_only_and_until(made, tmp_path):
    build(smoke(), tmp_path, until="tokenizer")
    assert made == ["corpus", "tokenizer"]
    with pytest.raises(UserError, match="'sft' reads stage 'pretrain', which is not built yet"):
        build(smoke(), tmp_path, only=["sft"])
    build(smoke(), tmp_path, only=["pretrain"])
    assert made[2:] == ["pretrain"]
    with pytest.raises(UserError, match="'pretrain', which was made from another recipe"):
        build(smoke("pretrain.steps=41"), tmp_path, only=["sft"])
    with pytest.raises(UserError, match="did you mean 'dpo'"):
        build(smoke(), tmp_path, until="dop")
    assert [stage.name for stage in choose_stages(smoke(), ["sft", "corpus"], None)] == ["corpus", "sft"]


def test_fresh_makes_the_chosen_stages_anew(made, tmp_path):
    build(smoke(), tmp_path, until="pretrain")
    made.clear()
    build(smoke(), tmp_path, only=["pretrain"], fresh=True)
    assert made == ["pretrain"]
    assert not list(tmp_path.glob("*.stale-*"))


def test_a_training_directory_of_another_recipe_is_set_aside(made, tmp_path):
    build(smoke(), tmp_path, until="pretrain")
    before = read_manifest(tmp_path / "pretrain")
    build(smoke("pretrain.steps=41"), tmp_path, until="pretrain")
    build(smoke("pretrain.steps=42"), tmp_path, until="pretrain")
    assert read_manifest(tmp_path / "pretrain.stale-1") == before
    assert (tmp_path / "pretrain.stale-2" / "out.txt").exists()
    assert read_manifest(tmp_path / "pretrain").fingerprint != before.fingerprint
    assert verify(tmp_path).problems == ()


def test_an_unfinished_training_directory_goes_on_only_for_its_own_fingerprint(tmp_path):
    directory = tmp_path / "pretrain"
    directory.mkdir()
    assert set_aside(directory, "f1", "f1") is None
    assert set_aside(directory, None, "f1") == tmp_path / "pretrain.stale-1"
    directory.mkdir()
    assert set_aside(directory, "f0", "f1") == tmp_path / "pretrain.stale-2"
    assert set_aside(directory, "f0", "f1") is None


def test_a_failed_stage_leaves_nothing_and_is_made_next_time(made, tmp_path, monkeypatch):
    whole = ADAPTERS["tokenizer"]

    def fails(context):
        (context.out / "half").write_text("half")
        raise UserError("no")

    monkeypatch.setitem(ADAPTERS, "tokenizer", fails)
    with pytest.raises(UserError, match="no"):
        build(smoke(), tmp_path)
    assert not (tmp_path / "tokenizer").exists()
    assert not list(tmp_path.glob(".*.partial"))
    monkeypatch.setitem(ADAPTERS, "tokenizer", whole)
    made.clear()
    build(smoke(), tmp_path, until="tokenizer")
    assert made == ["tokenizer"]


def test_leftovers_of_a_killed_process_are_removed(made, tmp_path):
    (tmp_path / ".corpus.partial").mkdir()
    (tmp_path / ".run.json.partial").write_text("{")
    build(smoke(), tmp_path, until="corpus")
    assert not list(tmp_path.glob(".*.partial"))


def test_a_second_build_of_the_same_run_is_refused(made, tmp_path):
    program = (
        "import sys\nfrom pathlib import Path\nfrom groundup.run import run_lock\n"
        "with run_lock(Path(sys.argv[1])):\n    print('held', flush=True)\n    sys.stdin.read()\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(UserError, match="another process is building"):
            build(smoke(), tmp_path)
        holder.stdin.close()
    build(smoke(), tmp_path, until="corpus")
    assert made == ["corpus"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_a_stage_at_once_and_the_build_carries_on(made, tmp_path, monkeypatch, number):
    whole = ADAPTERS["tokenizer"]

    def interrupted(context):
        os.kill(os.getpid(), number)
        time.sleep(5)
        raise AssertionError("not stopped")

    monkeypatch.setitem(ADAPTERS, "tokenizer", interrupted)
    with pytest.raises(Interrupted, match=number.name):
        build(smoke(), tmp_path)
    monkeypatch.setitem(ADAPTERS, "tokenizer", whole)
    build(smoke(), tmp_path, until="tokenizer")
    assert made == ["corpus", "tokenizer"]


def test_training_is_asked_to_stop_and_keeps_its_directory(made, tmp_path, monkeypatch):
    def training(context):
        (context.out / "checkpoint").write_text("saved")
        assert not context.stop()
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.05)
        assert context.stop()
        raise Interrupted("stopped by SIGTERM")

    whole = ADAPTERS["pretrain"]
    monkeypatch.setitem(ADAPTERS, "pretrain", training)
    with pytest.raises(Interrupted):
        build(smoke(), tmp_path)
    assert (tmp_path / "pretrain" / "checkpoint").read_text() == "saved"
    assert verify(tmp_path).problems == ("pretrain: unfinished; build again to complete it",)
    monkeypatch.setitem(ADAPTERS, "pretrain", whole)
    build(smoke(), tmp_path, until="pretrain")
    assert (tmp_path / "pretrain" / "checkpoint").read_text() == "saved"
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_verify_finds_changes_and_stale_inputs(made, tmp_path):
    build(smoke(), tmp_path)
    assert verify(tmp_path).stages == tuple(NAMES)
    assert verify(tmp_path).problems == ()
    (tmp_path / "sft" / "out.txt").write_text("tft 1")
    manifest = read_json(tmp_path / "corpus" / "manifest.json")
    write_json(tmp_path / "corpus" / "manifest.json", manifest | {"fingerprint": "0"})
    assert verify(tmp_path).problems == (
        "tokenizer: made from another corpus than the one now in place",
        "pretrain: made from another corpus than the one now in place",
        "sft/out.txt: content differs from its checksum",
        "evaluate: made from another corpus than the one now in place",
        "book: made from another corpus than the one now in place",
    )
    with pytest.raises(UserError, match="is not a run"):
        verify(tmp_path / "corpus")


def test_expectations_are_compared_with_what_was_measured(made, tmp_path):
    wishes = ('expect."sft/storyworld_qa/iid"=">= 0.60"', 'expect."sft/storyworld_qa/longer"="> 0.1"')
    recipe = smoke(*wishes, 'expect."dpo/x/y"="< 1"', 'expect."sft/storyworld_qa/iid"=">= 0.5"')
    build(recipe, tmp_path, until="evaluate")
    outcomes = {outcome.expectation.key: outcome for outcome in check_expectations(recipe, tmp_path)}
    assert outcomes["sft/storyworld_qa/iid"].met
    assert not outcomes["sft/storyworld_qa/longer"].met
    assert str(outcomes["dpo/x/y"]) == "dpo/x/y: not measured, expected < 1"
    missed = check_expectations(smoke(wishes[0]), tmp_path)[0]
    assert str(missed) == "sft/storyworld_qa/iid: measured 0.5, expected >= 0.6"


def test_runs_are_listed_and_foreign_folders_passed_over(made, tmp_path):
    build(smoke(), tmp_path / "one", until="corpus")
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "run.json").write_text("[")
    found = list_runs(tmp_path)
    assert [each["path"] for each in found] == [str(tmp_path / "one")]
    assert found[0]["done"] == ["corpus"]
    assert found[0]["stages"] == NAMES


def test_a_spoilt_record_is_named(made, tmp_path):
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(UserError, match=r"run.json is not valid JSON"):
        build(smoke(), tmp_path)


def test_the_lock_is_free_after_an_error(made, tmp_path):
    with pytest.raises(UserError):
        build(smoke(), tmp_path, only=["sft"])
    with run_lock(tmp_path):
        pass


@pytest.mark.parametrize(
    ("seconds", "text"), [(3.21, "3.2 s"), (125, "2 min 05 s"), (59.96, "60.0 s"), (3720, "1 h 02 min")]
)
def test_duration(seconds, text):
    assert duration(seconds) == text


def test_brief_shows_the_first_plain_numbers():
    metrics = {"a": 12345, "ok": True, "table": {}, "loss": 1.23456, "c": 1, "d": 2, "e": 3}
    assert brief(metrics) == ", a 12,345, loss 1.235, c 1, d 2"
