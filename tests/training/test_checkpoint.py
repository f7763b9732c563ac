"""Checkpoints: whole or absent, damage found and passed over, at least two kept, memory taken once."""

import errno
import json
import os
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from groundup.run import GroundupError, atomic, read_manifest
from groundup.training import checkpoint, prepare, read_journal, train
from groundup.training.checkpoint import MODEL, OPTIMIZER, TRAINER, Buffers, Snapshot, Writer, checkpoints, newest_sound

DRIVER = Path(__file__).with_name("reliable.py")
MADE = runpy.run_path(str(DRIVER))
make_job, weights = MADE["make_job"], MADE["weights"]
IDENTITY = {"stage": "s", "kind": "pretrain", "fingerprint": "f"}
PATIENCE = 1800


@pytest.fixture(autouse=True)
def deterministic():
    prepare(make_job.__globals__["Hardware"]("cpu", "fp32", False, 1, {}))
    yield
    torch.use_deterministic_algorithms(False)


def snapshot(step: int) -> Snapshot:
    return Snapshot(step, {"w": torch.full((3,), float(step))}, {"m": torch.ones(2)}, {"guard": {}})


def saved(root: Path, *steps: int) -> list[Path]:
    return [checkpoint.write(root, snapshot(step), **IDENTITY) for step in steps]


