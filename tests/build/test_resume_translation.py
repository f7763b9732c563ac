"""A build of translation that is killed while it trains reaches the same bits when it is started again."""

import os
import subprocess
import sys
import time
from pathlib import Path

from groundup.build import verify
from groundup.run import sha256_file

RECIPE = """
[seq2seq]
steps = 60
pairs_per_update = 8
checkpoint_every = 2
validate_every = 0
tests = 4
data = [{ path = "builtin:translation", count = 64 }]

[seq2seq.model]
layers = 1
hidden_size = 32
heads = 2
intermediate_size = 32
context_length = 48
dropout = 0.3

[hardware]
device = "cpu"
precision = "fp32"
compile = false
threads = 1
"""
PATIENCE = 300
"""Seconds after which a process is taken to hang, on however busy a machine."""


def start(folder: Path, run: Path) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", "groundup", "build", str(folder / "recipe.toml"), "--out", str(run)]
    return subprocess.Popen(
        command, env=os.environ | {"OMP_NUM_THREADS": "1"}, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )


def finish(folder: Path, run: Path) -> str:
    process = start(folder, run)
    _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, errors.decode()
    return errors.decode()


def killed_after(folder: Path, run: Path, step: int) -> None:
    """Kill the build, with no chance to tidy up, once a checkpoint of this step or a later one is there."""
    process = start(folder, run)
    deadline = time.monotonic() + PATIENCE
    try:
        while not any(int(path.name[5:]) >= step for path in run.glob("seq2seq/checkpoints/step-*")):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)
    finally:
        process.kill()
        process.wait()
        process.stderr.close()
    assert not (run / "seq2seq" / "manifest.json").exists()


def test_killed_twice_it_reaches_the_same_bits(tmp_path):
    (tmp_path / "recipe.toml").write_text(RECIPE)
    finish(tmp_path, tmp_path / "whole")
    for step in (6, 20):
        killed_after(tmp_path, tmp_path / "killed", step)
    assert "going on from step" in finish(tmp_path, tmp_path / "killed")
    for name in ("final/model.safetensors", "final/vocabulary.json", "results.json", "translations.jsonl"):
        whole, killed = (tmp_path / run / "seq2seq" / name for run in ("whole", "killed"))
        assert sha256_file(whole) == sha256_file(killed), name
    assert verify(tmp_path / "killed").problems == ()
