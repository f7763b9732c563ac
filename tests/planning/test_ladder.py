"""The ladder: what is foretold is on the disk before it is trained, and a killed one reaches the same bits."""

import json
import math
import shutil
import sys
from collections import Counter

import pytest

from groundup.build.driver import _NOT_RESULTS
from groundup.hardware import Hardware
from groundup.interchange import load_model
from groundup.model import flops_per_token
from groundup.planning import Climb, fit_law, rung_seed, size_of, training_section
from groundup.recipe import Rung, TrackingTable
from groundup.run import Interrupted, UserError, read_json, sha256_file, write_manifest
from groundup.tokenizer import ShardWriter, Tokenizer, TokenShards
from groundup.training import Tracking, read_journal, validator

RUNGS = ("1x8", "1x8.seed2", "1x12", "1x16", "1x20", "last")


def weights(out):
    return {name: sha256_file(out / "rungs" / name / "final" / "model.safetensors") for name in RUNGS}


def without_times(content):
    """JSON content without what differs between equal runs: clocks."""
    if isinstance(content, dict):
        left_out = ("written", "seconds", "tokens_per_second")
        return {key: without_times(value) for key, value in content.items() if key not in left_out}
    return [without_times(each) for each in content] if isinstance(content, list) else content


def test_a_ladder_writes_its_rungs_and_its_law(whole, climb):
    out, metrics = whole
    found = read_json(out / "ladder.json")
    assert [rung["rung"] for rung in found["rungs"]] == ["1x8", "1x12", "1x16", "1x20", "last"]
    assert sorted(path.name for path in (out / "rungs").iterdir()) == sorted(RUNGS)
    assert [len(rung["bits_per_byte"]) for rung in found["rungs"]] == [2, 1, 1, 1, 1]
    assert [rung["prediction"] is not None for rung in found["rungs"]] == [False, False, False, True, True]
    compute = [rung["compute"] for rung in found["rungs"]]
    losses = [rung["bits_per_byte"] for rung in found["rungs"]]
    fit = fit_law(compute, losses)
    assert found["law"]["exponent"] == fit.law.exponent
    before = fit_law(compute[:-1], losses[:-1]).predict(compute[-1])
    prediction, outcome = found["rungs"][-1]["prediction"], found["rungs"][-1]["outcome"]
    assert (prediction["value"], prediction["low"], prediction["high"]) == (before.value, before.low, before.high)
    assert prediction["degrees"] == 2
    third = found["rungs"][3]
    assert (third["prediction"]["low"], third["outcome"]["inside"]) == (None, None)  # three rungs fit some law
    assert outcome["value"] == losses[-1][0] == metrics["bits_per_byte"]
    assert outcome["inside"] is (before.low <= losses[-1][0] <= before.high) is metrics["inside"]
    assert outcome["error"] == losses[-1][0] / before.value - 1
    assert prediction["written"] < outcome["written"]
    assert metrics["runs"] == 6
    assert metrics["tokens"] == sum(read_json(out / "rungs" / name / "result.json")["tokens"] for name in RUNGS)
    assert found["forecast"]["multiplying"] is not None  # [model] is larger than the last rung
    assert found["forecast"]["value"] == fit.predict(found["forecast"]["compute"]).value


def test_a_rung_is_trained_on_its_share_of_tokens_and_measured_on_all_the_validation_text(whole, climb):
    out, _ = whole
    result = read_json(out / "rungs" / "last" / "result.json")
    model = load_model(out / "rungs" / "last" / "final")
    arch = model.arch
    assert (arch.layers, arch.hidden_size, arch.context_length) == (2, 24, 64)
    matrices = sum(w.numel() for name, w in model.named_parameters() if w.ndim == 2 and ".layers." in name)
    assert result["multiplying"] == matrices + arch.vocabulary_size * arch.hidden_size
    wanted = 0.5 * result["multiplying"]
    assert wanted - 1 <= result["tokens"] <= wanted + 512
    assert result["compute"] == round(wanted) * flops_per_token(arch, 64)
    tool = Tokenizer.load(climb.run / "tokenizer")
    measure = validator(climb.run / "tokenizer" / "shards" / "validation", tool, 64, "cpu", tokens=4096)
    assert measure(model)["bits_per_byte"] == result["bits_per_byte"]
    rows = read_journal(out / "rungs" / "last" / "metrics.jsonl")
    assert max(row["step"] for row in rows) == result["steps"]
    assert math.ceil(wanted / 512) <= result["steps"] <= math.ceil(wanted / 512) + 1  # a little padding


