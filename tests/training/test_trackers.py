"""Trackers: what they are sent, that none can stop training, and each library where it is installed."""

import contextlib
import importlib.util
import json
import struct
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from groundup.hardware import Hardware
from groundup.model import Architecture, Transformer, initialise
from groundup.recipe import PretrainSection, TrackingTable, parse_recipe
from groundup.run import Interrupted, UserError
from groundup.tokenizer import Loader, PackedRows, ShardWriter, TokenShards
from groundup.training import Job, NextToken, Plan, Tracking, prepare, read_journal, train
from groundup.training import trackers as module
from groundup.training.checkpoint import checkpoints
from groundup.training.trackers import IDENTITIES, KINDS, Trackers, flattened, require_trackers

CPU = Hardware("cpu", "fp32", False, 1, {})
ARCH = Architecture(
    vocabulary_size=32, layers=1, hidden_size=16, heads=2, kv_heads=1, head_dim=8, intermediate_size=24,
    context_length=16,
)  # fmt: skip
TIMES = ("seconds", "tokens_per_second", "data_wait", "gflops", "mfu", "mfu_palm", "peak_memory")


@pytest.fixture(autouse=True)
def one_thread():
    prepare(CPU)
    yield
    torch.use_deterministic_algorithms(False)


class Fake:
    """A store that outlives processes, as a server would: (name, id) to what it was sent, in order."""

    store: dict[str, list[tuple[int, dict[str, float]]]] = {}
    ends: list[str] = []
    begun: list[tuple[str, str | None, int]] = []
    breaks: set[str] = set()

    def __init__(self, tracking: Tracking, out: Path, id: str | None) -> None:
        self.id = id

    def begin(self, name: str, recipe: Mapping[str, Any], step: int) -> None:
        self._break("begin")
        self.begun.append((name, self.id, step))
        self.id = self.id or f"run{len(self.store)}"
        self.store.setdefault(self.id, [])

    def held(self, sent: Mapping[str, int]) -> Mapping[str, int]:
        return sent

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        self._break("log")
        self.store[self.id].append((step, dict(numbers)))

    def finish(self, status: str) -> None:
        self._break("finish")
        self.ends.append(status)

    def _break(self, where: str) -> None:
        if where in self.breaks:
            raise RuntimeError(f"{where} is out of order")


@pytest.fixture
def fake(monkeypatch) -> type[Fake]:
    class Fresh(Fake):
        store, ends, begun, breaks = {}, [], [], set()

    monkeypatch.setattr(module, "KINDS", {**KINDS, "mlflow": Fresh, "trackio": Fresh})
    monkeypatch.setattr(module, "require_trackers", lambda names: None)
    return Fresh


def tracking(run: Path, *names: str) -> Tracking:
    return Tracking(
        names, TrackingTable(), "toy", run, {"run": {"seed": 1}, "pretrain": {"steps": 12, "betas": [1, 2]}}
    )


def job(run: Path, *names: str, stop=lambda: False, steps=12, **section) -> Job:
    if not (run / "shards").exists():
        generator = np.random.default_rng(0)
        with ShardWriter(run / "shards", "uint16", pad_id=1) as writer:
            for _ in range(40):
                writer.add((np.arange(generator.integers(3, 30)) + generator.integers(32)) % 30 + 2)
    model = Transformer(ARCH)
    initialise(model, 1)
    rows = PackedRows(TokenShards(run / "shards"), 16, seed=3)
    settings = {"steps": steps, "checkpoint_every": 5, "log_every": 1, "validate_every": 5, **section}
    return Job(
        "pretrain", "pretrain", run / "pretrain", "f" * 64, model, NextToken(), Loader(rows, 4),
        PretrainSection(**settings), Plan("f" * 64, steps, 4, 4, 16), CPU, 1, stop,
        validate=lambda model: {"validation_loss": 1.5}, tracking=tracking(run, *names) if names else None,
    )  # fmt: skip


class Killed(BaseException):
    """Stands for SIGKILL: nothing of training or of a tracker gets to say goodbye."""


