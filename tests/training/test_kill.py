"""A training that is killed at random moments, or stopped by a signal, ends in the bits of one that never was."""

import json
import os
import runpy
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from groundup.run import read_manifest, sha256_file
from groundup.training.checkpoint import checkpoints

DRIVER = Path(__file__).with_name("reliable.py")
MADE = runpy.run_path(str(DRIVER))
PATIENCE = 1800
"""Seconds after which a process is taken to hang, on however busy a machine."""


@pytest.fixture(autouse=True)
def settings_restored():
    """What a training in this process sets for all of it."""
    handler, threads = signal.getsignal(signal.SIGTERM), torch.get_num_threads()
    yield
    signal.signal(signal.SIGTERM, handler)
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(False)


def command(*arguments) -> list[str]:
    return [sys.executable, str(DRIVER), *map(str, arguments)]


def environment(**more: str) -> dict[str, str]:
    return os.environ | {"OMP_NUM_THREADS": "1"} | more


def run(*arguments, **more: str) -> str:
    done = subprocess.run(command(*arguments), env=environment(**more), capture_output=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode()


def assert_same(one: Path, other: Path) -> None:
    for name in ("weights.safetensors", "samples.jsonl"):
        assert (one / name).read_bytes() == (other / name).read_bytes(), name
    assert MADE["timeless"](one) == MADE["timeless"](other)


def heavy(steps: int) -> list[str]:
    return [f"{name}={value}" for name, value in {**MADE["HEAVY"], "steps": steps}.items()]


def kill_and_compare(tmp_path: Path, kills: int, steps: int, seed: int) -> dict:
    run("run", tmp_path / "whole", *heavy(steps))
    found = json.loads(run("kill", tmp_path / "killed", kills, seed, steps))
    assert found["code"] == 0
    assert found["kills"] == kills
    for directory in found["runs"]:
        assert_same(tmp_path / "whole", Path(directory))
        assert len(checkpoints(Path(directory) / "checkpoints")) == 2
        assert not list(Path(directory, "checkpoints").glob(".*"))
    assert "going on from step" in (tmp_path / "stderr").read_text()
    return found


def test_killed_six_times_it_reaches_the_same_bits(tmp_path):
    kill_and_compare(tmp_path, kills=6, steps=40, seed=0)


@pytest.mark.slow
def test_fifty_kills_at_random_moments(tmp_path):
    """Many of them while a checkpoint is being written: its half is left behind, and never taken for a whole."""
    found = kill_and_compare(tmp_path, kills=50, steps=500, seed=1)
    print(found)
    assert found["while_writing"] >= 5


@pytest.mark.slow
def test_fifty_kills_of_the_command(tmp_path):
    """``groundup build`` itself, killed within a second of its training's beginning."""
    import random

    sizes = ["pretrain.steps=120", "pretrain.checkpoint_every=2", "pretrain.validate_every=30", "pretrain.log_every=1"]
    build = [sys.executable, "-m", "groundup", "build", "smoke"]
    options = [part for item in sizes for part in ("--set", item)]

    def started(out: Path, *only: str) -> "subprocess.Popen[bytes]":
        line = [*build, "--out", str(out), *options, *only]
        return subprocess.Popen(line, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)

    def finished(process) -> None:
        errors = process.communicate(timeout=PATIENCE)[1]
        assert process.returncode == 0, errors.decode()

    finished(started(tmp_path / "whole", "--until", "pretrain"))
    generator = random.Random(2)
    kills = writing = number = 0
    while kills < 50:
        out = tmp_path / f"killed-{number}"
        number += 1
        finished(started(out, "--until", "tokenizer"))
        while kills < 50:
            begun = out / "pretrain" / "stacks.txt"
            begun.unlink(missing_ok=True)
            process = started(out, "--only", "pretrain")
            while not begun.exists() and process.poll() is None:
                time.sleep(0.005)
            time.sleep(generator.uniform(0, 1.0))
            process.kill()
            process.communicate()
            if process.returncode == 0:
                break
            assert process.returncode == -signal.SIGKILL
            kills += 1
            writing += any(out.glob("pretrain/checkpoints/.step-*.partial"))
        finished(started(out, "--only", "pretrain"))
        for name in ("final/model.safetensors", "samples.jsonl"):
            whole, killed = (folder / "pretrain" / name for folder in (tmp_path / "whole", out))
            assert sha256_file(whole) == sha256_file(killed)
        assert MADE["timeless"](tmp_path / "whole" / "pretrain") == MADE["timeless"](out / "pretrain")
        assert read_manifest(out / "pretrain") is not None
    print({"kills": kills, "while_writing": writing, "runs": number})


def test_a_signal_saves_where_it_is_and_the_rest_is_the_same(tmp_path):
    """With checkpoints neither by steps nor by the clock, the one there is is the signal's."""
    seldom = {"steps": 60, "checkpoint_every": 0, "validate_every": 0, "sample_every": 0}
    MADE["trained"](tmp_path / "whole", **seldom)
    line = command("run", tmp_path / "parts", *(f"{name}={value}" for name, value in seldom.items()))
    process = subprocess.Popen(line, env=environment(), stderr=subprocess.PIPE)
    while not (tmp_path / "parts" / "metrics.jsonl").exists() or not MADE["timeless"](tmp_path / "parts"):
        assert process.poll() is None
        time.sleep(0.002)
    process.send_signal(signal.SIGTERM)
    errors = process.communicate(timeout=PATIENCE)[1].decode()
    assert process.returncode == 130, errors
    stopped = len(MADE["timeless"](tmp_path / "parts"))
    assert [path.name for path in checkpoints(tmp_path / "parts" / "checkpoints")] == [f"step-{stopped:08d}"]
    assert f"stopped at step {stopped} of 60" in errors
    assert MADE["trained"](tmp_path / "parts", **seldom) == 0
    assert_same(tmp_path / "whole", tmp_path / "parts")


def test_two_processes_reach_the_same_bits(tmp_path):
    """With two threads, and with the hashes of two processes: neither the order of threads nor that of sets counts."""
    run("run", tmp_path / "one", "threads=2", "steps=6", PYTHONHASHSEED="7", OMP_NUM_THREADS="2")
    assert MADE["trained"](tmp_path / "other", threads=2, steps=6) == 0
    assert_same(tmp_path / "one", tmp_path / "other")
