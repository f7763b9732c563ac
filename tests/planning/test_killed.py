"""A build of a ladder killed at random moments, and started again, reaches the same bits."""

import os
import random
import runpy
import subprocess
import sys
import time
from pathlib import Path

import pytest

from groundup.build import verify
from groundup.run import read_json, sha256_file

RECIPE = runpy.run_path(str(Path(__file__).with_name("conftest.py")))["RECIPE"]


def start(run):
    command = [sys.executable, "-m", "groundup", "build", str(run.parent / "rungs.toml"), "--out", str(run)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen([*command, "--until", "ladder"], env=environment, stderr=subprocess.PIPE)


def finished(run):
    process = start(run)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors.decode()
    ladder = read_json(run / "ladder" / "ladder.json")
    return {
        path.parent.parent.name: sha256_file(path) for path in run.glob("ladder/rungs/*/final/model.safetensors")
    }, [(rung["bits_per_byte"], rung["prediction"] and rung["prediction"]["value"]) for rung in ladder["rungs"]]


@pytest.mark.slow
def test_ten_kills_at_random_moments(tmp_path):
    (tmp_path / "rungs.toml").write_text(RECIPE, encoding="utf-8")
    begun = time.monotonic()
    whole = finished(tmp_path / "whole")
    seconds = time.monotonic() - begun
    assert len(whole[0]) == 6
    generator, hits, number = random.Random(0), 0, 0
    while hits < 10:
        run, number = tmp_path / f"killed-{number}", number + 1
        for _ in range(4):
            process = start(run)
            try:
                process.wait(timeout=generator.uniform(0.4, 1.0) * seconds)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                hits += 1
            process.stderr.close()
        assert finished(run) == whole
        assert verify(run).problems == ()
