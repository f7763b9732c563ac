"""What a pass keeps, counted; blocks recomputed; what fits."""

import gc
import runpy
from pathlib import Path

import pytest
import torch
from torch import nn

from groundup.hardware import Hardware
from groundup.model import Architecture, EncoderDecoder, EncoderDecoderArchitecture, PackedMask, fresh_model
from groundup.recipe import EncoderDecoderShape, ModelSection, PretrainSection
from groundup.run import GroundupError, read_json
from groundup.training import NextToken, Plan, read_journal, to_tensors, train, train_on_rows
from groundup.training.memory import GPU_TOKENS, Footprint, fit, footprint, kept_bytes, rows_in_pass, whole_part
from groundup.training.objective import micro_batches

MADE = runpy.run_path(str(Path(__file__).with_name("reliable.py")))
make_job, rows_of, weights = MADE["make_job"], MADE["rows_of"], MADE["weights"]
CPU = Hardware("cpu", "fp32", False, 1, {})
BF16 = Hardware("cpu", "bf16", False, 1, {})
SMALL = {"layers": 3, "hidden_size": 32, "heads": 2, "kv_heads": 1, "context_length": 64}
PLAIN = NextToken().loss
KINDS = {
    "dense": {},
    "dropout": {"dropout": 0.2},
    "experts": {"experts": {"count": 4, "per_token": 2, "intermediate_size": 32}},
    "skips": {"x0_skip": True, "residual_scalars": True, "value_embeddings": True},
}


def small(**more):
    arch = Architecture.from_section(ModelSection.model_validate({**SMALL, **more}), 128)
    return fresh_model(arch, 1).train()


