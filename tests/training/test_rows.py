"""Training on rows of every kind: modes of packing, ramps of lengths, resume, the end of the data, the waiting."""

import time
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from groundup.hardware import Hardware
from groundup.model import Architecture, Transformer, initialise
from groundup.recipe import PretrainSection
from groundup.run import Interrupted, UserError, read_json
from groundup.tokenizer import Buckets, Loader, PackedRows, Ramp, ShardSource, ShardWriter, TokenShards
from groundup.training import Job, NextToken, Plan, prepare, read_journal, stage, to_tensors, train, train_on_rows
from groundup.training.loop import Trainer

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
RAMP = ({"until": 0.25, "length": 8}, {"until": 0.5, "length": 16})


@pytest.fixture(autouse=True)
def one_thread():
    prepare(CPU)
    yield
    torch.use_deterministic_algorithms(False)


def write(directory: Path, epochs: float | None = None, *, sources: list[ShardSource] | None = None) -> TokenShards:
    """60 documents, dealt to the sources in turn."""
    generator, sources = np.random.default_rng(0), sources or [ShardSource("a", 1.0, epochs)]
    with ShardWriter(directory, "uint16", pad_id=1, sources=sources) as writer:
        for number in range(60):
            ids = (np.arange(generator.integers(3, 50)) + generator.integers(32)) % 30 + 2
            writer.add(ids, number % len(sources))
    return TokenShards(directory)


def fresh() -> Transformer:
    model = Transformer(ARCH)
    initialise(model, 1)
    return model


def trained(shards: TokenShards, out: Path, *, stop=lambda: False, **section) -> tuple[dict, torch.Tensor]:
    settings = {"steps": 8, "checkpoint_every": 3, "log_every": 1, "tokens_per_update": 128, **section}
    model = fresh()
    metrics = train_on_rows(
        PretrainSection(**settings),
        model,
        shards,
        out=out,
        seed=3,
        hardware=CPU,
        fingerprint="f" * 64,
        should_stop=stop,
        validate=None,
        sample=None,
    )
    return metrics, torch.cat([weight.detach().flatten() for weight in model.parameters()])


@pytest.mark.parametrize("section", [{"packing": "best_fit"}, {"packing": "padded"}, {"sequence_ramp": RAMP}])
@pytest.mark.parametrize("stop_after", [2, 5])
def test_resume_is_bit_equal(tmp_path, section, stop_after):
    shards = write(tmp_path / "shards")
    _, whole = trained(shards, tmp_path / "whole", **section)
    calls = []
    with pytest.raises(Interrupted):
        trained(shards, tmp_path / "parts", stop=lambda: calls.append(0) or len(calls) >= stop_after, **section)
    _, parts = trained(shards, tmp_path / "parts", **section)
    assert torch.equal(whole, parts)


@pytest.mark.parametrize("packing", ["packed", "best_fit", "padded"])
def test_an_epoch_reads_every_token_once(tmp_path, packing):
    shards = write(tmp_path / "shards", epochs=1)
    metrics, _ = trained(shards, tmp_path / "out", steps=None, epochs=1, packing=packing)
    assert metrics["tokens"] == shards.tokens - len(shards)
    assert metrics["padding"] < {"packed": 0.03, "best_fit": 0.03, "padded": 0.2}[packing]
    assert ("cuts" in metrics) == (packing != "padded")


def test_the_same_tokens_with_and_without_a_ramp(tmp_path):
    shards = write(tmp_path / "shards")
    plain, _ = trained(shards, tmp_path / "plain")
    ramped, _ = trained(shards, tmp_path / "ramped", sequence_ramp=RAMP)
    assert plain["tokens"] == ramped["tokens"]
    lines = [read_journal(tmp_path / name / "metrics.jsonl") for name in ("plain", "ramped")]
    assert [line["tokens"] for line in lines[0]] == [line["tokens"] for line in lines[1]]
    assert lines[0][3]["loss"] != lines[1][3]["loss"]


