"""The loop: accumulation, resume to the bit, guards that touch nothing, checkpoints that can be trusted."""

import dataclasses
import json
import math
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from groundup.hardware import Hardware
from groundup.model import Architecture, Transformer, flops_per_token, initialise
from groundup.recipe import OptimizerTable, PretrainSection
from groundup.run import GroundupError, Interrupted, UserError
from groundup.tokenizer import Batch, Loader, PackedRows, ShardWriter, TokenShards
from groundup.training import Job, NextToken, Plan, prepare, read_journal, train
from groundup.training.budget import COMPILE_FLOPS, compile_pays, settle
from groundup.training.checkpoint import Snapshot, checkpoints, newest_sound, retain, write
from groundup.training.compute import SHAPES, compiled
from groundup.training.guard import Guard
from groundup.training.loop import Trainer
from groundup.training.memory import rows_in_pass

CPU = Hardware("cpu", "fp32", False, 1, {})
ARCH = Architecture(
    vocabulary_size=32,
    layers=2,
    hidden_size=16,
    heads=2,
    kv_heads=1,
    head_dim=8,
    intermediate_size=24,
    context_length=32,
)


@pytest.fixture
def rows(tmp_path) -> PackedRows:
    generator = np.random.default_rng(0)
    with ShardWriter(tmp_path / "shards", "uint16", pad_id=1) as writer:
        for _ in range(60):
            writer.add((np.arange(generator.integers(3, 30)) + generator.integers(32)) % 30 + 2)
    return PackedRows(TokenShards(tmp_path / "shards"), 16, seed=3)


def job(rows: PackedRows, out: Path, *, steps=8, micro=4, stop=lambda: False, source=None, **section) -> Job:
    model = Transformer(ARCH)
    initialise(model, 1)
    settings = {"steps": steps, "checkpoint_every": 3, "log_every": 1, "validate_every": 0, **section}
    return Job(
        "pretrain",
        "pretrain",
        out,
        "f" * 64,
        model,
        NextToken(),
        source or Loader(rows, 4),
        PretrainSection(**settings),
        Plan("f" * 64, steps, 4, micro, 16),
        CPU,
        1,
        stop,
    )


def weights(model: Transformer) -> torch.Tensor:
    return torch.cat([w.detach().flatten() for w in model.parameters()])


@pytest.fixture(autouse=True)
def one_thread():
    prepare(CPU)
    yield
    torch.use_deterministic_algorithms(False)


def test_micro_batches_do_not_change_the_gradient(rows, tmp_path):
    """T8: rows with unequal numbers of targets; the denominator is that of the whole update."""
    batch = rows.batch(range(4))
    batch.targets[0, 2:] = -100
    found = []
    for micro in (1, 2, 4):
        trainer = Trainer(job(rows, tmp_path / str(micro), micro=micro))
        loss, _ = trainer.gradients(batch)
        found.append((loss, torch.cat([w.grad.flatten() for w in trainer.model.parameters()])))
    for loss, gradient in found[1:]:
        assert loss == pytest.approx(found[0][0], abs=1e-6)
        assert torch.allclose(gradient, found[0][1], rtol=1e-4, atol=1e-7)


def test_the_denominator_is_the_count_of_targets(rows, tmp_path):
    """T9 and T10: a fresh model's mean loss is log V over exactly the supervised targets."""
    trainer = Trainer(job(rows, tmp_path / "a"))
    loss, _ = trainer.gradients(rows.batch(range(4)))
    assert loss == pytest.approx(math.log(32), rel=0.05)


def test_a_batch_can_be_learned_by_heart(rows, tmp_path):
    class Same:
        def update(self, step: int) -> Batch:
            return rows.batch(range(4))

    metrics = train(job(rows, tmp_path / "out", steps=150, source=Same()))
    assert metrics["loss"] < 0.3 < math.log(32)


