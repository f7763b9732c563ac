"""What a logged step says: norms beside a slow reference, utilisation in closed form, memory, position."""

import json
import math
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch

from groundup.hardware import Hardware, Peak
from groundup.model import Architecture, Transformer, flops_per_token, initialise, palm_flops_per_token, parameter_count
from groundup.recipe import OptimizerTable, PretrainSection
from groundup.run import Interrupted
from groundup.tokenizer import Batch, Buckets, Loader, PackedRows, Ramp, ShardSource, ShardWriter, TokenShards
from groundup.training import Job, NextToken, Plan, prepare, read_journal, train
from groundup.training import metrics as module
from groundup.training.loop import Trainer
from groundup.training.metrics import Metrics, Norms, Window, epoch, memory, palm_flops
from groundup.training.roles import by_role

CPU = Hardware("cpu", "fp32", False, 1, {}, Peak(50.0, "measured", "cpu"))
ARCH = Architecture(
    vocabulary_size=32,
    layers=2,
    hidden_size=16,
    heads=2,
    kv_heads=1,
    head_dim=8,
    intermediate_size=24,
    context_length=32,
    tied_embeddings=False,
)
STEPS = 8


@pytest.fixture(autouse=True)
def one_thread():
    prepare(CPU)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture
def shards(tmp_path) -> TokenShards:
    generator = np.random.default_rng(0)
    with ShardWriter(tmp_path / "shards", "uint16", pad_id=1) as writer:
        for _ in range(60):
            writer.add((np.arange(generator.integers(3, 30)) + generator.integers(32)) % 30 + 2)
    return TokenShards(tmp_path / "shards")


@pytest.fixture
def rows(shards) -> PackedRows:
    return PackedRows(shards, 16, seed=3)


def job(rows: PackedRows, out: Path, *, stop=lambda: False, source=None, **section) -> Job:
    model = Transformer(ARCH)
    initialise(model, 1)
    settings = {"steps": STEPS, "checkpoint_every": 3, "log_every": 1, "validate_every": 0, **section}
    loader = source or Loader(rows, 4)
    section = PretrainSection(**settings)
    plan = Plan("f" * 64, section.steps, 4, 4, 16)
    return Job("p", "pretrain", out, "f" * 64, model, NextToken(), loader, section, plan, CPU, 1, stop)


def flat(model) -> torch.Tensor:
    return torch.cat([w.detach().flatten() for w in model.parameters()])


def slow_norm(tensors) -> float:
    """In float64, number by number."""
    return math.sqrt(sum(float((t.detach().double() ** 2).sum()) for t in tensors))


@pytest.mark.parametrize("clip", [None, 1e-3])
def test_norms_by_role_beside_a_slow_reference(rows, tmp_path, clip):
    table = OptimizerTable(muon_lr=0.02, weight_decay=0.1, grad_clip=clip)
    trainer = Trainer(job(rows, tmp_path / "a", optimizer=table))
    twin = Trainer(job(rows, tmp_path / "b", optimizer=table))
    twin.done.step = 1
    twin.gradients(rows.batch(range(4)))
    before = {role: [w.detach().clone() for w in ws] for role, ws in by_role(trainer.model.named_parameters()).items()}
    report = trainer.update(rows.batch(range(4)))
    gradients = {role: [w.grad for w in ws] for role, ws in by_role(twin.model.named_parameters()).items()}
    roles = by_role(trainer.model.named_parameters())
    assert set(roles) == {"embeddings", "head", "attention", "feed_forward", "gains"}
    for role, weights in roles.items():
        grad, moved, size = (report[f"{name}_norm/{role}"] for name in ("grad", "update", "weight"))
        assert grad == pytest.approx(slow_norm(gradients[role]), rel=1e-5)
        assert size == pytest.approx(slow_norm(weights), rel=1e-5)
        changes = [w.detach().double() - old.double() for w, old in zip(weights, before[role], strict=True)]
        assert moved == pytest.approx(slow_norm(changes), rel=1e-3)
        assert moved > 0
        assert report[f"update_ratio/{role}"] == pytest.approx(moved / size)
    whole = math.sqrt(sum(report[f"grad_norm/{role}"] ** 2 for role in roles))
    assert whole == pytest.approx(report["grad_norm"], rel=1e-5)  # before clipping, both