@pytest.mark.parametrize("kind", ["ramp", "padded"])
def test_micro_batches_of_shorter_rows_do_not_change_the_gradient(tmp_path, kind):
    """They have as many places as those of whole rows, so more rows."""
    shards = write(tmp_path / "shards")
    source = (
        Buckets(shards, 32, 128, 3) if kind == "padded" else Ramp(Loader(PackedRows(shards, 32, 3), 4), [(0.5, 8)], 8)
    )
    rows = next(rows for rows in map(source.update, range(99)) if rows.length < 32)
    found, shapes = [], []
    for micro in (1, 2, 4):
        plan = Plan("f", 8, 4, micro, 32)
        section = PretrainSection(steps=8)
        job = Job(
            "p", "pretrain", tmp_path / str(micro), "f", fresh(), NextToken(), source, section, plan, CPU, 1, bool
        )
        trainer = Trainer(job)
        loss = trainer.loss
        trainer.loss = lambda model, batch, loss=loss: shapes.append(tuple(batch["ids"].shape)) or loss(model, batch)
        found.append((trainer.gradients(rows)[0], torch.cat([w.grad.flatten() for w in trainer.model.parameters()])))
    for loss, gradient in found[1:]:
        assert loss == pytest.approx(found[0][0], abs=1e-6)
        assert torch.allclose(gradient, found[0][1], rtol=1e-4, atol=1e-7)
    assert shapes[0] == (32 // rows.length, rows.length)
    assert shapes[-1] == (min(len(rows), 128 // rows.length), rows.length)


def test_shorter_rows_get_the_logits_of_their_parts_alone(tmp_path):
    """A row cut in two gives what its halves give as documents of their own."""
    rows = PackedRows(write(tmp_path / "shards"), 32, 3).batch(range(4))
    model, generator = fresh(), torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in model.parameters():  # a fresh model's blocks add nothing yet
            weight.add_(0.2 * torch.randn(weight.shape, generator=generator))
    short = to_tensors(rows.shortened(8), "cpu")
    assert short["ids"].dtype == short["targets"].dtype == short["positions"].dtype == torch.int64
    loss, _ = NextToken().loss(model, short)
    alone = 0.0
    for ids, targets, documents in zip(short["ids"], short["targets"], short["documents"], strict=True):
        for number in range(1, int(documents.max()) + 1):
            part = documents == number
            count = int(part.sum())
            piece = {
                "ids": ids[part][None],
                "targets": targets[part][None],
                "positions": torch.arange(count)[None],
                "documents": torch.ones(1, count, dtype=torch.int32),
            }
            alone += NextToken().loss(model, piece)[0].item()
    assert loss.item() == pytest.approx(alone, rel=1e-5)


def test_a_budget_beyond_the_data_is_refused_before_training(tmp_path):
    shards = write(tmp_path / "shards", epochs=2)
    for budget in ({"steps": 1000}, {"steps": None, "tokens": 10**7}, {"steps": None, "epochs": 3}):
        for packing in ("packed", "padded"):
            with pytest.raises(UserError, match="the corpus is used up after"):
                trained(shards, tmp_path / "out", packing=packing, **budget)
    assert not (tmp_path / "out" / "checkpoints").exists()
    both, _ = trained(shards, tmp_path / "both", steps=None, epochs=2)
    assert both["tokens"] == 2 * (shards.tokens - len(shards))


def test_ramps_that_can_not_be():
    step = {"until": 0.1, "length": 8}
    for ramp, more in (
        ([step, step], {}),
        ([step, {"until": 0.2, "length": 8}], {}),
        ([{"until": 0.2, "length": 16}, {"until": 0.1, "length": 32}], {}),
        ([step], {"packing": "padded"}),
        ([step], {"sequence_length": 12}),
        ([step], {"sequence_length": 8}),
        ([{"until": 1.0, "length": 8}], {}),
    ):
        with pytest.raises(ValidationError):
            PretrainSection(steps=1, sequence_ramp=ramp, **more)


def test_a_ramp_that_does_not_fit_the_models_context(tmp_path):
    with pytest.raises(UserError, match="sequence_ramp: 24 must divide rows of 32 tokens"):
        trained(write(tmp_path / "shards"), tmp_path / "out", sequence_ramp=[{"until": 0.5, "length": 24}])


def test_the_waiting_is_measured_and_written(tmp_path):
    loader = Loader(PackedRows(write(tmp_path / "shards"), 16, 3), 4)

    class Slow:
        def update(self, step: int):
            time.sleep(0.2)
            return loader.update(step)

    def metrics(source, name: str):
        plan, section = Plan("f" * 64, 5, 4, 4, 16), PretrainSection(steps=5, log_every=1)
        job = Job("p", "pretrain", tmp_path / name, "f" * 64, fresh(), NextToken(), source, section, plan, CPU, 1, bool)
        return train(job), [line["data_wait"] for line in read_journal(tmp_path / name / "metrics.jsonl")]

    slow, lines = metrics(Slow(), "slow")
    assert slow["data_start"] >= 0.19
    assert slow["data_wait"] > 0.3
    assert lines[0] == 0  # the first wait counts apart
    assert min(lines[2:]) > 0.1
    fast, _ = metrics(loader, "fast")
    assert fast["data_wait"] < slow["data_wait"]


@pytest.mark.parametrize("packing", ["packed", "best_fit", "padded"])
def test_so_many_epochs_are_so_many_passes(tmp_path, packing):
    """The first source is read once, the second twice: the second pass has fewer updates than the first."""
    shards = write(tmp_path / "shards", sources=[ShardSource("a", 1.0, 1), ShardSource("b", 1.0, 2)])
    metrics, _ = trained(shards, tmp_path / "out", steps=None, epochs=2, packing=packing)
    pairs = [int((shards.lengths[shards.source_numbers == source] - 1).sum()) for source in (0, 1)]
    assert metrics["tokens"] == pairs[0] + 2 * pairs[1]
    with pytest.raises(UserError, match="used up after"):
        trained(shards, tmp_path / "three", steps=None, epochs=2.5, packing=packing)


@pytest.mark.parametrize("packing", ["packed", "best_fit", "padded"])
@pytest.mark.parametrize("budget", [{"tokens": 500}, {"epochs": 16}, {"steps": 3}])
def test_a_first_epoch_without_a_document(tmp_path, packing, budget):
    """One document of weight 0.25 first comes in the fourth pass."""
    with ShardWriter(tmp_path / "shards", "uint16", pad_id=1, sources=[ShardSource("a", 0.25)]) as writer:
        writer.add(np.arange(30))
    metrics, _ = trained(
        TokenShards(tmp_path / "shards"), tmp_path / "out", packing=packing, **{"steps": None, **budget}
    )
    assert metrics["padding"] == pytest.approx(3 / 32)
    if "epochs" in budget:
        assert metrics["tokens"] == 4 * 29
    if "tokens" in budget:
        assert 500 <= metrics["tokens"] < 500 + 4 * 29


def test_a_budget_of_minutes_is_worked_out_from_all_lengths(tmp_path, monkeypatch):
    """Updates of rows of 8, 16 and 32 places take 1, 2 and 4 s, and 100 s more the first time."""
    clock, seen = [0.0], []

    def update(self, rows):
        clock[0] += rows.length / 8 + (0 if rows.length in seen else 100)
        seen.append(rows.length)
        self.done.step += 1
        return {"loss": 1.0}

    monkeypatch.setattr(stage.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(Trainer, "update", update)
    trained(write(tmp_path / "shards"), tmp_path / "out", steps=None, minutes=10, sequence_ramp=RAMP)
    assert seen[:18] == [8] * 6 + [16] * 6 + [32] * 6
    probed = 300 + 6 * (1 + 2 + 4)
    each = 0.25 * 1 + 0.25 * 2 + 0.5 * 4
    assert read_json(tmp_path / "out" / "plan.json")["steps"] == int((600 - probed) / each)
    assert not (tmp_path / "out" / ".probe").exists()


def test_minutes_where_no_update_has_a_target(tmp_path):
    with ShardWriter(tmp_path / "shards", "uint16", pad_id=1, with_mask=True) as writer:
        for _ in range(9):
            writer.add(np.arange(30), 0, np.zeros(30, bool))
    with pytest.raises(UserError, match="have no target"):
        trained(TokenShards(tmp_path / "shards"), tmp_path / "out", steps=None, minutes=1)
