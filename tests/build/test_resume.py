"""A build killed at any moment, and started again, reaches the same bits."""

import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from groundup.build import verify
from groundup.run import read_manifest, sha256_file

TRAINED = ("pretrain", "sft", "dpo")


def _start(run: Path, until: str) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", "groundup", "build", "smoke", "--out", str(run), "--until", until]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def _weights(run: Path) -> dict[str, str]:
    return {name: sha256_file(run / name / "final" / "model.safetensors") for name in TRAINED}


def _killed_build(run: Path, moments: list[float], until: str = "dpo") -> int:
    """Kill a build at each moment (seconds after its start), then let it finish; how many kills hit."""
    hits = 0
    for moment in moments:
        process = _start(run, until)
        try:
            process.wait(timeout=moment)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            hits += 1
        process.stderr.close()
    process = _start(run, until)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors.decode()
    return hits


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The weights of an uninterrupted build, and how long it took."""
    run = tmp_path_factory.mktemp("whole")
    begun = time.monotonic()
    assert _killed_build(run, []) == 0
    return _weights(run), time.monotonic() - begun


def test_killed_builds_reach_the_same_weights(whole, tmp_path):
    weights, seconds = whole
    moments = [seconds * share for share in (0.35, 0.45, 0.55)]
    assert _killed_build(tmp_path, moments) >= 2
    assert _weights(tmp_path) == weights
    assert verify(tmp_path).problems == ()
    assert read_manifest(tmp_path / "dpo").stage == "dpo"


@pytest.mark.slow
def test_fifteen_kills_at_random_moments(whole, tmp_path):
    """Of the whole build, book and all. A build that outlives its kills is checked, and the next one begins."""
    weights, seconds = whole
    generator, hits = random.Random(0), 0
    while hits < 15:
        run = tmp_path / f"after-{hits}"
        moments = [generator.uniform(0.15, 1.2) * seconds for _ in range(min(5, 15 - hits))]
        hits += _killed_build(run, moments, until="book")
        assert _weights(run) == weights
        assert verify(run).problems == ()
        assert (run / "book" / "book.pdf").exists()