def test_what_is_logged_changes_no_bit_and_is_measured_on_logged_steps_alone(rows, tmp_path, monkeypatch):
    often, seldom = job(rows, tmp_path / "often"), job(rows, tmp_path / "seldom", log_every=5)
    train(often)
    held = []
    monkeypatch.setattr(module.Norms, "hold", lambda self, hold=Norms.hold: held.append(0) or hold(self))
    train(seldom)
    assert torch.equal(flat(often.model), flat(seldom.model))
    lines = read_journal(tmp_path / "seldom" / "metrics.jsonl")
    assert [line["step"] for line in lines] == [1, 5, STEPS]
    assert len(held) == 3
    assert all("update_norm/attention" in line for line in lines)


def test_a_copy_without_room_on_the_device_goes_to_the_host(rows, tmp_path, monkeypatch):
    """A stand-in for a GPU: meta tensors have no memory to copy, so only where copies are made is seen."""
    weight = torch.nn.Parameter(torch.ones(3, 2, device="meta"))
    places = []

    def full(self, *_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(torch.Tensor, "clone", full)
    monkeypatch.setattr(torch.Tensor, "to", lambda self, device, *_: places.append(device) or torch.zeros(self.shape))
    module._copies([weight])
    assert places == ["cpu"]
    with pytest.raises(torch.OutOfMemoryError):
        module._copies([torch.nn.Parameter(torch.ones(3, 2))])
    monkeypatch.undo()
    old, new = [torch.zeros(2, 2)], [torch.full((2, 2), 3.0)]
    assert torch.equal(module._differences(old, new)[0], torch.full((2, 2), -3.0))


def test_a_refused_update_has_no_numbers_that_json_lacks(rows, tmp_path):
    class Poisoned:
        def update(self, step: int) -> Batch:
            if step == 2:
                with torch.no_grad():
                    work.model.model.norm.weight[0] = math.inf
            return rows.batch(range(4))

    work = job(rows, tmp_path / "a", source=Poisoned(), steps=6)
    trainer = Trainer(work)
    report = {}
    for step in range(3):
        report = trainer.update(work.source.update(step))
    assert report["skipped"] == 1
    assert not any(key.startswith(("weight_norm", "update_norm")) for key in report)
    trainer.metrics.write({"step": 3, "loss": math.nan, "grad_norm": math.inf, "lr": 1.0, "skipped": 1})
    trainer.metrics.close()
    assert (tmp_path / "a" / "metrics.jsonl").read_text() == '{"step":3,"lr":1.0,"skipped":1}\n'


def test_utilisation_in_both_conventions():
    """A plain decoder: PaLM counts the scores' whole square, 12 · L · H · Q · T, ours its lower half."""
    context = 32
    scores = ARCH.layers * ARCH.heads * 8 * context
    matrices = parameter_count(ARCH).attention + parameter_count(ARCH).feed_forward + parameter_count(ARCH).head
    assert flops_per_token(ARCH, context) == pytest.approx(6 * matrices + 6 * scores)
    assert palm_flops_per_token(ARCH, context) == pytest.approx(6 * matrices + 12 * scores)
    windowed = ARCH.replace(window=4)
    assert palm_flops_per_token(windowed, context) == palm_flops_per_token(ARCH, context)
    assert flops_per_token(windowed, context) < flops_per_token(ARCH, context)

    window = Window()
    window.add(tokens=100, flops=2e9, palm_flops=3e9, seconds=0.5, waited=0.25)
    window.add(tokens=300, flops=6e9, palm_flops=9e9, seconds=1.5, waited=0.25)
    assert window.speed(None) == {"tokens_per_second": 200, "data_wait": 0.2, "gflops": 4}
    found = window.speed(Peak(10.0, "catalogue", "x"))
    assert (found["mfu"], found["mfu_palm"]) == (pytest.approx(0.4), pytest.approx(0.6))
    window.add(tokens=0, flops=0, palm_flops=None, seconds=0, waited=0)
    assert "mfu_palm" not in window.speed(Peak(10.0, "catalogue", "x"))


def test_palm_flops_are_for_decoders(rows):
    batch = rows.batch(range(4))
    assert palm_flops(Transformer(ARCH), batch) == batch.tokens * palm_flops_per_token(ARCH, 16)
    assert palm_flops(torch.nn.Linear(2, 2), batch) is None


def test_lines_have_memory_position_and_utilisation(rows, tmp_path):
    train(job(rows, tmp_path / "a", steps=40))
    lines = read_journal(tmp_path / "a" / "metrics.jsonl")
    total = rows.rows(0)
    for line in lines:
        assert line["rows"] == 4 * line["step"]
        first = min(line["rows"], total) / total + max(0, line["rows"] - total) / rows.rows(1)
        assert line["epoch"] == pytest.approx(first)
        assert 2**25 < line["peak_memory"] < 2**40
        assert 0 < line["mfu"] < line["mfu_palm"] < 1
        assert line["mfu"] == pytest.approx(line["gflops"] / 50)
    assert lines[-1]["epoch"] > 1
    assert "peak_gpu_memory" not in lines[0]


def test_memory_of_a_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: 7)
    monkeypatch.setattr(torch.cuda, "max_memory_reserved", lambda: 9)
    found = memory("cuda")
    assert found.pop("peak_memory") > 0
    assert found == {"peak_gpu_memory": 7, "peak_gpu_reserved": 9}


