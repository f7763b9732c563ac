"""The whole way on files that a user brings: sft, then dpo, each once through and once resumed."""

import json
import math
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from groundup.hardware import Hardware
from groundup.interchange import load_model, save_model
from groundup.model import Architecture, Transformer, initialise
from groundup.posttraining import dpo, sft
from groundup.posttraining.dpo import DpoObjective
from groundup.recipe import DpoSection, OptimizerTable, SftSection
from groundup.run import GroundupError, Interrupted, UserError, read_json, sha256_file
from groundup.tokenizer import Tokenizer
from groundup.training import read_journal
from groundup.training.checkpoint import checkpoints

pytestmark = pytest.mark.usefixtures("reproducible_kernels")
PEOPLE, PLACES = ("Mia", "Tom", "Ana"), ("park", "hill", "lake")
STORIES = [(f"{who} went to the {place}. Where is {who}?", who, place) for who in PEOPLE for place in PLACES]
dpo_module = sys.modules["groundup.posttraining.dpo"]  # the room's function has the same name
TIMES = ("seconds", "tokens_per_second", "gflops", "mfu", "mfu_palm", "data_wait", "data_start", "peak_memory")


@pytest.fixture
def run(tmp_path: Path, tokenizer: Tokenizer, arch: Architecture) -> Path:
    """A run with a tokenizer, a fresh base model and two files of data."""
    (tmp_path / "tokenizer").mkdir()
    (tmp_path / "tokenizer" / "tokenizer.json").write_text(tokenizer.json)
    model = Transformer(arch)
    initialise(model, 1)
    (tmp_path / "base").mkdir()
    save_model(model, tmp_path / "base")
    chats = [{"instruction": question, "output": f"{who} is in the {place}."} for question, who, place in STORIES]
    pairs = [
        {"prompt": question, "chosen": f"{who} is in the {place}.", "rejected": f"It was late in the {place}."}
        for question, who, place in STORIES
    ]
    for name, records in (("chats", chats), ("pairs", pairs)):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    return tmp_path


def sft_section(run: Path, **values: Any) -> SftSection:
    settings = {
        "steps": 24,
        "tokens_per_update": 128,
        "micro_batch": 1,
        "log_every": 1,
        "checkpoint_every": 10,
        "validate_every": 0,
        "sample_prompts": ("Where is Mia?",),
        "optimizer": OptimizerTable(muon_lr=0.02, adamw_lr=0.01, embedding_lr=0.01),
    }
    return SftSection(data=(str(run / "chats.jsonl"),), **(settings | values))


def dpo_section(run: Path, **values: Any) -> DpoSection:
    settings = {
        "steps": 12,
        "pairs_per_update": 6,
        "micro_batch": 2,
        "beta": 0.5,
        "log_every": 1,
        "checkpoint_every": 5,
        "optimizer": OptimizerTable(muon_lr=0.0, adamw_lr=2e-3, embedding_lr=2e-3),
    }
    return DpoSection(data=(str(run / "pairs.jsonl"),), **(settings | values))


def train(stage, section, run: Path, start: Path, cpu: Hardware, *, name="", fingerprint="f", stop=lambda: False):
    return stage(
        section,
        run=run,
        out=run / (name or section.kind),
        start=start,
        seed=1,
        hardware=cpu,
        fingerprint=fingerprint,
        should_stop=stop,
    )


def untimed(metrics: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in metrics.items() if name not in TIMES}


def equal_weights(one: Path, other: Path) -> bool:
    a, b = load_file(one / "model.safetensors"), load_file(other / "model.safetensors")
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def losses(out: Path) -> list[float]:
    return [record["loss"] for record in read_journal(out / "metrics.jsonl") if "loss" in record]


