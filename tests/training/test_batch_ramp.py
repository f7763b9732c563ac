"""Training with updates that grow: exact after a kill, true to every budget, in each way of packing."""

import runpy
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from groundup.hardware import Hardware
from groundup.recipe import PretrainSection, RecipeError, load_recipe
from groundup.run import Interrupted, UserError, read_json
from groundup.tokenizer import Batch, Buckets, PackedRows, ShardSource, ShardWriter, TokenShards
from groundup.training import budget, prepare, read_journal, stage
from groundup.training.loop import Trainer
from groundup.training.stage import open_rows, phases_of, shapes_of

MADE = runpy.run_path(str(Path(__file__).with_name("test_rows.py")))
write, trained = MADE["write"], MADE["trained"]
LENGTH = 32
BATCH = ({"until": 0.25, "tokens_per_update": 32}, {"until": 0.5, "tokens_per_update": 64})
ROWS = [1, 1, 2, 2, 4, 4, 4, 4]
"""Of 8 updates with this ramp, the whole ones of 128 tokens."""
LENGTHS = ({"until": 0.375, "length": 8}, {"until": 0.75, "length": 16})
KINDS = [
    {"packing": "packed"},
    {"packing": "best_fit"},
    {"packing": "padded"},
    {"packing": "packed", "sequence_ramp": LENGTHS},
]


@pytest.fixture(autouse=True)
def one_thread():
    prepare(Hardware("cpu", "fp32", False, 1, {}))
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture
def shown(monkeypatch) -> list[Batch]:
    """The updates that are trained on."""
    seen: list[Batch] = []
    update = Trainer.update

    def noted(self, rows):
        seen.append(rows)
        return update(self, rows)

    monkeypatch.setattr(Trainer, "update", noted)
    return seen


def column(batches: list[Batch], name: str) -> np.ndarray:
    return np.concatenate([getattr(batch, name).ravel() for batch in batches])


def lines(out: Path, *names: str) -> list[tuple]:
    return [tuple(line.get(name) for name in names) for line in read_journal(out / "metrics.jsonl")]


@pytest.mark.parametrize(("section", "steps"), [(KINDS[0], range(1, 8)), *((kind, (2, 4)) for kind in KINDS[1:])])
def test_killed_at_any_step_it_reaches_the_same_bits(tmp_path, section, steps):
    """Packed rows at every step, all others where the sizes change; the metrics are those of the whole run."""
    shards, names = write(tmp_path / "shards"), ("step", "tokens", "rows", "epoch", "loss", "lr", "grad_norm")
    settings = {**section, "batch_ramp": BATCH, "checkpoint_every": 2}
    _, whole = trained(shards, tmp_path / "whole", **settings)
    for step in steps:
        out, calls = tmp_path / str(step), []
        with pytest.raises(Interrupted):
            trained(shards, out, stop=lambda step=step, calls=calls: calls.append(0) or len(calls) == step, **settings)
        if step % 2 == 0:  # all that is left is the checkpoint before
            (out / "checkpoints" / f"step-{step:08}" / "manifest.json").unlink()
        _, parts = trained(shards, out, **settings)
        assert torch.equal(whole, parts)
        assert lines(out, *names) == lines(tmp_path / "whole", *names)


@pytest.mark.parametrize("packing", ["packed", "best_fit"])
def test_rows_come_in_the_same_order(tmp_path, packing, shown):
    shards = write(tmp_path / "shards")
    trained(shards, tmp_path / "out", packing=packing, batch_ramp=BATCH)
    assert [len(rows) for rows in shown] == ROWS
    plain = PackedRows(shards, LENGTH, 3, packing=packing).batch(range(sum(ROWS)))
    for field in fields(Batch):
        assert np.array_equal(column(shown, field.name), getattr(plain, field.name).ravel())
    done = lines(tmp_path / "out", "rows", "tokens", "epoch")
    epoch = PackedRows(shards, LENGTH, 3, packing=packing).rows(0)
    for step in range(8):
        rows = sum(ROWS[: step + 1])
        assert done[step] == (rows, sum(batch.tokens for batch in shown[: step + 1]), pytest.approx(rows / epoch))