def killed_at(monkeypatch, work: Job, step: int) -> None:
    """Train until the line of ``step`` is in metrics.jsonl and with the trackers, and no further."""
    real = Trackers.log

    def log(self, record, names=None):
        real(self, record, names)
        if record["step"] == step:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Trackers, "log", log)
        patch.setattr(Trackers, "__exit__", lambda *_: None)
        with pytest.raises(Killed):
            train(work)


def lines(run: Path) -> dict[tuple[str, int], float]:
    """(key, step) to value of metrics.jsonl."""
    records = read_journal(run / "pretrain" / "metrics.jsonl")
    return {(key, r["step"]): value for r in records for key, value in r.items() if key != "step"}


def untimed(found: Mapping[tuple[str, int], float]) -> dict[tuple[str, int], float]:
    return {place: value for place, value in found.items() if place[0] not in TIMES}


def all_sent(fake: type[Fake], id: str = "run0") -> dict[tuple[str, int], float]:
    sent = [((key, step), value) for step, numbers in fake.store[id] for key, value in numbers.items()]
    assert len(sent) == len(dict(sent)), "something came twice"
    return dict(sent)


def test_every_line_goes_to_the_tracker(fake, tmp_path):
    train(job(tmp_path, "mlflow"))
    assert all_sent(fake) == lines(tmp_path)
    assert ("validation_loss", 10) in all_sent(fake)
    assert fake.begun == [("toy/pretrain", None, 0)]
    assert fake.ends == ["finished"]


def test_a_stop_and_a_resume_are_one_run(fake, tmp_path):
    calls = []
    with pytest.raises(Interrupted):
        train(job(tmp_path, "mlflow", stop=lambda: calls.append(0) or len(calls) >= 7))
    train(job(tmp_path, "mlflow"))
    assert fake.begun == [("toy/pretrain", None, 0), ("toy/pretrain", "run0", 7)]
    assert fake.ends == ["interrupted", "finished"]
    assert all_sent(fake) == lines(tmp_path)


def test_after_kills_nothing_comes_twice(fake, tmp_path, monkeypatch):
    """Checkpoints are at 5 and 10. The second process dies before it comes as far as the first had."""
    for step in (9, 7, 12):
        killed_at(monkeypatch, job(tmp_path, "mlflow"), step)
    train(job(tmp_path, "mlflow"))
    assert [step for _, _, step in fake.begun] == [0, 5, 5, 10]
    assert untimed(all_sent(fake)) == untimed(lines(tmp_path))
    assert fake.ends == ["finished"]


def test_a_kill_before_the_first_checkpoint(fake, tmp_path, monkeypatch):
    killed_at(monkeypatch, job(tmp_path, "mlflow"), 3)
    assert checkpoints(tmp_path / "pretrain" / "checkpoints") == []
    train(job(tmp_path, "mlflow"))
    assert untimed(all_sent(fake)) == untimed(lines(tmp_path))


def test_a_tracker_that_says_what_it_has_is_believed(fake, tmp_path, monkeypatch):
    """The lines of steps 8 and 9 were lost with the process that was killed."""

    def held(self, sent):
        self.store[self.id] = [(step, numbers) for step, numbers in self.store[self.id] if step < 8]
        return {key: step for step, numbers in self.store[self.id] for key in numbers}

    killed_at(monkeypatch, job(tmp_path, "mlflow"), 9)
    monkeypatch.setattr(fake, "held", held)
    train(job(tmp_path, "mlflow"))
    assert untimed(all_sent(fake)) == untimed(lines(tmp_path))


def test_a_tracker_that_comes_late_gets_what_there_is(fake, tmp_path):
    calls = []
    with pytest.raises(Interrupted):
        train(job(tmp_path, stop=lambda: calls.append(0) or len(calls) >= 7))
    train(job(tmp_path, "trackio", "mlflow"))
    assert all_sent(fake, "run0") == all_sent(fake, "run1") == lines(tmp_path)