@pytest.mark.parametrize("stop_after", [1, 3, 5])
def test_resume_is_bit_equal(rows, tmp_path, stop_after):
    """T33: weights, optimizer, metrics; a stop between checkpoints saves one of its own."""
    whole = job(rows, tmp_path / "whole")
    train(whole)
    calls = []
    first = job(rows, tmp_path / "parts", stop=lambda: calls.append(0) or len(calls) >= stop_after)
    with pytest.raises(Interrupted):
        train(first)
    second = job(rows, tmp_path / "parts")
    assert not torch.equal(weights(second.model), weights(whole.model))
    train(second)
    assert torch.equal(weights(whole.model), weights(second.model))

    def lines(name):
        kept = ("step", "tokens", "loss", "lr", "grad_norm")
        return [{k: r[k] for k in kept} for r in read_journal(tmp_path / name / "metrics.jsonl")]

    assert lines("whole") == lines("parts")


def test_a_damaged_checkpoint_is_passed_over(rows, tmp_path, capsys):
    whole = job(rows, tmp_path / "a")
    train(whole)
    root = tmp_path / "a" / "checkpoints"
    newest = checkpoints(root)[-1]
    assert newest.name == "step-00000008"
    data = bytearray((newest / "model.safetensors").read_bytes())
    data[-1] ^= 1
    (newest / "model.safetensors").write_bytes(bytes(data))
    found = newest_sound(root, "f" * 64)
    assert found is not None
    assert found.step == 6
    again = job(rows, tmp_path / "a")
    train(again)
    assert torch.equal(weights(again.model), weights(whole.model))


def test_checkpoints_of_another_fingerprint_are_not_resumed(rows, tmp_path):
    train(job(rows, tmp_path / "a"))
    assert newest_sound(tmp_path / "a" / "checkpoints", "0" * 64) is None


def test_retention_keeps_the_newest(tmp_path):
    for step in (1, 2, 10):
        write(tmp_path, Snapshot(step, {"w": torch.ones(2)}, {}, {}), stage="s", kind="pretrain", fingerprint="f")
    retain(tmp_path, 2)
    assert [path.name for path in checkpoints(tmp_path)] == ["step-00000002", "step-00000010"]
    found = newest_sound(tmp_path, "f")
    assert found is not None
    assert found.model["w"].tolist() == [1, 1]


def test_a_non_finite_step_touches_nothing(rows, tmp_path):
    trainer = Trainer(job(rows, tmp_path / "a"))
    trainer.update(rows.batch(range(4)))
    before = weights(trainer.model).clone()
    state = {name: tensor.clone() for name, tensor in trainer.optimizer.tensors().items()}
    with torch.no_grad():
        trainer.model.model.norm.weight[0] = math.inf
    report = trainer.update(rows.batch(range(4)))
    with torch.no_grad():
        trainer.model.model.norm.weight[0] = before[-16]
    assert report["skipped"] == 1
    assert trainer.done.step == 2
    after = trainer.optimizer.tensors()
    assert all(torch.equal(state[name], after[name]) for name in state)


def test_a_full_disk_is_a_plain_error_and_keeps_the_last_checkpoint(rows, tmp_path, monkeypatch):
    from groundup.training import checkpoint

    real = checkpoint.save_file

    def full(tensors, path, *rest):
        if "step-00000006" in str(path):
            raise OSError(28, "No space left on device")
        real(tensors, path, *rest)

    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(GroundupError, match="No space left.*intact"):
        train(job(rows, tmp_path / "a"))
    found = newest_sound(tmp_path / "a" / "checkpoints", "f" * 64)
    assert found is not None
    assert found.step == 3


def test_validation_comes_after_its_checkpoint_and_again_after_a_kill(rows, tmp_path):
    seen = []

    def validate(model):
        seen.append(len(checkpoints(tmp_path / "a" / "checkpoints")))
        return {"validation_loss": 1.0}

    work = dataclasses.replace(job(rows, tmp_path / "a", validate_every=4), validate=validate)
    train(work)
    assert len(seen) == 2  # at steps 4 and 8
    record = [r for r in read_journal(tmp_path / "a" / "metrics.jsonl") if "validation_loss" in r]
    assert [r["step"] for r in record] == [4, 8]


