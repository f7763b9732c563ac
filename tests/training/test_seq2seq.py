"""The driver of translation: resume to the bit, one gradient for any batches, what it writes, what it refuses."""

import dataclasses
import json
import math
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from groundup.hardware import Hardware
from groundup.inference import Translator
from groundup.model import EncoderDecoder, EncoderDecoderArchitecture, initialise_encoder_decoder
from groundup.recipe import EncoderDecoderShape, ScheduleTable, Seq2SeqSection
from groundup.run import Interrupted, UserError, sha256_file
from groundup.storyworld import translation_validation
from groundup.training import lr_factor, prepare, read_journal, seq2seq
from groundup.training.budget import Plan
from groundup.training.loop import Job, Trainer
from groundup.training.sentence_pairs import PairRows, SentencePairs, read_pairs
from groundup.training.seq2seq import TranslationObjective, encode_pairs, learn_vocabularies, with_rates
from groundup.training.stage import measure_updates

CPU = Hardware("cpu", "fp32", False, 1, {})
SHAPE = EncoderDecoderShape(layers=1, hidden_size=16, heads=2, intermediate_size=32, dropout=0.2)


@pytest.fixture(autouse=True)
def one_thread():
    prepare(CPU)
    yield
    torch.use_deterministic_algorithms(False)


def section(**changes) -> Seq2SeqSection:
    values = {
        "steps": 8,
        "model": SHAPE,
        "data": ({"path": "builtin:translation", "count": 64},),
        "pairs_per_update": 8,
        "checkpoint_every": 2,
        "validate_every": 4,
        "sample_every": 4,
        "log_every": 1,
        "tests": 4,
        "validation_fraction": 0.0,
    }
    if {"epochs", "tokens", "minutes"} & changes.keys():
        del values["steps"]
    return Seq2SeqSection(**(values | changes))


def run(section: Seq2SeqSection, out, seed: int = 1, stop=lambda: False):
    return seq2seq(section, out=out, seed=seed, hardware=CPU, fingerprint="f" * 64, should_stop=stop)


def test_killed_at_any_step_it_reaches_the_same_bits(tmp_path):
    """With dropout, which is drawn for each update from the seed and its number."""
    metrics = run(section(), tmp_path / "whole" / "seq2seq")
    calls = 0

    def stop() -> bool:
        nonlocal calls
        calls += 1
        torch.rand(7)  # whatever else draws in this process
        return calls % 3 == 0

    for _ in range(2):
        with pytest.raises(Interrupted):
            run(section(), tmp_path / "parts" / "seq2seq", stop=stop)
    resumed = run(section(), tmp_path / "parts" / "seq2seq", stop=stop)
    for name in ("final/model.safetensors", "final/vocabulary.json", "translations.jsonl", "results.json"):
        whole, parts = (tmp_path / part / "seq2seq" / name for part in ("whole", "parts"))
        assert sha256_file(whole) == sha256_file(parts), name
    assert resumed["loss"] == metrics["loss"]
    journals = [read_journal(tmp_path / part / "seq2seq" / "metrics.jsonl") for part in ("whole", "parts")]
    assert [each.get("loss") for each in journals[0]] == [each.get("loss") for each in journals[1]]


def test_what_it_writes(tmp_path):
    out = tmp_path / "seq2seq"
    metrics = run(section(), out)
    results = json.loads((out / "results.json").read_text())
    assert list(results) == ["seq2seq", "baseline_bag_of_words", "baseline_word_for_word"]
    for split in ("iid", "unseen_combinations", "longer"):
        leaf = results["seq2seq"]["translation"][split]
        assert set(leaf) == {"value", "low", "high", "n", "metric"}
        assert leaf["n"] == 4
        assert metrics[f"exact_match_{split}"] == leaf["value"]
    records = [json.loads(line) for line in (out / "translations.jsonl").read_text().splitlines()]
    assert len(records) == 12
    translator = Translator.load(out / "final")
    said = translator.translate([record["source"] for record in records])
    assert [best[0].text for best in said] == [record["translation"] for record in records]
    samples = read_journal(out / "samples.jsonl")
    assert [sample["step"] for sample in samples] == [4, 4, 4, 8, 8, 8]
    assert not {sample["prompt"] for sample in samples} & {record["source"] for record in records}
    validated = [each for each in read_journal(out / "metrics.jsonl") if "validation_loss" in each]
    assert [each["step"] for each in validated] == [4, 8]
    assert 0 < validated[-1]["validation_loss"] < math.log(400)
    assert metrics["validation_loss"] == validated[-1]["validation_loss"]