@pytest.mark.parametrize("where", ["begin", "log", "finish"])
def test_a_tracker_that_fails_never_stops_training(fake, tmp_path, capsys, where):
    plain = job(tmp_path)
    train(plain)
    fake.breaks.add(where)
    work = job(tmp_path / "other", "mlflow")
    train(work)
    assert all(torch.equal(a, b) for a, b in zip(plain.model.parameters(), work.model.parameters(), strict=True))
    assert untimed(lines(tmp_path)) == untimed(lines(tmp_path / "other"))
    said = capsys.readouterr().err
    assert said.count("the tracker mlflow failed") == 1
    assert f"{where} is out of order" in said


def test_one_that_fails_leaves_the_others(tmp_path, monkeypatch, fake):
    class Broken(fake):
        store = fake.store
        breaks = {"log"}

    monkeypatch.setattr(module, "KINDS", {"mlflow": Broken, "trackio": fake})
    train(job(tmp_path, "mlflow", "trackio"))
    assert all_sent(fake, "run1") == lines(tmp_path)
    assert fake.store["run0"] == []


def test_a_failed_training_is_said_to_have_failed(fake, tmp_path):
    with pytest.raises(ZeroDivisionError):
        train(job(tmp_path, "mlflow", stop=lambda: 1 / 0))
    assert fake.ends == ["failed"]


def test_what_was_left_behind_may_be_spoilt(fake, tmp_path):
    (tmp_path / "pretrain").mkdir()
    (tmp_path / "pretrain" / IDENTITIES).write_text("{ spoilt")
    train(job(tmp_path, "mlflow"))
    assert all_sent(fake) == lines(tmp_path)
    assert json.loads((tmp_path / "pretrain" / IDENTITIES).read_text())["mlflow"]["id"] == "run0"


def test_a_missing_package_is_a_plain_error(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "mlflow" else object())
    require_trackers(["wandb", "tensorboard"])
    with pytest.raises(UserError, match=r"'mlflow'.*not installed") as caught:
        require_trackers(["wandb", "mlflow"])
    assert "pip install 'groundup[mlflow]'" in caught.value.mend
    assert caught.value.where == "[run] trackers"


def test_only_what_is_asked_for_is_imported():
    assert not {"wandb", "mlflow", "trackio", "tensorboard"} & sys.modules.keys() or any(
        importlib.util.find_spec(name) for name in KINDS
    )
    recipe = parse_recipe("[run]\ntrackers = ['wandb', 'trackio']\n[run.tracking]\nwandb_mode = 'online'\n")
    assert recipe.run.trackers == ("wandb", "trackio")
    assert recipe.run.tracking.wandb_mode == "online"
    assert parse_recipe("").run.tracking.wandb_mode == "offline"


def test_the_recipe_as_parameters():
    recipe = {"run": {"name": "a", "seed": 1}, "stages": {}, "corpus": None, "pretrain": {"betas": [0.9, 0.95]}}
    assert flattened(recipe) == [("run.name", "a"), ("run.seed", "1"), ("pretrain.betas", "[0.9, 0.95]")]


def interrupted_and_resumed(run: Path, name: str, monkeypatch) -> dict[tuple[str, int], float]:
    """A real training with a real tracker, killed once behind a checkpoint and once stopped; what metrics.jsonl has."""
    live = []
    begin = Trackers.begin.__func__
    monkeypatch.setattr(Trackers, "begin", classmethod(lambda cls, *args: live.append(begin(cls, *args)) or live[-1]))
    killed_at(monkeypatch, job(run, name), 8)
    with contextlib.suppress(Exception):  # its files are to be whole, as the library would leave them after a while
        live[-1].finish("failed")
    calls = []
    with pytest.raises(Interrupted):
        train(job(run, name, stop=lambda: calls.append(0) or len(calls) >= 2))
    train(job(run, name))
    return lines(run)


def compare(found: list[tuple[str, int, float]], wanted: Mapping[tuple[str, int], float]) -> None:
    assert len(found) == len({(key, step) for key, step, _ in found}), "something came twice"
    held = untimed({(key, step): value for key, step, value in found})
    assert held.keys() == untimed(wanted).keys()
    for place, value in held.items():
        assert value == pytest.approx(wanted[place], rel=1e-6), place


