"""Out of memory: the micro-batch is halved, the update begins again, and the run says and remembers it."""

import json
import runpy
from pathlib import Path

import numpy as np
import pytest
import torch

from groundup.run import GroundupError, Interrupted, UserError, read_json
from groundup.training import NextToken, Plan, prepare, read_journal, train
from groundup.training.budget import halve, settle
from groundup.training.failures import is_out_of_memory
from groundup.training.loop import Trainer

MADE = runpy.run_path(str(Path(__file__).with_name("reliable.py")))
make_job, weights, timeless = MADE["make_job"], MADE["weights"], MADE["timeless"]
PLAN = Plan("f", 10, 8, 8, 32)


@pytest.fixture(autouse=True)
def deterministic():
    prepare(MADE["Hardware"]("cpu", "fp32", False, 1, {}))
    yield
    torch.use_deterministic_algorithms(False)


class Hungry(NextToken):
    """Asks the allocator for more than there is where a pass has more than so many rows; from pass ``begin`` on."""

    def __init__(self, rows: int, begin: int = 0, backward: bool = False) -> None:
        self.rows, self.begin, self.backward, self.passes = rows, begin, backward, 0

    def loss(self, model, batch):
        self.passes += 1
        loss, reported = super().loss(model, batch)
        if self.passes > self.begin and len(batch["ids"]) > self.rows:
            if not self.backward:
                torch.empty(1 << 60, device=loss.device)
            loss = Failing.apply(loss)
        return loss, reported


class Failing(torch.autograd.Function):
    @staticmethod
    def forward(ctx, loss):
        return loss.clone()

    @staticmethod
    def backward(ctx, gradient):
        torch.empty(1 << 60, device=gradient.device)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
@pytest.mark.parametrize("backward", [False, True])
def test_on_a_gpu_too(tmp_path, backward):
    cuda = MADE["Hardware"]("cuda", "fp32", False, 1, {})
    small = make_job(tmp_path / "small", micro=2, hardware=cuda)
    train(small)
    job = make_job(tmp_path / "hungry", micro=8, hardware=cuda, objective=Hungry(2, backward=backward))
    assert train(job)["micro_rows"] == 2
    assert all(torch.equal(weight, weights(small.model)[name]) for name, weight in weights(job.model).items())


@pytest.mark.parametrize("backward", [False, True])
def test_the_update_begins_again_with_half_the_rows(tmp_path, capsys, backward):
    """From the first update on it is the run that had the smaller micro-batch from the start, bit for bit, dropout
    and all; gradients of the pass that failed would double some."""
    small = make_job(tmp_path / "small", micro=2)
    train(small)
    job = make_job(tmp_path / "hungry", micro=8, objective=Hungry(2, backward=backward))
    metrics = train(job)
    assert metrics["micro_rows"] == 2
    assert all(torch.equal(weight, weights(small.model)[name]) for name, weight in weights(job.model).items())
    assert timeless(tmp_path / "hungry") == timeless(tmp_path / "small")
    errors = capsys.readouterr().err
    assert "step 1: out of memory; from here on 4 rows in a pass" in errors
    assert "step 1: out of memory; from here on 2 rows in a pass" in errors
    assert read_json(tmp_path / "hungry" / "plan.json")["halved_at"] == [0, 0]


def test_the_middle_of_an_update_that_failed_leaves_nothing(tmp_path):
    """Three of four micro-batches were through. The gradient is that of four passes, not of seven."""
    job = make_job(tmp_path / "a", micro=2, objective=Hungry(1, begin=3))
    trainer = Trainer(job)
    rows = job.source.update(0)
    loss = trainer.update(rows)["loss"]
    other = Trainer(make_job(tmp_path / "b", micro=1))
    assert other.update(rows)["loss"] == loss
    assert all(torch.equal(weight, weights(other.model)[name]) for name, weight in weights(job.model).items())


def test_a_resumed_process_halves_where_the_first_one_did(tmp_path):
    """Memory fails at update 8; killed after it, with a checkpoint before it: the same bits, with memory or without."""
    whole = make_job(tmp_path / "whole", objective=Hungry(2, begin=14))
    train(whole)
    assert [line["micro_rows"] for line in timeless(tmp_path / "whole") if "loss" in line] == [4] * 7 + [2] * 5
    calls = []
    stopped = make_job(
        tmp_path / "parts", objective=Hungry(2, begin=14), should_stop=lambda: len(calls) == 8 or bool(calls.append(1))
    )
    with pytest.raises(Interrupted):
        train(stopped)
    for late in ("step-00000009",):  # of what was saved after it nothing is left
        (tmp_path / "parts" / "checkpoints" / late / "manifest.json").unlink()
    plan = settled(tmp_path / "parts", "f" * 64)
    assert plan.halved_at == (7,)
    again = make_job(tmp_path / "parts", plan=plan)
    train(again)
    assert all(torch.equal(weight, weights(whole.model)[name]) for name, weight in weights(again.model).items())
    assert timeless(tmp_path / "parts") == timeless(tmp_path / "whole")


