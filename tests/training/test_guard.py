"""The guard: injected NaN, infinities and spikes leave weights and optimizer to the bit as they were, and it forgets
nothing of that over a resume."""

import dataclasses
import math
import random
import runpy
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from groundup.run import GroundupError, Interrupted
from groundup.training import NextToken, prepare, read_journal, train
from groundup.training.guard import LOUD, LOUD_SHARE, NEW_LEVEL, PATIENCE, READY, SPIKE, WINDOW, Guard
from groundup.training.loop import Trainer

MADE = runpy.run_path(str(Path(__file__).with_name("reliable.py")))
make_job, weights = MADE["make_job"], MADE["weights"]


@pytest.fixture(autouse=True)
def deterministic():
    prepare(MADE["Hardware"]("cpu", "fp32", False, 1, {}))
    yield
    torch.use_deterministic_algorithms(False)


class Injected(NextToken):
    """The objective, with something done to the loss of chosen (update, micro-batch) pairs."""

    def __init__(self, harms, micro_batches: int = 2, begin: int = 0) -> None:
        self.harms, self.micro_batches, self.passes = harms, micro_batches, begin * micro_batches

    def loss(self, model, batch):
        loss, reported = super().loss(model, batch)
        harm = self.harms.get(divmod(self.passes, self.micro_batches))
        self.passes += 1
        return (loss if harm is None else harm(loss)), reported


class BadGradient(torch.autograd.Function):
    """The loss as it is, with a gradient that isn't."""

    @staticmethod
    def forward(ctx, loss, factor):
        ctx.factor = factor
        return loss.clone()

    @staticmethod
    def backward(ctx, gradient):
        return gradient * ctx.factor, None


HARMS = {
    "NaN loss": lambda loss: loss * math.nan,
    "infinite loss": lambda loss: loss + math.inf,
    "NaN gradient": lambda loss: BadGradient.apply(loss, math.nan),
    "infinite gradient": lambda loss: BadGradient.apply(loss, math.inf),
    "gradient spike": lambda loss: BadGradient.apply(loss, 1e3),
    "loss spike": lambda loss: loss + loss.detach().abs() * 50,  # the gradient as usual
    "overflow": lambda loss: loss * 1e38,
}


def state_of(trainer: Trainer) -> dict[str, torch.Tensor]:
    return weights(trainer.model) | {name: tensor.clone() for name, tensor in trainer.optimizer.tensors().items()}


@pytest.mark.parametrize("place", [0, 1, 3])
@pytest.mark.parametrize("harm", HARMS)
def test_an_injected_harm_touches_nothing(tmp_path, harm, place):
    """In the first, second or last of four micro-batches of update 40: every tensor, and both windows."""
    objective = Injected({(READY + 2, place): HARMS[harm]}, 4)
    trainer = Trainer(make_job(tmp_path / "a", steps=200, micro=2, objective=objective))
    source = trainer.job.source
    for step in range(READY + 2):
        assert trainer.update(source.update(step))["skipped"] == 0
    before, norms, losses = state_of(trainer), list(trainer.guard.norms), list(trainer.guard.losses)
    report = trainer.update(source.update(READY + 2))
    assert report["skipped"] == 1
    after = state_of(trainer)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert (trainer.guard.norms, trainer.guard.losses) == (norms, losses)
    assert trainer.done.step == READY + 3
    assert all(weight.grad is None for weight in trainer.model.parameters())
    expected = {"gradient spike": "gradient spike", "loss spike": "loss spike"}.get(harm, "not finite")
    assert trainer.guard.reason == expected
    assert trainer.update(source.update(READY + 3))["skipped"] == 1
    assert not torch.equal(state_of(trainer)["model.norm.weight"], before["model.norm.weight"])


def test_harms_before_and_after_a_resume_end_in_the_same_bits(tmp_path):
    """The windows are in the checkpoint: a spike right after it is still known for one."""
    harms = {(5, 0): HARMS["NaN loss"], (37, 1): HARMS["loss spike"], (41, 0): HARMS["gradient spike"]}
    whole = make_job(tmp_path / "whole", steps=50, objective=Injected(harms))
    assert train(whole)["skipped"] == 3
    calls = []
    seldom = {"checkpoint_every": 0, "validate_every": 0, "sample_every": 0}
    stopped = make_job(tmp_path / "parts", steps=50, objective=Injected(harms), **seldom)
    with pytest.raises(Interrupted):
        train(dataclasses.replace(stopped, should_stop=lambda: len(calls) == 36 or bool(calls.append(1))))
    again = make_job(tmp_path / "parts", steps=50, objective=Injected(harms, begin=37), **seldom)
    assert train(again)["skipped"] == 3
    assert all(torch.equal(weight, weights(whole.model)[name]) for name, weight in weights(again.model).items())
    skipped = [line["skipped"] for line in read_journal(tmp_path / "parts" / "metrics.jsonl") if "skipped" in line]
    assert [skipped.index(count) for count in (1, 2, 3)] == [5, 37, 41]