def truncated(directory: Path) -> None:
    content = (directory / MODEL).read_bytes()
    (directory / MODEL).write_bytes(content[: len(content) // 2])


def flipped(directory: Path, name: str = OPTIMIZER, at: int = -1) -> None:
    content = bytearray((directory / name).read_bytes())
    content[at] ^= 0x20
    (directory / name).write_bytes(bytes(content))


def no_json(directory: Path) -> None:
    path = directory / "manifest.json"
    path.write_bytes(path.read_bytes()[:40])


def rewritten(directory: Path, change) -> None:
    path = directory / "manifest.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


DAMAGES = {
    "a truncated file": (truncated, "bytes, the manifest says"),
    "an empty file": (lambda d: (d / MODEL).write_bytes(b""), "bytes, the manifest says"),
    "a flipped byte": (flipped, "differs from its checksum"),
    "a flipped byte of the counters": (lambda d: flipped(d, TRAINER, 30), "differs from its checksum"),
    "a missing file": (lambda d: (d / TRAINER).unlink(), "missing"),
    "a missing folder": (lambda d: shutil.rmtree(d / "optimizer"), "missing"),
    "no manifest": (lambda d: (d / "manifest.json").unlink(), "no readable manifest"),
    "a truncated manifest": (no_json, "no readable manifest"),
    "a manifest that is no text": (lambda d: (d / "manifest.json").write_bytes(b"\xff\x00"), "no readable manifest"),
    "a manifest that is a list": (lambda d: (d / "manifest.json").write_text("[]"), "no readable manifest"),
    "a manifest of no files": (lambda d: rewritten(d, lambda m: m.update(files={})), "the manifest lacks"),
    "a manifest of nonsense": (lambda d: rewritten(d, lambda m: m.update(files=3)), "can't be verified"),
    "a manifest without sizes": (lambda d: rewritten(d, lambda m: m["files"][MODEL].pop("bytes")), "can't be verified"),
    "an empty directory": (lambda d: (shutil.rmtree(d), d.mkdir()), "no readable manifest"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_named_and_the_one_before_is_taken(tmp_path, capsys, damage):
    harm, said = DAMAGES[damage]
    saved(tmp_path, 3, 6, 9)
    harm(tmp_path / "step-00000009")
    found = newest_sound(tmp_path, "f")
    assert found.step == 6
    assert found.model["w"].tolist() == [6, 6, 6]
    errors = capsys.readouterr().err
    assert "step-00000009 is passed over" in errors
    assert said in errors
    assert [path.name for path in checkpoints(tmp_path)] == ["step-00000003", "step-00000006"]
    assert (tmp_path / "aside-step-00000009").is_dir()


@pytest.mark.parametrize("name", ["manifest.json", TRAINER])
def test_no_flipped_byte_whatsoever_is_a_traceback(tmp_path, name):
    """Each byte in turn: the same snapshot comes back, or the one before."""
    saved(tmp_path / "root", 1, 2)
    whole = tmp_path / "root" / "step-00000002"
    size = (whole / name).stat().st_size
    shutil.copytree(whole, tmp_path / "kept")
    steps = []
    for at in range(0, size, 3):
        flipped(whole, name, at)
        steps.append(newest_sound(tmp_path / "root", "f").step)
        shutil.rmtree(whole, ignore_errors=True)
        shutil.copytree(tmp_path / "kept", whole)
    assert set(steps) <= {1, 2}
    assert steps.count(1) > (0.2 if name == "manifest.json" else 0.99) * len(steps)


def test_without_a_sound_one_training_begins_anew_and_says_so(tmp_path, capsys):
    whole = make_job(tmp_path / "whole")
    train(whole)
    train(make_job(tmp_path / "a"))
    for path in checkpoints(tmp_path / "a" / "checkpoints"):
        truncated(path)
    capsys.readouterr()
    again = make_job(tmp_path / "a")
    train(again)
    errors = capsys.readouterr().err
    assert errors.count("is passed over") == 2
    assert "training begins anew" in errors
    assert all(torch.equal(w, weights(whole.model)[name]) for name, w in weights(again.model).items())
    assert MADE["timeless"](tmp_path / "a") == MADE["timeless"](tmp_path / "whole")


def test_damaged_ones_are_not_counted_among_those_kept(tmp_path):
    """Three checkpoints ahead are damaged; after the next two are saved, those are the two that are left."""
    saved(tmp_path, 3, 6, 9, 12)
    for step in (6, 9, 12):
        truncated(tmp_path / f"step-{step:08d}")
    assert newest_sound(tmp_path, "f").step == 3
    writer = Writer(tmp_path, **IDENTITY, keep=2)
    writer.save(lambda: snapshot(4))
    writer.wait()
    assert [path.name for path in checkpoints(tmp_path)] == ["step-00000003", "step-00000004"]
    writer.save(lambda: snapshot(5))
    writer.close()
    assert [path.name for path in checkpoints(tmp_path)] == ["step-00000004", "step-00000005"]


def test_halves_of_killed_writers_are_removed(tmp_path):
    saved(tmp_path, 3)
    (tmp_path / ".step-00000006.partial").mkdir()
    (tmp_path / ".step-00000006.partial" / MODEL).write_bytes(b"half")
    assert newest_sound(tmp_path, "f").step == 3
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000003"]


def test_all_is_on_the_disk_before_the_name_and_the_manifest_is_last(tmp_path, monkeypatch):
    """A power failure keeps what was synced: each file and folder, then the new name, then the folder it is in."""
    done = []
    sync, replace = atomic.sync, os.replace

    def noted_sync(path):
        done.append(("sync", Path(path).name))
        sync(path)

    def noted_replace(source, target):
        done.append(("name", Path(target).name))
        replace(source, target)

    monkeypatch.setattr(atomic, "sync", noted_sync)
    monkeypatch.setattr(os, "replace", noted_replace)
    saved(tmp_path, 3)
    monkeypatch.undo()
    named = done.index(("name", "step-00000003"))
    for name in ("model.safetensors", "state.safetensors", "trainer.json", "manifest.json", "optimizer"):
        assert ("sync", name) in done[:named]
    assert done[named - 1] == ("sync", ".step-00000003.partial")
    assert done[named + 1 :] == [("sync", tmp_path.name)]
    assert [name for what, name in done[:named] if what == "name"] == ["trainer.json", "manifest.json"]


def test_the_manifest_goes_first_when_a_checkpoint_is_removed(tmp_path, monkeypatch):
    saved(tmp_path, 3, 6, 9)
    monkeypatch.setattr(shutil, "rmtree", lambda path: (_ for _ in ()).throw(KeyboardInterrupt))  # killed just then
    with pytest.raises(KeyboardInterrupt):
        checkpoint.retain(tmp_path, 2)
    monkeypatch.undo()
    assert read_manifest(tmp_path / "step-00000003") is None
    assert (tmp_path / "step-00000003" / MODEL).exists()


def test_buffers_are_allocated_once_and_hold_copies():
    buffers = Buffers()
    tied = torch.arange(6.0).reshape(2, 3)
    tensors = {"a": tied, "b": tied, "t": tied.T, "step": torch.tensor(4.0)}
    first = buffers.copies(tensors)
    addresses = {name: tensor.data_ptr() for name, tensor in first.items()}
    assert len(set(addresses.values())) == 4
    assert all(tensor.is_contiguous() for tensor in first.values())
    tied += 1
    assert first["a"][0, 0] == 0
    second = buffers.copies(tensors)
    assert {name: tensor.data_ptr() for name, tensor in second.items()} == addresses
    assert torch.equal(second["t"], tied.T)
    assert buffers.copies({"a": torch.ones(4)})["a"].tolist() == [1, 1, 1, 1]


def test_a_snapshot_is_not_taken_while_the_one_before_is_written(tmp_path, monkeypatch):
    """They share their memory, and moving weights must not reach a file."""
    writing, overlaps = [], []
    real = checkpoint.write

    def slowly(*arguments, **keywords):
        writing.append(1)
        torch.ones(200, 200) @ torch.ones(200, 200)
        result = real(*arguments, **keywords)
        writing.pop()
        return result

    monkeypatch.setattr(checkpoint, "write", slowly)
    job = make_job(tmp_path / "a", checkpoint_every=1, validate_every=0, sample_every=0)
    trainer_type = train.__globals__["Trainer"]
    taken = trainer_type.snapshot

    def noted(self):
        overlaps.append(len(writing))
        return taken(self)

    monkeypatch.setattr(trainer_type, "snapshot", noted)
    train(job)
    assert overlaps == [0] * 12
    found = newest_sound(tmp_path / "a" / "checkpoints", job.fingerprint)
    assert all(torch.equal(found.model[name], weight) for name, weight in weights(job.model).items())


def test_the_clock_saves_too(tmp_path):
    """A period so short that it is over after each step."""
    steps = []
    job = make_job(
        tmp_path / "a",
        checkpoint_every=0,
        checkpoint_minutes=1e-9,
        validate_every=0,
        sample_every=0,
        should_stop=lambda: bool(steps.append([p.name for p in checkpoints(tmp_path / "a" / "checkpoints")])),
    )
    train(job)
    assert "step-00000010" in steps[-1]
    assert all(len(names) <= 3 for names in steps)  # two, and for a moment the new one


def test_a_score_that_is_no_number_is_no_obstacle(tmp_path):
    job = make_job(tmp_path / "a", validate=lambda model: {"validation_loss": float("nan")})
    metrics = train(job)
    assert metrics["steps"] == 12
    assert "validation_loss" not in metrics


def test_metrics_that_were_lost_are_no_obstacle(tmp_path):
    """A shorter file than the checkpoint remembers is not filled up with zeros."""
    calls = []
    job = make_job(tmp_path / "a", should_stop=lambda: len(calls) == 6 or bool(calls.append(1)))
    with pytest.raises(GroundupError, match="stopped at step 7"):
        train(job)
    (tmp_path / "a" / "metrics.jsonl").write_bytes(b"")
    train(make_job(tmp_path / "a"))
    assert [r["step"] for r in read_journal(tmp_path / "a" / "metrics.jsonl") if "loss" in r] == [8, 9, 10, 11, 12]


def test_a_full_disk_found_in_the_background_ends_training_soon(tmp_path, monkeypatch):
    """Not at the next checkpoint only, which may be hours away: at step 14 here."""
    done = []

    def full(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(checkpoint, "write", full)

    def stop():
        done.append(1)
        return False

    seldom = {"checkpoint_every": 7, "validate_every": 0, "sample_every": 0}
    job = make_job(tmp_path / "a", steps=40, **seldom, should_stop=stop)
    with pytest.raises(GroundupError, match="No space left on device.*Make room"):
        train(job)
    assert 7 <= len(done) < 14


def run(out: Path, *changes: str) -> "subprocess.CompletedProcess[str]":
    line = [sys.executable, str(DRIVER), "run", str(out), *changes]
    return subprocess.run(
        line, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=PATIENCE
    )


def test_a_file_that_may_grow_no_further_is_a_plain_error(tmp_path):
    """RLIMIT_FSIZE stands between the size of weights and that of the optimizer's state, as a quota would."""
    whole = make_job(tmp_path / "whole")
    train(whole)
    state = (checkpoints(tmp_path / "whole" / "checkpoints")[-1] / OPTIMIZER).stat().st_size
    full = run(tmp_path / "a", f"largest_file={state - 1}")
    assert full.returncode == 1
    assert "Traceback" not in full.stderr
    assert "File too large" in full.stderr
    assert "No checkpoint had been saved yet" in full.stderr
    assert list((tmp_path / "a" / "checkpoints").iterdir()) == []
    again = make_job(tmp_path / "a")
    train(again)
    assert MADE["timeless"](tmp_path / "a") == MADE["timeless"](tmp_path / "whole")


@pytest.fixture
def small_disk(tmp_path):
    """A file system of its own, with room for two checkpoints and not for three."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if (
        not shutil.which("mount")
        or subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)], capture_output=True
        ).returncode
    ):
        pytest.skip("mounting a file system takes root")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_disk_that_is_full_and_has_room_again(tmp_path, small_disk):
    """The last checkpoint is intact, the error plain, and with room again the same command reaches the same bits."""
    whole = make_job(tmp_path / "whole", hidden=64)
    train(whole)
    out = small_disk / "run"
    make_job(out)  # the shards
    one = sum(path.stat().st_size for path in checkpoints(tmp_path / "whole" / "checkpoints")[-1].rglob("*"))
    room = os.statvfs(small_disk)
    (small_disk / "ballast").write_bytes(bytes(room.f_bavail * room.f_frsize - int(1.6 * one)))
    full = run(out, "hidden=64")
    assert full.returncode == 1
    assert "Traceback" not in full.stderr
    assert "No space left on device" in full.stderr
    assert "Make room" in full.stderr
    assert "step-00000003 is intact" in full.stderr
    assert newest_sound(out / "checkpoints", "f" * 64).step == 3
    assert not list((out / "checkpoints").glob(".*"))
    (small_disk / "ballast").unlink()
    assert run(out, "hidden=64").returncode == 0
    assert MADE["timeless"](out) == MADE["timeless"](tmp_path / "whole")
    assert all(
        torch.equal(weight, weights(whole.model)[name])
        for name, weight in checkpoint.load_file(out / "weights.safetensors").items()
    )