def test_sft_then_dpo(run, cpu):
    tuned = train(sft, sft_section(run), run, run / "base", cpu)
    first, *_, last = losses(run / "sft")
    assert (tuned["conversations"], tuned["steps"], len(losses(run / "sft"))) == (9, 24, 24)
    assert first == pytest.approx(math.log(load_model(run / "base").arch.vocabulary_size), rel=0.1)
    assert last < 0.6 * first
    assert tuned["loss"] == last
    (sample,) = read_journal(run / "sft" / "samples.jsonl")
    assert (sample["step"], sample["prompt"]) == (24, "Where is Mia?")

    before = sha256_file(run / "sft" / "final" / "model.safetensors")
    aligned = train(dpo, dpo_section(run), run, run / "sft" / "final", cpu)
    journal = read_journal(run / "dpo" / "metrics.jsonl")
    assert (aligned["pairs"], aligned["prompts_cut"], aligned["pairs_left_out"]) == (9, 0, 0)
    assert journal[0]["loss"] == pytest.approx(math.log(2), abs=1e-5)
    assert journal[-1]["loss"] < 0.5
    assert journal[-1]["accuracy"] == 1.0
    assert journal[-1]["margin"] > journal[0]["margin"] == pytest.approx(0, abs=1e-4)
    assert sha256_file(run / "sft" / "final" / "model.safetensors") == before
    assert not equal_weights(run / "sft" / "final", run / "dpo" / "final")


@pytest.mark.parametrize("lost", [0, 1])
@pytest.mark.parametrize("stage", [sft, dpo])
def test_a_second_call_reaches_the_same_bits(run, cpu, stage, lost):
    """After `final` is lost, with or without the newest checkpoint: the rest is trained again, to the bit."""
    section = (sft_section if stage is sft else dpo_section)(run)
    whole = train(stage, section, run, run / "base", cpu)
    out = run / section.kind
    journal = [untimed(record) for record in read_journal(out / "metrics.jsonl")]
    samples = read_journal(out / "samples.jsonl")
    shutil.copytree(out / "final", run / "kept")
    shutil.rmtree(out / "final")
    for directory in checkpoints(out / "checkpoints")[2 - lost :]:
        shutil.rmtree(directory)
    again = train(stage, section, run, run / "base", cpu)
    assert equal_weights(run / "kept", out / "final")
    assert untimed(again) == untimed(whole)
    assert [untimed(record) for record in read_journal(out / "metrics.jsonl")] == journal
    assert read_journal(out / "samples.jsonl") == samples


@pytest.mark.parametrize("stage", [sft, dpo])
def test_stopped_and_started_again(run, cpu, stage):
    section = (sft_section if stage is sft else dpo_section)(run)
    train(stage, section, run, run / "base", cpu, name="whole")
    asked = []
    with pytest.raises(Interrupted, match="stopped at step 7"):
        train(stage, section, run, run / "base", cpu, name="parts", stop=lambda: asked.append(0) or len(asked) == 7)
    assert not (run / "parts" / "final").exists()
    train(stage, section, run, run / "base", cpu, name="parts")
    assert equal_weights(run / "whole" / "final", run / "parts" / "final")
    assert losses(run / "whole") == losses(run / "parts")


def test_sft_with_updates_that_grow(run, cpu):
    """One row of 64 tokens in each of the first 8 of 24 updates, two from there on; stopped at the border."""
    section = sft_section(run, batch_ramp=[{"until": 0.3, "tokens_per_update": 64}])
    train(sft, section, run, run / "base", cpu, name="whole")
    rows = [record["rows"] for record in read_journal(run / "whole" / "metrics.jsonl") if "rows" in record]
    assert rows == [*range(1, 9), *range(10, 42, 2)]
    asked = []
    with pytest.raises(Interrupted, match="stopped at step 8"):
        train(sft, section, run, run / "base", cpu, name="parts", stop=lambda: asked.append(0) or len(asked) == 8)
    train(sft, section, run, run / "base", cpu, name="parts")
    assert equal_weights(run / "whole" / "final", run / "parts" / "final")
    assert losses(run / "whole") == losses(run / "parts")


def test_the_micro_batch_is_for_memory_only(run, cpu):
    for micro in (1, 2):
        train(sft, sft_section(run, micro_batch=micro, steps=3), run, run / "base", cpu, name=f"sft{micro}")
        train(dpo, dpo_section(run, micro_batch=micro, steps=3), run, run / "base", cpu, name=f"dpo{micro}")
    for kind in ("sft", "dpo"):
        assert losses(run / f"{kind}1") == pytest.approx(losses(run / f"{kind}2"), abs=1e-4)