def test_the_prediction_lies_there_before_the_rung_begins(climb, tmp_path, monkeypatch):
    module = sys.modules["groundup.planning.ladder"]  # the room's function has the same name
    plain, begun = module.train_on_rows, []

    def spied(*arguments, out, **others):
        folder = tmp_path / "ladder" / "rungs" / out.name
        files = {path.name for path in folder.iterdir()} if folder.exists() else set()
        begun.append((out.name, files))
        return plain(*arguments, out=out, **others)

    monkeypatch.setattr(module, "train_on_rows", spied)
    climb(tmp_path / "ladder")
    foretold = {"prediction.json"}
    assert begun == [*((name, set()) for name in RUNGS[:-2]), ("1x20", foretold), ("last", foretold)]


@pytest.mark.parametrize("stops", [(1,), (4, 2), (35, 30, 1)])
def test_a_stopped_ladder_reaches_the_same_bits(whole, climb, tmp_path, stops):
    """Stopped in the first rung, in later ones, and several times; the prediction stays as it was first written."""
    out = tmp_path / "ladder"
    written = set()
    for after in stops:
        calls = []
        with pytest.raises(Interrupted):
            climb(out, stop=lambda calls=calls, after=after: calls.append(0) or len(calls) > after)
        written |= {path.read_bytes() for path in out.glob("rungs/last/prediction.json")}
    climb(out)
    assert weights(out) == weights(whole[0])
    assert without_times(read_json(out / "ladder.json")) == without_times(read_json(whole[0] / "ladder.json"))
    assert len(written | {(out / "rungs/last/prediction.json").read_bytes()}) == 1


def test_a_death_between_training_and_the_outcome_changes_nothing(whole, climb, tmp_path, monkeypatch):
    """The last rung's result is lost after its training: it is measured again, and the prediction is not."""
    module = sys.modules["groundup.planning.ladder"]
    out = tmp_path / "ladder"

    compare = module.Climb.compare

    def dies(self, size, prediction):
        if size.name == "last":
            raise KeyboardInterrupt
        compare(self, size, prediction)

    monkeypatch.setattr(module.Climb, "compare", dies)
    with pytest.raises(KeyboardInterrupt):
        climb(out)
    monkeypatch.undo()
    prediction = (out / "rungs/last/prediction.json").read_bytes()
    (out / "rungs/last/result.json").unlink()
    climb(out)
    assert (out / "rungs/last/prediction.json").read_bytes() == prediction
    assert weights(out) == weights(whole[0])
    assert without_times(read_json(out / "ladder.json")) == without_times(read_json(whole[0] / "ladder.json"))


def test_nothing_is_foretold_of_a_rung_that_has_begun(climb, tmp_path):
    out = tmp_path / "ladder"
    climb(out)
    (out / "rungs/last/prediction.json").unlink()
    with pytest.raises(UserError, match="rung 'last' has begun, and what was foretold of it is gone"):
        climb(out)
    shutil.rmtree(out / "rungs/last")
    climb(out)
    assert (out / "rungs/last/prediction.json").exists()


def test_another_ladders_files_are_not_taken_for_this_ones(climb, whole, tmp_path):
    out = tmp_path / "ladder"
    climb(out)
    path = out / "rungs" / "1x12" / "result.json"
    path.write_text(json.dumps({**read_json(path), "bits_per_byte": 0.1, "fingerprint": "e" * 64}))
    climb(out)
    assert read_json(path)["bits_per_byte"] == read_json(whole[0] / "rungs/1x12/result.json")["bits_per_byte"]


def test_too_little_text_is_said_before_anything_is_trained(climb, tmp_path):
    with pytest.raises(UserError) as caught:
        climb(tmp_path / "ladder", tokens_per_parameter=500.0)
    said = str(caught.value)
    for part in ("rung 'last' reads", "tokens (500 for each of", "[ladder] rungs", "lower tokens_per_parameter"):
        assert part in said
    assert not (tmp_path / "ladder").exists()


def test_a_rung_whose_updates_grow_reads_its_tokens_too(climb, tmp_path):
    """And what is too much for the corpus is the same with a ramp and without one."""
    ramp = [{"until": 0.5, "tokens_per_update": 128}]
    section = climb.recipe.ladder.model_validate({**climb.recipe.ladder.model_dump(), "batch_ramp": ramp})
    cpu = Hardware("cpu", "fp32", False, 1, {})
    made = Climb(section, climb.recipe.model, climb.run, tmp_path, 3, cpu, "f" * 64, bool)
    found = made.train(made.sizes[0], 0)
    assert made.sizes[0].tokens <= found["tokens"] < made.sizes[0].tokens + 2 * 512
    steps = made.sizes[0].tokens / (0.5 * 512 + 0.5 * 128)
    assert steps <= found["steps"] < 1.1 * steps + 2
    with pytest.raises(UserError, match="batch_ramp: 96 tokens must be whole rows of 64") as caught:
        climb(tmp_path / "ladder", batch_ramp=[{"until": 0.5, "tokens_per_update": 96}])
    assert caught.value.where == "[ladder]"

    run = tmp_path / "run"  # whose text may be read once
    shutil.copytree(climb.run / "tokenizer", run / "tokenizer")
    index = run / "tokenizer" / "shards" / "train" / "index.json"
    content = json.loads(index.read_text())
    content["sources"][0]["epochs"] = 1
    index.write_text(json.dumps(content))
    tokens = 1.3 * TokenShards(index.parent).tokens / made.sizes[-1].multiplying
    said = []
    for changes in ({}, {"batch_ramp": ramp}):
        with pytest.raises(UserError, match="rung 'last' reads") as caught:
            type(climb)(run, climb.recipe)(tmp_path / "ladder", tokens_per_parameter=tokens, **changes)
        said.append(caught.value)
    # Of the last update there may be less than is counted, and the ramp's last one is another.
    most = [int(each.expected.split()[0].replace(",", "")) for each in said]
    assert most[0] == pytest.approx(most[1], abs=512)
    assert said[0].what == said[1].what
    assert not (tmp_path / "ladder").exists()