def test_too_many_end_with_the_diagnosis_and_the_checkpoint_stays(tmp_path):
    harms = {(step, 1): HARMS["NaN gradient"] for step in range(7, 40)}
    with pytest.raises(
        GroundupError, match=f"{PATIENCE} updates in a row were refused at step 15 .not finite"
    ) as error:
        train(make_job(tmp_path / "a", steps=40, objective=Injected(harms)))
    assert "Lower the learning rates" in str(error.value)
    names = sorted(path.name for path in (tmp_path / "a" / "checkpoints").iterdir())
    assert names[-1] == "step-00000012"


def test_the_reason_is_logged(tmp_path, capsys):
    train(make_job(tmp_path / "a", objective=Injected({(3, 0): HARMS["infinite loss"]})))
    assert "step 4: update skipped, not finite: loss inf" in capsys.readouterr().err


def ready(losses, norm: float = 1.0) -> Guard:
    guard = Guard()
    assert all(guard.accepts(loss, norm, step) for step, loss in enumerate(losses))
    return guard


def test_the_bounds_by_hand():
    """Losses 1.9 and 2.1 in turn: median 2, median absolute deviation 0.1, so 1.4826 a spike is above."""
    losses = [1.9, 2.1] * (READY // 2)
    margin = LOUD * 1.4826 * 0.1
    assert margin > LOUD_SHARE * 2.0
    assert ready(losses).accepts(2.0 + 0.999 * margin, 1.0, 99)
    guard = ready(losses)
    assert not guard.accepts(2.0 + 1.001 * margin, 1.0, 99)
    assert guard.reason == "loss spike"
    # Losses that hardly vary: a share of the median is the bound.
    assert ready([2.0] * READY).accepts(2.0 * (1 + 0.99 * LOUD_SHARE), 1.0, 99)
    assert not ready([2.0] * READY).accepts(2.0 * (1 + 1.01 * LOUD_SHARE), 1.0, 99)
    assert ready([2.0] * READY).accepts(-50.0, 1.0, 99)  # a fall is none
    assert ready([0.0] * READY).accepts(1.0, 1.0, 99)  # and of nothing nothing is known
    assert ready([2.0] * (READY - 1)).accepts(100.0, 1.0, 99)  # nor before the window is ready
    assert ready([2.0] * READY).accepts(2.0, 0.999 * SPIKE, 99)
    assert not ready([2.0] * READY).accepts(2.0, 1.001 * SPIKE, 99)


def test_a_new_level_is_believed_and_an_outlier_is_not():
    """Another kind of data: after so many refusals in a row the level is the new usual, and the run goes on."""
    guard = ready([2.0] * WINDOW)
    assert [guard.accepts(3.0, 1.0, step) for step in range(NEW_LEVEL + 3)] == [False] * NEW_LEVEL + [True] * 3
    assert guard.losses == [3.0] * 3
    assert guard.skipped == NEW_LEVEL
    guard = ready([2.0] * WINDOW)
    for _ in range(50):
        assert not guard.accepts(30.0, 1.0, 0)
        assert guard.accepts(2.0, 1.0, 0)
    assert max(guard.losses) == 2.0
    assert len(guard.losses) == len(guard.norms) == WINDOW


def test_refusals_of_both_kinds_still_end_a_run():
    guard = ready([2.0] * WINDOW)
    for step in range(PATIENCE - 1):
        assert not guard.accepts(math.nan if step % 2 else 9.0, 1.0, step)
    with pytest.raises(GroundupError, match="come apart"):
        guard.accepts(math.nan, 1.0, 99)


@given(st.lists(st.tuples(st.floats(), st.floats(min_value=0)), max_size=120), st.integers(0, 119))
def test_a_guard_that_was_saved_decides_as_one_that_was_not(steps, at):
    """Whatever comes: the state is JSON, finite, and all there is."""
    import json

    one, other = Guard(), Guard()
    for number, (loss, norm) in enumerate(steps):
        if number == at:
            restored = Guard()
            restored.restore(json.loads(json.dumps(other.state(), allow_nan=False)))
            other = restored
        try:
            expected = one.accepts(loss, norm, number)
        except GroundupError:
            with pytest.raises(GroundupError):
                other.accepts(loss, norm, number)
            return
        assert other.accepts(loss, norm, number) == expected
        assert one.state() == other.state()


def test_a_state_of_an_earlier_version_is_taken_and_nonsense_is_not():
    guard = Guard()
    guard.restore({"norms": [1.0], "skipped": 2, "in_a_row": 1})
    assert guard.state() == {"norms": [1.0], "losses": [], "skipped": 2, "in_a_row": 1, "loud": 0}
    with pytest.raises(TypeError, match="not a guard's state"):
        guard.restore({"norms": 3, "skipped": 0, "in_a_row": 0})


def test_noise_as_wide_as_any_seen_raises_no_alarm():
    """Log-normal losses of sigma 0.25 (fine-tuning on short answers varies so), sinking over 3,000 updates."""
    generator = random.Random(0)
    guard = Guard()
    for step in range(3000):
        assert guard.accepts(
            2.0 * math.exp(generator.gauss(0, 0.25) - step / 1000), generator.lognormvariate(0, 0.3), step
        )