@pytest.mark.parametrize("stage", [sft, dpo])
def test_a_budget_of_minutes_is_measured_and_leaves_no_trace(run, cpu, stage):
    """The probe trains throw-away updates: the first loss is still that of the starting weights."""
    choose = sft_section if stage is sft else dpo_section
    with pytest.raises(Interrupted, match="stopped at step 1 "):
        train(stage, choose(run, steps=None, minutes=1), run, run / "base", cpu, name="timed", stop=lambda: True)
    assert read_json(run / "timed" / "plan.json")["steps"] >= 10
    train(stage, choose(run, steps=10), run, run / "base", cpu, name="counted")
    assert losses(run / "timed")[0] == losses(run / "counted")[0]
    assert not [path.name for path in (run / "timed").iterdir() if path.name.startswith(".")]


def hungry(monkeypatch, rows: int, begin: int = 0) -> None:
    """From pass ``begin`` on, DPO asks for more memory than there is where a pass has more than so many rows."""
    loss, passes = DpoObjective.loss, []

    def greedy(self, model, batch):
        passes.append(1)
        if len(passes) > begin and len(batch["ids"]) > rows:
            torch.empty(1 << 60)
        return loss(self, model, batch)

    monkeypatch.setattr(DpoObjective, "loss", greedy)


def tokens(out: Path) -> list[int]:
    return [record["tokens"] for record in read_journal(out / "metrics.jsonl") if "loss" in record]


@pytest.mark.parametrize("micro", [2, 3])
def test_dpo_goes_on_with_half_the_micro_batch(run, cpu, monkeypatch, micro):
    """Its updates stay filled up to whole micro-batches of before; a pass with a row of no pair adds nothing. Of 3 rows
    half is 1."""
    train(dpo, dpo_section(run, micro_batch=1), run, run / "base", cpu, name="small")
    hungry(monkeypatch, rows=1)
    metrics = train(dpo, dpo_section(run, micro_batch=micro), run, run / "base", cpu)
    plan = read_json(run / "dpo" / "plan.json")
    assert (plan["micro_rows"], plan["halved_at"], metrics["micro_rows"]) == (micro, [0], 1)
    assert tokens(run / "dpo") == tokens(run / "small")
    assert losses(run / "dpo") == pytest.approx(losses(run / "small"), rel=1e-4)
    small, found = (load_file(run / name / "final" / "model.safetensors") for name in ("small", "dpo"))
    for name, weight in small.items():
        assert torch.allclose(found[name], weight, rtol=1e-3, atol=1e-4), name
    assert not equal_weights(run / "base", run / "dpo" / "final")


def test_dpo_halves_at_the_same_update_after_a_resume(run, cpu, monkeypatch):
    """Memory fails in the second pass of update 6; killed after it, with the checkpoint before it."""
    whole = dpo_section(run, checkpoint_every=2)
    passes = []
    monkeypatch.setattr(DpoObjective, "loss", lambda *given, loss=DpoObjective.loss: passes.append(1) or loss(*given))
    train(dpo, whole, run, run / "base", cpu, name="plain")
    each = len(passes) // 12
    assert each > 1
    hungry(monkeypatch, rows=1, begin=5 * each + 1)
    train(dpo, whole, run, run / "base", cpu, name="whole")
    assert read_json(run / "whole" / "plan.json")["halved_at"] == [5]
    monkeypatch.undo()
    hungry(monkeypatch, rows=1, begin=5 * each + 1)
    asked = []
    with pytest.raises(Interrupted):
        train(dpo, whole, run, run / "base", cpu, name="parts", stop=lambda: asked.append(0) or len(asked) == 7)
    shutil.rmtree(run / "parts" / "checkpoints" / "step-00000007")
    shutil.rmtree(run / "parts" / "checkpoints" / "step-00000006")
    monkeypatch.undo()
    train(dpo, whole, run, run / "base", cpu, name="parts")
    assert equal_weights(run / "whole" / "final", run / "parts" / "final")
    assert losses(run / "whole") == losses(run / "parts")