def test_a_torn_last_line_is_left_out(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step":1}\n{"step":2}\n{"st')
    assert read_journal(path) == [{"step": 1}, {"step": 2}]
    assert read_journal(tmp_path / "none") == []


def settled(tmp_path, section, measured=(2.0, 10.0), there=10**9):
    return settle(
        tmp_path,
        "f",
        section,
        rows_per_update=4,
        micro=2,
        sequence_length=16,
        tokens_per_update=60.0,
        updates_in=lambda epochs: 7.5 * epochs,
        seconds_per_update=lambda: measured,
        compiles=lambda steps: steps > 10,
        available=lambda steps: min(steps, there),
    )


def test_budgets(tmp_path):
    for name, budget, steps in (
        ("steps", {"steps": 5}, 5),
        ("tokens", {"tokens": 130}, 3),
        ("epochs", {"epochs": 2.0}, 15),
        ("minutes", {"minutes": 1.0}, 25),
    ):
        (tmp_path / name).mkdir()
        plan = settled(tmp_path / name, PretrainSection(**budget))
        assert plan.steps == steps
        assert plan.compiled == (steps > 10)
        assert json.loads((tmp_path / name / "plan.json").read_text())["steps"] == steps


def test_a_plan_is_decided_once(tmp_path):
    section = PretrainSection(minutes=1.0)
    first = settled(tmp_path, section, (2.0, 10.0))
    assert settled(tmp_path, section, (0.1, 0.0)) == first
    (tmp_path / "b").mkdir()
    with pytest.raises(GroundupError, match="only 4 updates"):
        settled(tmp_path / "b", section, (12.0, 10.0))


def test_micro_rows_divide_the_update():
    model = Transformer(ARCH)
    assert rows_in_pass(PretrainSection(steps=1, micro_batch=5), model, 12, 16, CPU) == (4, 0)
    assert rows_in_pass(PretrainSection(steps=1, micro_batch=5), model, 12, 16, CPU, divisor=False) == (5, 0)
    assert rows_in_pass(PretrainSection(steps=1), model, 12, 2048, CPU) == (2, 0)
    assert rows_in_pass(PretrainSection(steps=1, recomputed_blocks=9), model, 12, 16, CPU) == (12, 2)


def test_weight_decay_reaches_matrices_only():
    table = OptimizerTable(weight_decay=0.5, muon_lr=0.1, adamw_lr=0.1, embedding_lr=0.1)
    model = Transformer(ARCH)
    initialise(model, 0)
    from groundup.training import Optimizer

    optimizer = Optimizer(model, table)
    for weight in model.parameters():
        weight.grad = torch.zeros_like(weight)
    before = model.model.layers[0].self_attn.q_proj.weight.detach().clone()
    optimizer.step(1.0, 0)
    assert torch.allclose(model.model.layers[0].self_attn.q_proj.weight, before * 0.95, atol=1e-5)
    assert torch.equal(model.model.norm.weight.detach(), torch.ones(16))


def test_rounding_may_exceed_the_data_and_a_wish_may_not(tmp_path):
    """7.5 updates an epoch: two epochs are 15, where the data may have 14."""
    for name, budget, there, steps in (
        ("a", {"epochs": 2.0}, 14, 14),
        ("b", {"epochs": 2.0}, 13, None),
        ("c", {"steps": 15}, 14, None),
        ("d", {"steps": 15}, 15, 15),
        ("e", {"steps": 1}, 0, None),
        ("f", {"epochs": 200.0}, 1485, 1485),
        ("g", {"epochs": 200.0}, 1484, None),
    ):
        (tmp_path / name).mkdir()
        if steps is None:
            with pytest.raises(UserError, match=f"used up after {there}"):
                settled(tmp_path / name, PretrainSection(**budget), there=there)
        else:
            assert settled(tmp_path / name, PretrainSection(**budget), there=there).steps == steps


def test_updates_without_targets_change_nothing_and_teach_the_guard_nothing(rows, tmp_path):
    """Two of three have none; resumed in the middle it ends in the same bits."""

    class Sparse:
        def update(self, step: int) -> Batch:
            batch = rows.batch(range(4 * step, 4 * step + 4))
            if step % 3:
                batch.targets[:] = -100
            return batch

    work = job(rows, tmp_path / "whole", steps=120, source=Sparse())
    metrics = train(work)
    assert metrics["without_targets"] == 80
    assert metrics["skipped"] == 0
    lines = read_journal(tmp_path / "whole" / "metrics.jsonl")
    assert [line["step"] % 3 for line in lines if "loss" in line] == [1] * 40
    assert [line["without_targets"] for line in lines[:6]] == [0, 1, 2, 2, 3, 4]
    assert all(line["grad_norm"] > 0 for line in lines if "loss" in line)
    calls = []
    stopped = job(rows, tmp_path / "parts", steps=120, source=Sparse(), stop=lambda: calls.append(0) or len(calls) > 49)
    with pytest.raises(Interrupted):
        train(stopped)
    again = job(rows, tmp_path / "parts", steps=120, source=Sparse())
    assert train(again)["without_targets"] == 80
    assert torch.equal(weights(again.model), weights(work.model))


def test_an_empty_update_leaves_weights_and_optimizer_as_they_were(rows, tmp_path):
    trainer = Trainer(job(rows, tmp_path / "a"))
    trainer.update(rows.batch(range(4)))
    before, state = weights(trainer.model).clone(), {n: t.clone() for n, t in trainer.optimizer.tensors().items()}
    norms = list(trainer.guard.norms)
    batch = rows.batch(range(4))
    batch.targets[:] = -100
    report = trainer.update(batch)
    assert "loss" not in report
    assert report["without_targets"] == 1
    assert trainer.done.step == 2
    assert trainer.guard.norms == norms
    assert torch.equal(weights(trainer.model), before)
    assert all(torch.equal(state[name], tensor) for name, tensor in trainer.optimizer.tensors().items())


def test_an_empty_share_has_no_loss_and_no_gradient(rows, tmp_path):
    """Of an update of three rows the first of eight processes gets none."""
    share = Loader(rows, 3, rank=0, world=8).update(0)
    assert len(share) == 0
    trainer = Trainer(job(rows, tmp_path / "a"))
    assert trainer.gradients(share) == (0.0, {"grad_norm": 0.0})
    assert all(not torch.any(weight.grad) for weight in trainer.model.parameters())


def test_norms_of_zero_make_no_spike_of_the_first_that_is_not():
    guard = Guard()
    assert all(guard.accepts(1.0, norm, step) for step, norm in enumerate([0.0] * 40 + [1.0] * 40))
    assert not guard.accepts(1.0, 13.0, 80)
    assert guard.skipped == 1


def test_each_shape_is_compiled_and_one_too_many_is_an_error(monkeypatch):
    graphs = []

    def count(graph, inputs):
        graphs.append(tuple(inputs[0].shape))
        return graph.forward

    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=count))
    double = compiled(lambda x: 2 * x)
    for size in range(2, 2 + SHAPES):
        assert double(torch.ones(size, 2)).sum() == 4 * size
    assert graphs == [(size, 2) for size in range(2, 2 + SHAPES)]
    assert SHAPES >= 2 * (2 * (7 + 7 + 1) + 1)  # two ramps and whole updates, their rests; before and after a halving
    with pytest.raises(Exception, match="recompile_limit"):
        double(torch.ones(2 + SHAPES, 2))


def test_compiling_has_to_pay_for_each_shape():
    def pays(shapes: int, updates: float = 1, **budget) -> bool:
        return compile_pays(PretrainSection(**budget), ARCH, updates, 1e6, "cpu", shapes)

    assert [pays(shapes, minutes=6) for shapes in (1, 3, 4)] == [True, True, False]
    enough = COMPILE_FLOPS["cpu"] / (1e6 * flops_per_token(ARCH, ARCH.context_length))
    assert pays(1, 1.01 * enough, steps=1)
    assert not pays(3, 2.99 * enough, steps=1)
    assert pays(3, 3.01 * enough, steps=1)