def test_each_run_of_a_rung_is_one_of_its_own_to_a_tracker(climb, tmp_path, monkeypatch):
    begun, lines, ended = [], Counter(), []

    class Fake:
        def __init__(self, tracking, out, id):
            self.id, self.out = id, out.name

        def begin(self, name, recipe, step):
            self.id = name
            begun.append(name)

        def held(self, sent):
            return sent

        def log(self, step, numbers):
            lines[self.out] += 1

        def finish(self, status):
            ended.append(status)

    monkeypatch.setattr("groundup.training.trackers.KINDS", {"mlflow": Fake})
    monkeypatch.setattr("groundup.training.trackers.require_trackers", lambda names: None)
    climb(tmp_path / "ladder", tracking=Tracking(("mlflow",), TrackingTable(), "small", tmp_path, {}))
    assert begun == [f"small/ladder/rungs/{name}" for name in RUNGS]
    assert ended == ["finished"] * len(RUNGS)
    for name in RUNGS:
        assert lines[name] == len(read_journal(tmp_path / "ladder" / "rungs" / name / "metrics.jsonl"))
    manifest = write_manifest(
        tmp_path / "ladder",
        stage="l",
        kind="ladder",
        fingerprint="f",
        inputs={},
        metrics={},
        started="",
        exclude=_NOT_RESULTS,
    )
    assert (tmp_path / "ladder" / "rungs" / "last" / ".trackers.json").exists()
    assert not any("trackers" in name or "checkpoints" in name for name in manifest.files)
    assert "rungs/last/result.json" in manifest.files


def test_no_text_to_measure_on_is_said_before_anything_is_trained(climb, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(climb.run / "tokenizer", run / "tokenizer")
    shutil.rmtree(run / "tokenizer" / "shards" / "validation")
    with ShardWriter(run / "tokenizer" / "shards" / "validation", "uint16", pad_id=1):
        pass
    with pytest.raises(UserError, match="no validation text"):
        type(climb)(run, climb.recipe)(tmp_path / "ladder")
    assert not (tmp_path / "ladder").exists()


def test_rungs_that_do_not_grow_are_refused(climb, tmp_path):
    shapes = [{"layers": 1, "hidden_size": width} for width in (8, 16, 12, 24, 32)]
    with pytest.raises(UserError, match="rung '1x12' takes .* no more than '1x16' before it"):
        climb(tmp_path / "ladder", rungs=shapes)


def test_an_optimizer_of_its_own_and_seeds(climb):
    rungs = [
        *({"layers": 1, "hidden_size": width} for width in (8, 12, 16, 20)),
        {"layers": 1, "hidden_size": 24, "optimizer": {"muon_lr": 0.5}},
    ]
    section = climb.recipe.ladder.model_validate({**climb.recipe.ladder.model_dump(), "rungs": rungs})
    made = Climb(section, climb.recipe.model, climb.run, climb.run / "none", 3, None, "f" * 64, bool)
    sections = [training_section(made.section, size) for size in made.sizes]
    assert [each.optimizer.muon_lr for each in sections] == [0.02, 0.02, 0.02, 0.02, 0.5]
    assert [each.tokens for each in sections] == [size.tokens for size in made.sizes]
    assert sections[0].tokens_per_update == 512
    assert rung_seed(3, 0) == 3
    assert len({rung_seed(seed, number) for seed in range(50) for number in range(4)}) == 200


def test_parameters_are_those_that_multiply(climb):
    """The head counts, tied or not, and an embedding that is looked up does not."""
    section, model = climb.recipe.ladder, climb.recipe.model
    rung = Rung(layers=1, hidden_size=16)
    tied = size_of(section, model, rung, 512)
    untied = size_of(section, model.model_copy(update={"tied_embeddings": False}), rung, 512)
    assert tied.multiplying == untied.multiplying == 512 * 16 + 4 * 16 * 16 + 3 * 16 * 64
    assert tied.tokens == round(0.5 * tied.multiplying)