def test_it_is_validated_with_the_pairs_for_that_and_not_with_a_test(tmp_path, monkeypatch):
    shown = []
    module = sys.modules["groundup.training.seq2seq"]
    monkeypatch.setattr(module, "validator", lambda translator, pairs: shown.extend(pairs))
    run(section(), tmp_path / "seq2seq")
    assert [pair.source for pair in shown] == [pair.source for pair in translation_validation(1, 200)]
    records = [json.loads(line) for line in (tmp_path / "seq2seq" / "translations.jsonl").read_text().splitlines()]
    assert not {pair.source for pair in shown} & {record["source"] for record in records}


@pytest.fixture
def learnable(tmp_path) -> Path:
    """35 pairs of two words, which change places."""
    path = tmp_path / "pairs.tsv"
    path.write_text("".join(f"a{i % 5} b{i % 7}\ty{i % 7} x{i % 5}\n" for i in range(35)))
    return path


def test_it_learns_the_pairs_of_a_user_and_says_which_are_right(learnable, tmp_path):
    pairs = [tuple(line.split("\t")) for line in learnable.read_text().splitlines()]
    out = tmp_path / "mine"
    quick = {"peak_lr": "given", "schedule": {"kind": "wsd", "warmup_fraction": 0.1, "cooldown_fraction": 0.5},
             "optimizer": {"adamw_lr": 0.01, "embedding_lr": 0.01}, "validate_every": 0, "checkpoint_every": 0,
             "model": SHAPE.model_copy(update={"dropout": 0.0, "hidden_size": 32}), "label_smoothing": 0.0}  # fmt: skip
    settings = {"data": (str(learnable),), "held_out_fraction": 0.15, "pairs_per_update": 16, "tests": 100}
    metrics = run(section(steps=100, **settings, **quick), out)
    records = [json.loads(line) for line in (out / "translations.jsonl").read_text().splitlines()]
    assert records
    for record in records:
        assert record["right"] == (record["translation"] == record["target"])
        assert (record["source"], record["target"]) in pairs
    assert metrics["exact_match_held_out"] == sum(record["right"] for record in records) / len(records)
    assert metrics["pairs"] == 35 - len(records)
    learnt = [pair for pair in pairs if pair[0] not in {record["source"] for record in records}]
    said = Translator.load(out / "final").translate([source for source, _ in learnt])
    assert [best[0].text for best in said] == [target for _, target in learnt]


def test_micro_batches_do_not_change_the_gradient(tmp_path):
    data = read_pairs(section(), 1)
    source, target = learn_vocabularies(section(), data.training)
    pairs, _ = encode_pairs(data.training, source, target, 64)
    arch = EncoderDecoderArchitecture.from_section(SHAPE.model_copy(update={"dropout": 0.0}), len(source), len(target))
    rows = SentencePairs(pairs, 12, 1)
    found = []
    for micro in (1, 3, 12):
        model = EncoderDecoder(arch)
        initialise_encoder_decoder(model, 1)
        plan = Plan("f", 8, 12, micro, rows.update(0).length)
        job = Job("t", "seq2seq", tmp_path / str(micro), "f", model, TranslationObjective(0.1), rows, section(), plan,
                  CPU, 1, lambda: False)  # fmt: skip
        trainer = Trainer(job)
        loss, means = trainer.gradients(rows.update(0))
        assert 0 <= means["accuracy"] <= 1
        found.append((loss, torch.cat([weight.grad.flatten() for weight in model.parameters()])))
        assert trainer.flops(rows.update(0)) > 6 * rows.update(0).tokens * 1000
    for loss, gradient in found[1:]:
        assert loss == pytest.approx(found[0][0], rel=1e-5)
        assert torch.allclose(gradient, found[0][1], rtol=1e-3, atol=1e-6)