def test_padded_updates_are_halves_and_quarters_of_the_whole_ones(tmp_path, shown):
    shards = write(tmp_path / "shards")
    trained(shards, tmp_path / "out", packing="padded", batch_ramp=BATCH)
    plain = Buckets(shards, LENGTH, 128, 3)
    wholes = [plain.update(step) for step in range(5)]
    assert np.array_equal(column(shown, "ids"), np.concatenate([batch.ids.ravel() for batch in wholes]))
    parts = (shown[:3], shown[3:5], *([whole] for whole in shown[5:]))  # ¼ ¼ ½ | ½ and the rest | whole ones
    assert [sum(map(len, part)) for part in parts] == [len(whole) for whole in wholes]


def test_both_ramps_at_once(tmp_path, shown):
    """A row of 32 places is shown as four of 8 up to step 3, and as two of 16 up to step 6."""
    shards = write(tmp_path / "shards")
    trained(shards, tmp_path / "out", batch_ramp=BATCH, sequence_ramp=LENGTHS)
    parts = [4, 4, 4, 2, 2, 2, 1, 1]
    assert [rows.ids.shape for rows in shown] == [
        (rows * cut, LENGTH // cut) for rows, cut in zip(ROWS, parts, strict=True)
    ]
    plain = PackedRows(shards, LENGTH, 3).batch(range(sum(ROWS)))
    assert np.array_equal(column(shown, "targets"), plain.targets.ravel())


@pytest.mark.parametrize("packing", ["packed", "best_fit", "padded"])
def test_a_budget_of_tokens_is_what_is_read(tmp_path, packing):
    """Smaller updates make more of them; the last one goes beyond the budget by its own size at most. Without the
    ramp's place in the count it would end near half of it."""
    shards = write(tmp_path / "shards")
    ramp = [{"until": 0.8, "tokens_per_update": 32}]
    settings = {"steps": None, "tokens": 2500, "packing": packing, "log_every": 99}
    metrics, _ = trained(shards, tmp_path / "out", **settings, batch_ramp=ramp)
    assert 0.95 * 2500 < metrics["tokens"] < 2500 + 128 + 0.05 * 2500  # padding is that of the mean update
    plain, _ = trained(shards, tmp_path / "plain", **settings)
    assert metrics["steps"] > 2 * plain["steps"]


@pytest.mark.parametrize("packing", ["packed", "best_fit", "padded"])
def test_a_budget_of_epochs_reads_every_token_so_often(tmp_path, packing):
    """Of limited data, to the last row; one more pass is refused."""
    shards = write(tmp_path / "shards", epochs=2)
    settings = {"steps": None, "packing": packing, "batch_ramp": BATCH}
    metrics, _ = trained(shards, tmp_path / "out", epochs=2, **settings)
    assert metrics["tokens"] == 2 * (shards.tokens - len(shards))
    assert lines(tmp_path / "out", "epoch")[-1] == (2.0,)
    for budget_ in ({"epochs": 3}, {"epochs": None, "steps": 1000}, {"epochs": None, "tokens": 10**6}):
        with pytest.raises(UserError, match="used up after"):
            trained(shards, tmp_path / "more", **{**settings, **budget_})


@pytest.mark.parametrize("packing", ["packed", "padded"])
def test_sources_of_different_weight(tmp_path, packing):
    """The second pass has other documents than the first, and the ramp goes beyond it."""
    shards = write(tmp_path / "shards", sources=[ShardSource("a", 1.0, 1), ShardSource("b", 2.0, 3)])
    ramp = [{"until": 0.9, "tokens_per_update": 64}]
    metrics, _ = trained(shards, tmp_path / "out", steps=None, epochs=2, packing=packing, batch_ramp=ramp)
    pairs = [int((shards.lengths[shards.source_numbers == source] - 1).sum()) for source in (0, 1)]
    assert metrics["tokens"] == pairs[0] + 3 * pairs[1]


def test_a_budget_of_minutes_is_worked_out_from_all_sizes(tmp_path, monkeypatch):
    """Updates of 1, 2 and 4 rows take as many seconds, and rows of 8 places twice as long."""
    clock, seen = [0.0], []

    def update(self, rows):
        cost = len(rows) * rows.length / LENGTH * (2 if rows.length == 8 else 1)
        clock[0] += cost
        seen.append((len(rows) * rows.length // LENGTH, rows.length))
        self.done.step += 1
        return {"loss": 1.0}

    monkeypatch.setattr(stage.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(Trainer, "update", update)
    shards = write(tmp_path / "shards", epochs=50)
    lengths = ({"until": 0.25, "length": 8}, {"until": 0.4, "length": 16})
    trained(shards, tmp_path / "out", steps=None, minutes=5, batch_ramp=BATCH, sequence_ramp=lengths)
    kinds = [(1, 8), (2, 16), (2, 32), (4, 32)]
    assert seen[:24] == [kind for kind in kinds for _ in range(6)]
    each = 0.25 * 2 + 0.15 * 2 + 0.1 * 2 + 0.5 * 4
    assert read_json(tmp_path / "out" / "plan.json")["steps"] == int((300 - 6 * (2 + 2 + 2 + 4)) / each)


def test_the_probe_does_not_read_beyond_the_data(tmp_path):
    """A file of 3 rows; in a ramp of 1,000 updates it would be more updates than of whole ones there are."""
    with ShardWriter(tmp_path / "shards", "uint16", pad_id=1, with_mask=True, sources=[ShardSource("a", 1, 1)]) as to:
        for _ in range(9):
            to.add(np.arange(30), 0, np.zeros(30, bool))
    with pytest.raises(UserError, match="the first 2 updates have no target"):
        trained(TokenShards(tmp_path / "shards"), tmp_path / "out", steps=None, minutes=1, batch_ramp=BATCH)


def test_every_shape_is_counted(tmp_path, monkeypatch):
    """What the ramps can meet when updates are cut into micro-batches: as found by doing it."""
    shards = write(tmp_path / "shards")
    for micro in (1, 2, 3, 5):
        section = PretrainSection(
            steps=100,
            tokens_per_update=32 * 10,
            batch_ramp=[{"until": 0.2, "tokens_per_update": 32 * 4}, {"until": 0.4, "tokens_per_update": 32 * 7}],
            sequence_ramp=[{"until": 0.3, "length": 8}],
        )
        loader, _, _ = open_rows(section, shards, LENGTH, 3)
        phases = phases_of(section, loader, LENGTH)
        assert [phase.share for phase in phases] == pytest.approx([0.2, 0.1, 0.1, 0.6])
        plan, found = budget.Plan("f", 100, 10, micro, LENGTH), set()
        for rows in (phase.source.update(0) for phase in phases):
            size = plan.micro(rows.length, 0)
            found |= {(len(rows.slice(at, at + size)), rows.length) for at in range(0, len(rows), size)}
        assert shapes_of(phases, LENGTH, micro) == found
    counted = []
    monkeypatch.setattr(stage, "compile_pays", lambda *given: counted.append(given[-1]) or False)
    monkeypatch.setitem(trained.__globals__, "CPU", Hardware("cpu", "fp32", True, 1, {}))
    trained(shards, tmp_path / "plain")
    trained(shards, tmp_path / "lengths", sequence_ramp=LENGTHS)
    trained(shards, tmp_path / "sizes", batch_ramp=BATCH)
    assert counted == [1, 3, 3]


def test_what_compiling_costs_is_weighed_against_what_is_read(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(stage, "compile_pays", lambda section, arch, steps, *_: seen.append(steps) or False)
    monkeypatch.setitem(trained.__globals__, "CPU", Hardware("cpu", "fp32", True, 1, {}))
    trained(write(tmp_path / "shards"), tmp_path / "out", batch_ramp=BATCH)
    assert seen == [sum(ROWS) / 4]


@pytest.mark.slow
def test_a_graph_for_each_shape_and_no_other(tmp_path, monkeypatch):
    """Nine steps of two ramps, updates with short rests: compiled as often as was counted, and for the last rows."""
    generator = np.random.default_rng(1)
    with ShardWriter(tmp_path / "shards", "uint16", pad_id=1, sources=[ShardSource("a", 1.0, 1)]) as writer:
        for _ in range(700):
            writer.add(generator.integers(2, 32, generator.integers(10, 60)))
    graphs, compile_ = [], torch.compile

    def kept(graph, inputs):
        graphs.append(graph)
        return graph.forward

    monkeypatch.setattr(torch, "compile", lambda loss, **given: compile_(loss, **given, backend=kept))
    monkeypatch.setattr(stage, "compile_pays", lambda *_: True)
    monkeypatch.setitem(trained.__globals__, "CPU", Hardware("cpu", "fp32", True, 1, {}))
    settings = {
        "steps": None,
        "epochs": 1,
        "tokens_per_update": 32 * 18,
        "micro_batch": 9,
        "batch_ramp": [{"until": 0.1 * n + 0.1, "tokens_per_update": 32 * (10 + n)} for n in range(7)],
        "sequence_ramp": [{"until": 0.15, "length": 8}, {"until": 0.45, "length": 16}],
        "log_every": 99,
    }
    shards = TokenShards(tmp_path / "shards")
    section = PretrainSection(**settings)
    shapes = shapes_of(phases_of(section, open_rows(section, shards, LENGTH, 3)[0], LENGTH), LENGTH, 9)
    assert len(shapes) == 12  # of 32, 16 and 8 places: whole micro-batches, and rests of 3, 4 and 2 sizes
    metrics, _ = trained(shards, tmp_path / "out", **settings)
    assert metrics["tokens"] == shards.tokens - len(shards)
    assert len(shapes) <= len(graphs) <= len(shapes) + 1


STEP = {"until": 0.1, "tokens_per_update": 64}


@pytest.mark.parametrize(
    ("ramp", "more", "said"),
    [
        ([STEP, STEP], {}, "must rise"),
        ([STEP, {"until": 0.1, "tokens_per_update": 96}], {}, "must rise"),
        ([STEP, {"until": 0.2, "tokens_per_update": 32}], {}, "must rise"),
        ([STEP], {"tokens_per_update": 32}, "64 must be at most tokens_per_update, 32"),
        ([STEP], {"sequence_length": 48}, "64 tokens must be whole rows of 48"),
        ([STEP], {"sequence_length": 128, "packing": "padded"}, "64 tokens must be whole rows of 128"),
        ([STEP], {"packing": "padded", "tokens_per_update": 160}, "64 must divide 160"),
        ([{"until": 1.0, "tokens_per_update": 64}], {}, "less than 1"),
        ([{"until": 0.5, "tokens_per_update": 64, "length": 8}], {}, "length"),
    ],
)
def test_ramps_that_can_not_be(ramp, more, said):
    with pytest.raises(ValidationError, match=said):
        PretrainSection(steps=1, batch_ramp=ramp, **more)


def test_a_ramp_that_does_not_fit_the_models_context(tmp_path):
    shards, ramp = write(tmp_path / "shards"), [{"until": 0.5, "tokens_per_update": 48}]
    with pytest.raises(UserError, match="batch_ramp: 48 tokens must be whole rows of 32") as error:
        trained(shards, tmp_path / "out", batch_ramp=ramp)
    assert error.value.where == "[out]"
    padded = {"packing": "padded", "batch_ramp": [{"until": 0.5, "tokens_per_update": 16}]}
    with pytest.raises(UserError, match="batch_ramp: 16 tokens must be whole rows of 32"):
        trained(shards, tmp_path / "out", **padded)
    assert not (tmp_path / "out").exists()


def test_a_ramp_that_does_not_fit_is_said_before_anything_is_built():
    """Rows are as long as the model's context, where no import decides that."""
    with pytest.raises(RecipeError, match=r"\[pretrain\] batch_ramp: 100 tokens must be whole rows of 256"):
        load_recipe("smoke", ["pretrain.batch_ramp=[{until=0.5,tokens_per_update=100}]"])
    with pytest.raises(RecipeError, match=r"\[ladder\] sequence_ramp: 96 must divide rows of 256 tokens and be less"):
        load_recipe("ladder", ["ladder.sequence_ramp=[{until=0.5,length=96}]"])
    recipe = load_recipe("smoke", ["pretrain.batch_ramp=[{until=0.5,tokens_per_update=512}]"])
    assert recipe.pretrain.batch_ramp[0].tokens_per_update == 512