def batch(rows=3, length=64):
    ids = torch.randint(128, (rows, length), generator=torch.Generator().manual_seed(2))
    places = torch.arange(length).expand(rows, length).contiguous()
    documents = 1 + (places >= length // 2).long()
    return {"ids": ids, "targets": ids.roll(-1, 1), "positions": places, "documents": documents}


def learned(model, recomputed, loss=PLAIN):
    model.zero_grad()
    model.model.recomputed = recomputed
    torch.manual_seed(3)
    value, reported = loss(model, batch())
    value.backward()
    return value, reported, torch.cat([weight.grad.flatten() for weight in model.parameters()])


@pytest.mark.parametrize("kind", KINDS)
def test_recomputed_blocks_change_no_bit(kind):
    model = small(**KINDS[kind])
    value, reported, gradient = learned(model, 0)
    for recomputed in (1, 3):
        again, told, found = learned(model, recomputed)
        assert torch.equal(again, value)
        assert torch.equal(found, gradient)
        assert {name: each.item() for name, each in told.items()} == {n: each.item() for n, each in reported.items()}


def test_recomputed_blocks_keep_less_and_nothing_without_gradients():
    model = small()
    ids = batch()["ids"]
    kept = []
    for recomputed in range(4):
        model.model.recomputed = recomputed
        kept.append(kept_bytes(model, lambda: model(ids)))
    steps = [before - after for before, after in zip(kept, kept[1:], strict=False)]
    assert min(steps) > 0
    # A block that is recomputed keeps what it reads, [3, 64, 32] in float32, and the first one reads what is kept
    # for the rest anyway.
    assert max(steps) - min(steps) <= 2 * 3 * 64 * 32 * 4
    with torch.no_grad():
        assert kept_bytes(model, lambda: model(ids)) == 0


def test_what_is_kept_by_hand():
    layer = nn.Linear(4, 3)
    x = torch.randn(5, 4)
    assert kept_bytes(layer, lambda: layer(x)) == 5 * 4 * 4  # the weight itself is not counted
    assert kept_bytes(layer, lambda: torch.relu(layer(x))) == 5 * 4 * 4 + 5 * 3 * 4
    y = torch.randn(7, requires_grad=True)
    assert kept_bytes(layer, lambda: y * y) == 7 * 4  # one storage, once


@pytest.mark.parametrize("hardware", [CPU, BF16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("kind", ["dense", "experts"])
def test_a_footprint_foretells_other_rows(kind, hardware):
    model = small(**KINDS[kind])
    model.model.recomputed = 0
    found = footprint(model, 64, hardware)
    assert found.blocks == 3
    for rows in (1, 5):
        ids = batch(rows)["ids"]
        for recomputed in (0, 3):
            model.model.recomputed = recomputed
            with torch.autocast("cpu", torch.bfloat16, enabled=hardware is BF16):
                kept = kept_bytes(model, lambda ids=ids: model(ids))
            said = found.needed(rows, 0) - found.needed(0, 0) if not recomputed else rows * found.least
            assert said <= kept <= 1.1 * said + 4 * sum(weight.numel() for weight in model.parameters())
    assert footprint(model, 32, hardware).row == pytest.approx(found.row / 2, rel=0.1)
    assert model.training
    assert model.model.recomputed == 0


def test_a_footmarksof_an_encoder_decoder():
    shape = EncoderDecoderShape(layers=2, hidden_size=32, heads=2, intermediate_size=64, context_length=32)
    model = EncoderDecoder(EncoderDecoderArchitecture.from_section(shape, 50, 50)).eval()
    found = footprint(model, 32, CPU)
    assert found.blocks == 0
    assert found.row == found.least > 2 * 2 * 32 * 32 * 4
    assert not model.training


def test_fewer_blocks_first_then_more_rows():
    """4 blocks of 10 bytes a row and 2 in all where recomputed, besides 100 bytes."""
    marks = Footprint(blocks=4, fixed=100.0, row=42.0, least=2.0)
    assert marks.needed(3, 0) == 100 + 3 * 42
    assert marks.needed(3, 4) == 100 + 3 * 12  # one block is there whole in its turn
    assert marks.needed(3, 1) == marks.needed(3, 0)
    section = PretrainSection(steps=1)
    length = GPU_TOKENS // 8  # 8 rows keep a GPU busy

    def fitted(free, rows=64, divisor=True, **more):
        return fit(marks, section.model_copy(update=more), rows, length, free, divisor=divisor)

    assert fitted(100 + 42 * 64) == (64, 0)
    assert fitted(100 + 42 * 20) == (16, 0)
    assert fitted(100 + 42 * 20, divisor=False) == (20, 0)
    assert fitted(100 + 32 * 8) == (8, 2)
    assert fitted(100 + 12 * 8) == (8, 4)
    assert fitted(100 + 12 * 3) == (2, 4)
    assert fitted(0) == (1, 4)  # what comes then is said by the machine
    assert fitted(100 + 42 * 4, rows=4) == (4, 0)
    assert fitted(100 + 42 * 20, recomputed_blocks=3) == (32, 3)
    assert fitted(100 + 42 * 20, recomputed_blocks=9) == (64, 4)
    assert fitted(100 + 22 * 16, micro_batch=16) == (16, 3)
    assert fitted(100 + 42 * 20, micro_batch=2) == (2, 0)
    assert [whole_part(most, 12) for most in (0, 1, 5, 6, 11, 12, 50)] == [1, 1, 4, 6, 6, 12, 12]


def test_compiled_it_is_the_same_but_for_rounding():
    torch.compiler.reset()
    model = small(layers=2)
    loss = torch.compile(NextToken().loss, dynamic=False)
    value, _, gradient = learned(model, 0, loss)
    again, _, found = learned(model, 2, loss)
    assert torch.allclose(again, value, rtol=1e-6)
    assert torch.allclose(found, gradient, rtol=1e-4, atol=1e-4)
    torch.compiler.reset()


def test_masks_are_seen_again():
    """The recomputed pass attends within documents too."""
    model = small()
    data = batch()
    mask = PackedMask(data["documents"])
    model.model.recomputed = 3
    hidden = model(data["ids"], positions=data["positions"], mask=mask)
    grads = torch.autograd.grad(hidden[0, 40].sum(), model.model.embed_tokens.weight)[0]
    first_document = set(data["ids"][0, :32].tolist()) - set(data["ids"][0, 32:].tolist())
    assert not grads[sorted(first_document)].any()
    assert grads.any()


def test_a_training_that_recomputes_reaches_the_same_bits(tmp_path):
    """Dropout is on: what is drawn is drawn again as it was."""
    found = []
    for recomputed in (0, 2):
        job = make_job(tmp_path / str(recomputed), plan=Plan("f" * 64, 12, 8, 4, 32, recomputed=recomputed))
        train(job)
        assert job.model.model.recomputed == recomputed
        found.append(weights(job.model))
    assert all(torch.equal(weight, found[0][name]) for name, weight in found[1].items())


def test_a_training_in_8_bits_learns(tmp_path):
    """On a CPU, where the kernel only shows what a GPU computes."""
    losses = {}
    for precision in ("bf16", "fp8"):
        job = make_job(tmp_path / precision, hardware=Hardware("cpu", precision, False, 1, {}), steps=12)
        train(job)
        losses[precision] = [
            line["loss"] for line in read_journal(tmp_path / precision / "metrics.jsonl") if "loss" in line
        ]
    assert losses["fp8"] != losses["bf16"]
    assert losses["fp8"][-1] < 0.9 * losses["fp8"][0]
    assert losses["fp8"][-1] == pytest.approx(losses["bf16"][-1], rel=0.1)


def test_the_collector_waits(tmp_path):
    seen = []
    assert gc.isenabled()
    train(make_job(tmp_path, should_stop=lambda: bool(seen.append((gc.isenabled(), gc.get_freeze_count() > 0)))))
    assert set(seen) == {(False, True)}
    assert gc.isenabled()
    assert gc.get_freeze_count() == 0


def test_micro_batches_are_the_rows(tmp_path):
    rows = rows_of(tmp_path).batch(range(7))
    parts = list(micro_batches(rows, 3, "cpu"))
    assert [len(part["ids"]) for part in parts] == [3, 3, 1]
    whole = to_tensors(rows, "cpu")
    assert all(torch.equal(torch.cat([part[name] for part in parts]), whole[name]) for name in whole)


def test_a_gpus_memory_decides(monkeypatch):
    """The GPU stood in for by the CPU: a model is measured, and what is free says how much of it is recomputed."""
    monkeypatch.setattr(nn.Module, "to", lambda module, device: module)
    gpu, model, section = Hardware("cuda", "fp32", False, 1, {}), small(), PretrainSection(steps=1)
    found = footprint(model, 64, CPU)
    for rows, recomputed in ((64, 0), (64, 2), (64, 3), (16, 3)):
        free = found.needed(rows, recomputed) + 1
        monkeypatch.setattr("groundup.training.memory.free_on_gpu", lambda model, free=free: free)
        assert rows_in_pass(section, model, 64, 64, gpu) == (rows, recomputed)
    assert rows_in_pass(section.model_copy(update={"recomputed_blocks": 0}), model, 64, 64, gpu)[0] < 16


def test_a_gpu_without_room_for_the_model_is_told_of_in_plain_words(tmp_path, monkeypatch):
    def full(*arguments, **settings):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    monkeypatch.setattr("groundup.training.stage.rows_in_pass", full)
    with pytest.raises(GroundupError, match="out: out of memory, and not in the passes"):
        train_on_rows(
            PretrainSection(steps=2, tokens_per_update=128), small(context_length=32), rows_of(tmp_path / "s").shards,
            out=tmp_path / "out", seed=1, hardware=CPU, fingerprint="f", should_stop=bool, validate=None, sample=None,
        )  # fmt: skip


def test_the_plan_says_what_is_recomputed(tmp_path):
    rows = rows_of(tmp_path / "shards")
    model = small(context_length=32)
    section = PretrainSection(steps=2, tokens_per_update=128, recomputed_blocks=2, validate_every=0)
    train_on_rows(
        section, model, rows.shards, out=tmp_path / "out", seed=1, hardware=CPU, fingerprint="f" * 64,
        should_stop=lambda: False, validate=None, sample=None,
    )  # fmt: skip
    assert read_json(tmp_path / "out" / "plan.json")["recomputed"] == 2
    assert model.model.recomputed == 2


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU: pytest tests/training/test_activations.py")
class TestOnAGpu:
    def test_micro_batches_are_the_rows(self, tmp_path):
        rows = rows_of(tmp_path).batch(range(7))
        parts = [{name: each.cpu() for name, each in part.items()} for part in micro_batches(rows, 3, "cuda")]
        whole = to_tensors(rows, "cpu")
        assert all(torch.equal(torch.cat([part[name] for part in parts]), whole[name]) for name in whole)

    def test_what_is_measured_is_what_is_allocated(self):
        model = small(layers=8, hidden_size=256, context_length=512).cuda()
        hardware = Hardware("cuda", "bf16", False, 1, {})
        found = footprint(model, 512, hardware)
        for recomputed in (0, 8):
            model.model.recomputed = recomputed
            ids = torch.ones(32, 512, dtype=torch.int64, device="cuda")
            before = torch.cuda.memory_allocated()
            with torch.autocast("cuda", torch.bfloat16):
                hidden = model(ids)
            kept = torch.cuda.memory_allocated() - before
            said = 32 * (found.least if recomputed else found.row)
            assert kept == pytest.approx(said, rel=0.15)
            del hidden

    def test_a_plan_fits(self, tmp_path):
        model = small(layers=8, hidden_size=256, context_length=512)
        section = PretrainSection(steps=1)
        rows, recomputed = rows_in_pass(section, model, 64, 512, Hardware("cuda", "bf16", False, 1, {}))
        assert rows in (32, 64)
        assert recomputed == 0