def test_the_rate_is_that_of_the_paper():
    """lr = D^-0.5 · min(n^-0.5, n · w^-1.5) (Vaswani et al. 2017, eq. 3)."""
    steps, width, warmup = 1000, 16, 150
    rates = with_rates(
        section(schedule={"warmup_fraction": 0.15}),
        EncoderDecoderArchitecture.from_section(SHAPE, 9, 9),
        steps,
    )
    table, peak = rates.schedule, rates.optimizer.adamw_lr
    assert peak == rates.optimizer.embedding_lr
    for step in (0, 1, 74, 148, 149, 150, 500, 999):
        number = step + 1
        expected = width**-0.5 * min(number**-0.5, number * warmup**-1.5)
        assert peak * lr_factor(step, steps, table) == pytest.approx(expected, rel=1e-12)
    given = section(peak_lr="given", schedule={"kind": "wsd"})
    assert with_rates(given, EncoderDecoderArchitecture.from_section(SHAPE, 9, 9), steps) is given


def test_the_inverse_root_cools_down_where_asked():
    table = ScheduleTable(kind="inverse_sqrt", warmup_fraction=0.1, cooldown_fraction=0.5, final_lr_fraction=0.2)
    plain = ScheduleTable(kind="inverse_sqrt", warmup_fraction=0.1, cooldown_fraction=0.0)
    for step in (0, 5, 9, 20, 49):
        assert lr_factor(step, 100, table) == lr_factor(step, 100, plain)
    assert lr_factor(75, 100, table) == pytest.approx(math.sqrt(10 / 76) * (0.2 + 0.8 * 0.5))
    assert lr_factor(0, 100, ScheduleTable(kind="inverse_sqrt", warmup_fraction=0.0, cooldown_fraction=0.0)) == 1.0


BARE = {"held_out_fraction": 1e-12, "validate_every": 0, "sample_every": 0, "checkpoint_every": 0}


@pytest.mark.parametrize("budget", [{"epochs": 1.5}, {"tokens": 500}])
def test_budgets_become_steps(budget, learnable, tmp_path):
    """35 pairs of 6 words and marks, 8 an update."""
    run(section(**budget, **BARE, data=(str(learnable),)), tmp_path / "out")
    plan = json.loads((tmp_path / "out" / "plan.json").read_text())
    assert plan["steps"] == (7 if "epochs" in budget else 11)  # 1.5 · 35 / 8 and 500 / 48, rounded up
    assert read_journal(tmp_path / "out" / "metrics.jsonl")[-1]["tokens"] == 48 * plan["steps"]


def test_a_budget_of_minutes_is_measured_and_leaves_no_trace(learnable, tmp_path, monkeypatch):
    measured = []

    def slowly(job, phases, available):
        measured.append(measure_updates(job, phases, available))
        return 1.0, 3.0  # so that the machine of the test doesn't matter

    module = sys.modules["groundup.training.seq2seq"]  # the room's function has the same name
    monkeypatch.setattr(module, "measure_updates", slowly)
    for name, budget in (("minutes", {"minutes": 0.25}), ("steps", {"steps": 12})):
        run(section(**budget, **BARE, data=(str(learnable),)), tmp_path / name / "out")
    assert measured[0][0] > 0
    assert not (tmp_path / "minutes" / "out" / ".probe").exists()
    ends = [sha256_file(tmp_path / name / "out" / "final" / "model.safetensors") for name in ("minutes", "steps")]
    assert ends[0] == ends[1]


def test_the_seed_changes_the_weights_and_nothing_held_out_is_no_error(learnable, tmp_path):
    weights = []
    for seed in (1, 2):
        metrics = run(section(steps=1, **BARE, data=(str(learnable),)), tmp_path / str(seed), seed=seed)
        assert not [name for name in metrics if name.startswith("exact_match")]
        assert json.loads((tmp_path / str(seed) / "results.json").read_text()) == {}
        weights.append(sha256_file(tmp_path / str(seed) / "final" / "model.safetensors"))
    assert weights[0] != weights[1]


def test_embeddings_apart_have_vocabularies_apart():
    data = read_pairs(section(), 1)
    shared = learn_vocabularies(section(), data.training)
    assert shared[0] is shared[1]
    apart = learn_vocabularies(section(model=SHAPE.model_copy(update={"embeddings": "tied"})), data.training)
    assert not set(apart[0].known) & set(apart[1].known) - {"."}
    assert set(shared[0].known) == set(apart[0].known) | set(apart[1].known)