def test_the_reference_too_is_computed_with_the_memory_that_there_is(run, cpu, monkeypatch):
    """Fewer pairs at a time; of one pair that does not fit, plain words."""
    train(dpo, dpo_section(run), run, run / "base", cpu, name="whole")
    forward = dpo_module.answer_logprobs

    def greedy(model, batch, most: int):
        if not torch.is_grad_enabled() and int(batch["present"].sum()) > most:
            torch.empty(1 << 60)
        return forward(model, batch)

    monkeypatch.setattr(dpo_module, "answer_logprobs", lambda model, batch: greedy(model, batch, 2))
    train(dpo, dpo_section(run), run, run / "base", cpu)
    kept = [load_file(run / name / "reference.safetensors")["logprobs"] for name in ("whole", "dpo")]
    assert torch.allclose(kept[0], kept[1], rtol=1e-5, atol=1e-4)
    assert losses(run / "dpo") == pytest.approx(losses(run / "whole"), rel=1e-4)
    monkeypatch.setattr(dpo_module, "answer_logprobs", lambda model, batch: greedy(model, batch, 0))
    with pytest.raises(GroundupError, match="none: out of memory"):
        train(dpo, dpo_section(run), run, run / "base", cpu, name="none")


def test_changed_data_start_anew(run, cpu):
    """Another fingerprint: no checkpoint, no encoded data and no reference of before is taken over."""
    train(dpo, dpo_section(run), run, run / "base", cpu)
    kept = sha256_file(run / "dpo" / "reference.safetensors")
    lines = (run / "pairs.jsonl").read_text().splitlines()
    (run / "pairs.jsonl").write_text("\n".join(lines[:6]))
    again = train(dpo, dpo_section(run), run, run / "base", cpu, fingerprint="g")
    assert again["pairs"] == 6
    assert sha256_file(run / "dpo" / "reference.safetensors") != kept
    assert losses(run / "dpo")[0] == pytest.approx(math.log(2), abs=1e-5)
    assert len(losses(run / "dpo")) == 12


def test_another_start_has_another_reference(run, cpu):
    train(dpo, dpo_section(run), run, run / "base", cpu)
    start = run / "dpo" / "final"
    (run / "other").mkdir()
    shutil.copy(run / "dpo" / "reference.safetensors", run / "other")
    train(dpo, dpo_section(run), run, start, cpu, name="other")
    assert losses(run / "other")[0] == pytest.approx(math.log(2), abs=1e-5)


def test_fresh_blocks_keep_nothing_of_the_start(run, cpu):
    spoilt = load_model(run / "base")
    with torch.no_grad():
        for weight in spoilt.model.layers.parameters():
            weight.mul_(2.0)
    (run / "spoilt").mkdir()
    save_model(spoilt, run / "spoilt")
    for blocks in (2, 1):
        section = sft_section(run, steps=2, fresh_blocks=blocks)
        for start in ("base", "spoilt"):
            train(sft, section, run, run / start, cpu, name=f"{start}{blocks}")
    assert equal_weights(run / "base2" / "final", run / "spoilt2" / "final")
    assert not equal_weights(run / "base1" / "final", run / "spoilt1" / "final")
    with pytest.raises(UserError, match="fresh_blocks is 3, and the model has 2 blocks"):
        train(sft, sft_section(run, fresh_blocks=3), run, run / "base", cpu, name="three")


def test_bad_data_stop_the_stage_before_training(run, cpu):
    with (run / "chats.jsonl").open("a") as file:
        file.write('{"instruction": "Where?"}\n')
    with pytest.raises(UserError, match="'output' is None") as caught:
        train(sft, sft_section(run), run, run / "base", cpu)
    assert caught.value.where == f"{run / 'chats.jsonl'}:10"
    assert not (run / "sft" / "checkpoints").exists()
    for stage, section in ((sft, sft_section(run)), (dpo, dpo_section(run))):
        with pytest.raises(ValueError, match="needs weights"):
            train(stage, section, run, None, cpu)
