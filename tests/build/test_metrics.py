"""A whole build's metrics: every key documented, the peak found once, trackers no part of the result."""

import re
from pathlib import Path

import pytest

from groundup.build import build, record, verify
from groundup.hardware import Peak
from groundup.recipe import load_recipe
from groundup.run import UserError, read_json, sha256_file
from groundup.training import read_journal
from groundup.training import trackers as trackers_module

PAGE = Path(__file__).parents[2] / "docs" / "metrics.md"
SHORT = (
    "corpus.sources=[{path='builtin:storyworld', documents=120}]",
    "model.experts={count=4, per_token=2, shared=1}",
    "model.predict_ahead=1",
    "model.value_embeddings=true",
    "model.tied_embeddings=false",
    "pretrain.steps=4",
    "sft.steps=2",
    "sft.data=[{path='builtin:storyworld', count=100}]",
    "dpo.steps=2",
)
TRANSLATION = (
    "seq2seq.steps=2",
    "seq2seq.pairs_per_update=16",
    "seq2seq.data=[{path='builtin:translation', count=400}]",
    "seq2seq.sequence_length=32",
    "seq2seq.model.context_length=32",
    "seq2seq.beam=1",
    "seq2seq.tests=10",
    "hardware.device=cpu",
    "hardware.precision=fp32",
    "hardware.compile=false",
    "hardware.threads=1",
)


def documented() -> set[str]:
    """The keys in the first column of the page's tables; ROLE stands for each of the roles."""
    first = re.findall(r"^\| (`[^|]*`) \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    keys = {key for cell in first for key in re.findall(r"`([^`]+)`", cell)}
    roles = [key for key in keys if f"`{key}`" in first]
    return {key.replace("ROLE", role) for key in keys for role in roles} | keys


@pytest.fixture
def counted(monkeypatch) -> list[str]:
    """Each search for a peak, which here takes no time."""
    asked = []

    def find(device, precision, threads):
        asked.append(precision)
        return Peak(1e6, "measured", device)

    monkeypatch.setattr(record, "find_peak", find)
    return asked


def test_every_key_that_training_writes_is_documented(tmp_path, counted):
    build(load_recipe("smoke", SHORT), tmp_path / "a", until="dpo")
    build(load_recipe("seq2seq", TRANSLATION), tmp_path / "b", until="seq2seq")
    stages = [tmp_path / "a" / "pretrain", tmp_path / "a" / "sft", tmp_path / "a" / "dpo", tmp_path / "b" / "seq2seq"]
    written = {stage.name: read_journal(stage / "metrics.jsonl") for stage in stages}
    for name, lines in written.items():
        keys = {key for line in lines for key in line}
        assert keys <= documented(), f"{name}: {sorted(keys - documented())} missing in docs/metrics.md"
        logged = [line for line in lines if "loss" in line]
        assert all(0 < line["mfu"] < 1 and line["epoch"] > 0 and line["peak_memory"] > 0 for line in logged)
        assert all(("mfu_palm" in line) == (name != "seq2seq") for line in logged)
        assert all("update_ratio/attention" in line for line in logged)
    keys = {key for lines in written.values() for line in lines for key in line}
    wanted = {"balance", "router_z", "ahead", "cross_entropy", "accuracy", "margin", "bits_per_byte", "exact_match"}
    assert wanted | {f"grad_norm/{role}" for role in ("experts", "routers", "head", "projections")} <= keys


def test_the_peak_is_found_once_for_a_run(tmp_path, counted):
    recipe = load_recipe("smoke", SHORT)
    build(recipe, tmp_path, until="corpus")
    assert counted == []  # nothing that trains
    build(recipe, tmp_path, until="sft")
    build(recipe, tmp_path, until="dpo")
    assert counted == ["fp32"]
    peak = read_json(tmp_path / "run.json")["peak"]
    assert peak["gflops"] == 1e6
    assert (peak["source"], peak["device"], peak["precision"], peak["threads"]) == ("measured", "cpu", "fp32", 1)
    assert "peak" not in read_json(tmp_path / "run.json")["hardware"]


def test_trackers_are_no_part_of_a_stage(tmp_path, counted, monkeypatch):
    class Writing:
        """Leaves a file behind, as real ones do."""

        def __init__(self, tracking, out, id):
            self.id, self.out, self.tracking = id, out, tracking

        def begin(self, name, recipe, step):
            self.id = name
            (self.out / "trackers").mkdir(exist_ok=True)
            (self.out / "trackers" / "of.mine").write_text(f"{name} {recipe['run']['trackers']} {self.tracking.run}")

        def held(self, sent):
            return sent

        def log(self, step, numbers):
            assert numbers

        def finish(self, status):
            pass

    monkeypatch.setattr(trackers_module, "KINDS", {"mlflow": Writing})
    monkeypatch.setattr(trackers_module.importlib.util, "find_spec", lambda name: object())
    tracked = load_recipe("smoke", (*SHORT, "run.trackers=['mlflow']"))
    report = build(tracked, tmp_path / "a", until="dpo")
    for stage in ("pretrain", "sft", "dpo"):
        said = (tmp_path / "a" / stage / "trackers" / "of.mine").read_text()
        assert said == f"smoke/{stage} ['mlflow'] smoke"
    manifest = read_json(tmp_path / "a" / "pretrain" / "manifest.json")
    assert not any("tracker" in name for name in manifest["files"])
    (tmp_path / "a" / "pretrain" / "trackers" / "of.mine").unlink()
    assert verify(tmp_path / "a").problems == ()
    plain = load_recipe("smoke", SHORT)
    assert build(plain, tmp_path / "a", until="dpo").skipped == report.built  # nothing is made anew
    build(plain, tmp_path / "b", until="dpo")
    weights = [sha256_file(tmp_path / run / "dpo" / "final" / "model.safetensors") for run in ("a", "b")]
    assert weights[0] == weights[1]


def test_a_tracker_that_is_not_installed_is_refused_before_anything_is_made(tmp_path, monkeypatch):
    monkeypatch.setattr(trackers_module.importlib.util, "find_spec", lambda name: None)
    recipe = load_recipe("smoke", ("run.trackers=['wandb']",))
    with pytest.raises(UserError, match="'wandb' needs the package wandb"):
        build(recipe, tmp_path / "a")
    assert not (tmp_path / "a").exists()
    build(recipe, tmp_path / "b", until="corpus")  # which has no use for it