def test_pairs_too_long_are_left_out_and_counted(tmp_path):
    out = tmp_path / "seq2seq"
    short = SHAPE.model_copy(update={"context_length": 10})
    metrics = run(section(model=short), out)
    assert metrics["pairs"] + metrics["pairs_too_long"] == 64
    assert metrics["pairs_too_long"] > 0
    records = [json.loads(line) for line in (out / "translations.jsonl").read_text().splitlines()]
    longer = [record for record in records if record["split"] == "longer"]
    assert [record["translation"] for record in longer] == [""] * 4  # none fits, so all are wrong
    assert metrics["exact_match_longer"] == 0
    with pytest.raises(UserError, match="no sentence pair fits 4 places"):
        run(section(sequence_length=4), tmp_path / "none")


def test_a_section_that_contradicts_itself_is_refused():
    with pytest.raises(ValueError, match='peak_lr = "paper" needs'):
        section(schedule={"kind": "wsd"})
    with pytest.raises(ValueError, match="is a rate of Adam"):
        section(optimizer={"muon_lr": 0.02})
    assert section(peak_lr="given", schedule={"kind": "wsd"}, optimizer={"muon_lr": 0.02}).optimizer.betas == (
        0.9,
        0.98,
    )


def test_rows_of_an_update_are_sorted_so_that_slices_have_little_padding():
    data = read_pairs(section(), 1)
    source, target = learn_vocabularies(section(), data.training)
    pairs, _ = encode_pairs(data.training, source, target, 64)
    rows = SentencePairs(pairs, 32, 1).update(0)
    lengths = (rows.sources != 0).sum(1)
    assert all(lengths[:-1] >= lengths[1:])
    parts = [rows.slice(start, start + 8) for start in range(0, 32, 8)]
    assert sum(part.sources.size for part in parts) < rows.sources.size
    assert sum(part.tokens for part in parts) == rows.tokens
    assert isinstance(parts[0], PairRows)
    assert {field.name for field in dataclasses.fields(rows)} == {"sources", "inputs", "targets"}


@pytest.mark.parametrize(("begin", "dropout"), [(0, 0.2), (7, 0.0)])
def test_it_goes_on_with_half_the_micro_batch(tmp_path, monkeypatch, begin, dropout):
    """Updates differ in their lengths, and passes hold as many places: half of them for all. From the first update on
    it is the run that had the smaller micro-batch all along, to the bit, dropout included."""
    longest, passes, loss = 16, [], TranslationObjective.loss
    shape = SHAPE.model_copy(update={"context_length": longest, "dropout": dropout})
    # Where gradients are nearly nothing, Adam makes steps of rounding; its epsilon is to hide that here.
    rates = {"adamw_lr": 1e-3, "embedding_lr": 1e-3, "epsilon": 1e-3}
    settings = {"pairs_per_update": 16, "model": shape, "peak_lr": "given", "optimizer": rates}

    def hungry(self, model, batch):
        passes.append(len(batch["sources"]) * max(batch["sources"].shape[1], batch["inputs"].shape[1]))
        if len(passes) > begin and passes[-1] > 4 * longest:
            torch.empty(1 << 60)
        return loss(self, model, batch)

    small = run(section(micro_batch=4, **settings), tmp_path / "small" / "seq2seq")
    monkeypatch.setattr(TranslationObjective, "loss", hungry)
    metrics = run(section(micro_batch=8, **settings), tmp_path / "hungry" / "seq2seq")
    assert max(passes[-4:]) <= 4 * longest < max(passes)
    plan = json.loads((tmp_path / "hungry" / "seq2seq" / "plan.json").read_text())
    (halved,) = plan["halved_at"]
    assert (plan["micro_rows"], small["micro_rows"], metrics["micro_rows"]) == (8, 4, 4)
    assert halved == begin // 2  # two passes an update: the second of the fourth one fails
    lines = [read_journal(tmp_path / name / "seq2seq" / "metrics.jsonl") for name in ("small", "hungry")]
    assert [line["tokens"] for line in lines[0]] == [line["tokens"] for line in lines[1]]
    assert [line["micro_rows"] for line in lines[1] if "loss" in line] == [8] * halved + [4] * (8 - halved)
    assert lines[0][0]["loss"] > 1.002 * small["loss"]  # it learns: equal weights are not those of the beginning
    weights = [load_file(tmp_path / name / "seq2seq" / "final" / "model.safetensors") for name in ("small", "hungry")]
    for name, weight in weights[0].items():
        assert torch.allclose(weights[1][name], weight, rtol=1e-4, atol=1e-6), name
        assert begin or torch.equal(weights[1][name], weight), name