def test_tensorboard(tmp_path, monkeypatch):
    pytest.importorskip("tensorboard", reason="tensorboard is not installed: pip install 'groundup[tensorboard]'")
    wanted = interrupted_and_resumed(tmp_path, "tensorboard", monkeypatch)
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    reader = EventAccumulator(str(tmp_path / "pretrain" / "trackers" / "tensorboard"), {"scalars": 0})
    reader.Reload()
    compare([(key, e.step, e.value) for key in reader.Tags()["scalars"] for e in reader.Scalars(key)], wanted)
    assert "recipe/text_summary" in reader.Tags()["tensors"]


def test_mlflow(tmp_path, monkeypatch):
    pytest.importorskip("mlflow", reason="mlflow is not installed: pip install 'groundup[mlflow]'")
    wanted = interrupted_and_resumed(tmp_path, "mlflow", monkeypatch)
    from mlflow.tracking import MlflowClient

    client = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    (run,) = client.search_runs([client.get_experiment_by_name("groundup").experiment_id])
    assert (run.info.run_name, run.info.status) == ("toy/pretrain", "FINISHED")
    assert run.data.params == {"run.seed": "1", "pretrain.steps": "12", "pretrain.betas": "[1, 2]"}
    history = [(key, client.get_metric_history(run.info.run_id, key)) for key in run.data.metrics]
    compare([(key, each.step, each.value) for key, values in history for each in values], wanted)


def test_trackio(tmp_path, monkeypatch, capsys):
    pytest.importorskip("trackio", reason="trackio is not installed: pip install 'groundup[trackio]'")
    from trackio import utils
    from trackio.sqlite_storage import SQLiteStorage

    for owner in (utils, sys.modules["trackio.sqlite_storage"]):
        if hasattr(owner, "TRACKIO_DIR"):
            monkeypatch.setattr(owner, "TRACKIO_DIR", tmp_path / "trackio")
    wanted = interrupted_and_resumed(tmp_path, "trackio", monkeypatch)
    name = json.loads((tmp_path / "pretrain" / IDENTITIES).read_text())["trackio"]["id"]
    rows = SQLiteStorage.get_logs("groundup", name, max_points=None)
    assert (tmp_path / "trackio").exists()
    found = [
        (key, row["step"], value) for row in rows for key, value in row.items() if key not in ("step", "timestamp")
    ]
    compare(found, wanted)
    assert capsys.readouterr().out == ""


def wandb_histories(folder: Path) -> Iterator[tuple[str, int, float]]:
    """What an offline run has logged: a LevelDB log of protobuf messages behind a header of seven bytes."""
    from wandb.proto import wandb_internal_pb2

    for path in sorted(folder.glob("wandb/offline-run-*/*.wandb")):
        data, at, message = path.read_bytes(), 7, b""
        while at + 7 <= len(data):
            if 32768 - at % 32768 < 7:  # a block's rest too small for a header
                at += 32768 - at % 32768
                continue
            _, length, kind = struct.unpack("<IHB", data[at : at + 7])
            body, at = data[at + 7 : at + 7 + length], at + 7 + length
            message = body if kind in (1, 2) else message + body
            if kind not in (1, 4):
                continue
            record = wandb_internal_pb2.Record()
            record.ParseFromString(message)
            if record.WhichOneof("record_type") == "history":
                items = {i.key or "/".join(i.nested_key): json.loads(i.value_json) for i in record.history.item}
                step = items.pop("_step")
                yield from ((key, step, value) for key, value in items.items() if not key.startswith("_"))


def test_wandb(tmp_path, monkeypatch):
    pytest.importorskip("wandb", reason="wandb is not installed: pip install 'groundup[wandb]'")
    wanted = interrupted_and_resumed(tmp_path, "wandb", monkeypatch)
    found = list(wandb_histories(tmp_path / "pretrain" / "trackers"))
    compare(found, wanted)
    assert len(list((tmp_path / "pretrain" / "trackers" / "wandb").glob("offline-run-*"))) == 3
