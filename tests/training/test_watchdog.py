"""A hanging step leaves the stacks of all threads in a file and on stderr, and goes on."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from groundup.training.watchdog import Watchdog

DRIVER = Path(__file__).with_name("reliable.py")
PATIENCE = 1800

HANGING = """
import ctypes, runpy, sys, time
from pathlib import Path
from groundup.training import NextToken, loop
from groundup.training.watchdog import Watchdog
loop.Watchdog = lambda path: Watchdog(path, first=60.0, least=1.0, factor=1.0)
made = runpy.run_path(sys.argv[1])

class Hangs(NextToken):
    passes = 0
    def loss(self, model, batch):
        self.passes += 1
        if self.passes == 5:
            self.wait_for_what_never_comes()
        return super().loss(model, batch)

    def wait_for_what_never_comes(self):
        if sys.argv[3] == "held":
            ctypes.PyDLL(None).usleep(ctypes.c_uint(900_000)); ctypes.PyDLL(None).usleep(ctypes.c_uint(900_000))
        else:
            time.sleep(2.5)

sys.exit(made["trained"](Path(sys.argv[2]), objective=Hangs()))
"""


@pytest.mark.parametrize("lock", ["free", "held"])
def test_a_hanging_step(tmp_path, lock):
    """Also where the step hangs in a library that holds Python's lock, so that no thread of Python's can run."""
    line = [sys.executable, "-c", HANGING, str(DRIVER), str(tmp_path / "run"), lock]
    done = subprocess.run(
        line, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=PATIENCE
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "weights.safetensors").exists()
    stacks = (tmp_path / "run" / "stacks.txt").read_text()
    for text in (stacks, done.stderr):
        assert "wait_for_what_never_comes" in text
        assert "loader.py" in text  # the thread that reads ahead is shown too
        assert "step 3 has taken" in text
    assert "it goes on" in done.stderr


def test_a_run_that_never_hangs_leaves_no_file(tmp_path):
    watchdog = Watchdog(tmp_path / "stacks.txt", first=60.0)
    for step in range(5):
        watchdog.begins(step)
    watchdog.close()
    assert list(tmp_path.iterdir()) == []


def test_the_limit_follows_the_slowest_step(tmp_path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr("groundup.training.watchdog.time.monotonic", lambda: now[0])
    watchdog = Watchdog(tmp_path / "stacks.txt", first=900.0, least=300.0, factor=10.0)
    limits = []
    for step, seconds in enumerate((0.0, 100.0, 2.0, 25.0, 130.0, 1.0)):
        now[0] += seconds
        watchdog.begins(step)
        limits.append(watchdog.limit)
    watchdog.close()
    assert limits == [900.0, 1000.0, 1000.0, 1000.0, 1300.0, 1300.0]


def test_stacks_of_an_earlier_process_are_kept_and_not_told_again(tmp_path, capsys):
    (tmp_path / "stacks.txt").write_text("of yesterday\n")
    watchdog = Watchdog(tmp_path / "stacks.txt", first=60.0)
    watchdog.begins(1)
    watchdog.close()
    assert (tmp_path / "stacks.txt").read_text() == "of yesterday\n"
    assert capsys.readouterr().err == ""