def settled(directory: Path, fingerprint: str, **budget) -> Plan:
    """The plan that a process finds when it begins again."""
    return settle(
        directory,
        fingerprint,
        MADE["PretrainSection"](**(budget or {"steps": 12})),
        rows_per_update=8,
        micro=4,
        sequence_length=32,
        tokens_per_update=256.0,
        updates_in=lambda epochs: epochs,
        seconds_per_update=lambda: (1.0, 1.0),
        compiles=lambda steps: False,
    )


def test_one_row_that_does_not_fit_is_an_error_that_helps(tmp_path):
    with pytest.raises(GroundupError, match="update 1 with a single row of 32 tokens.*sequence_length"):
        train(make_job(tmp_path / "a", objective=Hungry(0)))


def test_memory_that_fails_elsewhere_is_a_plain_error(tmp_path, monkeypatch):
    def greedy(model):
        torch.empty(1 << 60)

    with pytest.raises(GroundupError, match="pretrain: out of memory.*step-00000005 is intact"):
        train(make_job(tmp_path / "a", validate=greedy))
    job = make_job(tmp_path / "b")
    monkeypatch.setattr("groundup.training.optimizers.Muon.step", lambda *_: torch.empty(1 << 60))
    with pytest.raises(GroundupError, match="out of memory.*No checkpoint had been saved yet"):
        train(job)  # half of the weights may have moved: nothing of them is saved
    assert list((tmp_path / "b" / "checkpoints").iterdir()) == []


def test_other_errors_stay_what_they_are(tmp_path):
    class Wrong(NextToken):
        def loss(self, model, batch):
            raise RuntimeError("shapes do not fit")

    with pytest.raises(RuntimeError, match="shapes do not fit"):
        train(make_job(tmp_path / "a", objective=Wrong()))


def test_what_says_so():
    with pytest.raises(RuntimeError) as real:
        torch.empty(1 << 60)
    assert is_out_of_memory(real.value)
    with pytest.raises(MemoryError) as numpy_error:
        np.empty(1 << 57)
    assert is_out_of_memory(numpy_error.value)
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"))
    wrapped = RuntimeError("backend failed")
    wrapped.__cause__ = torch.OutOfMemoryError("CUDA out of memory.")
    assert is_out_of_memory(wrapped)
    assert not is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    assert not is_out_of_memory(None)


def test_micro_batches_by_hand(tmp_path):
    """8 rows of 32 places: as many places where rows are shorter; a halving holds from its update on."""
    assert [PLAN.micro(length, 0) for length in (32, 16, 8, 64)] == [8, 16, 32, 4]
    plan = halve(tmp_path, PLAN, 5, 8, 32)
    assert plan.halved_at == (5,)
    assert [plan.micro(32, step) for step in (4, 5, 9)] == [8, 4, 4]
    plan = halve(tmp_path, plan, 9, 8, 32)
    assert [plan.micro(32, step) for step in (4, 5, 8, 9)] == [8, 4, 4, 2]
    sooner = halve(tmp_path, plan, 2, 8, 32)  # a resumed process with less memory
    assert sooner.halved_at == (2, 9)
    assert halve(tmp_path, PLAN, 3, 3, 32).micro(32, 3) == 2  # 3 rows in an update: 4 would change nothing
    assert json.loads((tmp_path / "plan.json").read_text())["halved_at"] == [3, 3]
    with pytest.raises(GroundupError, match="single row"):
        halve(tmp_path, PLAN, 0, 1, 32)


def test_the_plan_comes_back_as_it_was_and_a_damaged_one_is_no_traceback(tmp_path):
    plan = settled(tmp_path, "f")
    plan = halve(tmp_path, plan, 3, 8, 32)
    assert settled(tmp_path, "f") == plan
    for content in ("{", "[]", '{"unknown": 1}'):
        (tmp_path / "plan.json").write_text(content)
        with pytest.raises(GroundupError, match=r"plan.json is damaged") as error:
            settled(tmp_path, "f")
        assert not isinstance(error.value, UserError)


def test_compiled_graphs_are_made_anew(tmp_path, monkeypatch):
    made = []

    def counted(loss):
        made.append(1)
        return loss

    monkeypatch.setattr("groundup.training.loop.compiled", counted)
    plan = Plan("f" * 64, 12, 8, 4, 32, compiled=True)
    train(make_job(tmp_path / "a", plan=plan, objective=Hungry(2)))
    assert len(made) == 2
    assert read_journal(tmp_path / "a" / "metrics.jsonl")[0]["micro_rows"] == 2