def test_position_is_resumed(rows, tmp_path):
    train(job(rows, tmp_path / "whole"))
    calls = []
    with pytest.raises(Interrupted):
        train(job(rows, tmp_path / "parts", stop=lambda: calls.append(0) or len(calls) >= 4))
    train(job(rows, tmp_path / "parts"))

    def lines(name: str) -> list[dict[str, float]]:
        untimed = ("seconds", "tokens_per_second", "data_wait", "gflops", "mfu", "mfu_palm", "peak_memory")
        found = read_journal(tmp_path / name / "metrics.jsonl")
        return [{key: value for key, value in line.items() if key not in untimed} for line in found]

    assert lines("parts") == lines("whole")


def test_epochs_of_every_source(shards, rows, tmp_path):
    assert [epoch(Loader(rows, 4), step) for step in (0, 1)] == [{"epoch": 0.0}, {"epoch": 4 / rows.rows(0)}]
    ramp = Ramp(Loader(rows, 4), [(0.5, 8)], 100)
    assert epoch(ramp, 3) == epoch(Loader(rows, 4), 3)
    buckets = Buckets(shards, 16, 64, seed=3)
    count = buckets.epochs.count(0)
    assert epoch(buckets, count) == {"epoch": 1.0}
    assert epoch(buckets, 1) == {"epoch": 1 / count}

    class Endless:
        def update(self, step: int) -> Batch:
            return rows.batch(range(4))

    assert epoch(Endless(), 5) == {}


def test_the_epoch_at_the_end_of_limited_data(tmp_path):
    """Two passes are all there is; the last update is short."""
    generator = np.random.default_rng(1)
    with ShardWriter(tmp_path / "s", "uint16", pad_id=1, sources=[ShardSource("a", 1.0, 2)]) as writer:
        for _ in range(21):
            writer.add(generator.integers(2, 30, 17))
    loader = Loader(PackedRows(TokenShards(tmp_path / "s"), 16, seed=0), 4)
    steps = loader.first_updates(1000)
    assert steps == 11  # 42 rows
    assert loader.passes(steps) == 2.0
    assert loader.passes(5) == pytest.approx(20 / 21)
    assert loader.passes(6) == pytest.approx(1 + 3 / 21)


def test_rewinding_remembers_what_was_cut_off(tmp_path):
    lines = Metrics(tmp_path / "metrics.jsonl")
    lines.write({"step": 1, "loss": 3.0})
    position = lines.position()
    for record in ({"step": 2, "loss": 2.0}, {"step": 3, "loss": 1.0}, {"step": 3, "validation_loss": 1.0}):
        lines.write(record)
    lines.journal._file.write(b'{"step":4,"lo')  # torn by a kill
    lines.journal._file.flush()
    lines.rewind(position)
    lines.close()
    assert lines.forgotten == {"step": 3, "loss": 3, "validation_loss": 3}
    assert [json.loads(line) for line in islice((tmp_path / "metrics.jsonl").open(), 9)] == [{"step": 1, "loss": 3.0}]
