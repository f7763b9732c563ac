"""The same bytes on one process, on two, on Ray, on two nodes, and whoever is killed when. Run with -m slow."""

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
PLACES = ("native-2", "ray-local", "ray-two-nodes", "ray-node-killed")
WORDS = [
    "the",
    "of",
    "and",
    "a",
    "to",
    "in",
    "is",
    "was",
    "he",
    "for",
    "it",
    "with",
    "as",
    "his",
    "on",
    "be",
    "at",
    "by",
]


def texts(count: int) -> list[str]:
    """English-like texts, of which some are equal and some nearly."""
    made: list[str] = []
    for number in range(count):
        rng = random.Random(number)
        if number % 10 == 9:
            made.append(made[rng.randrange(len(made))])
        elif number % 10 == 8:
            words = made[rng.randrange(len(made))].split()
            words[rng.randrange(len(words))] = "changed"
            made.append(" ".join(words))
        else:
            own = [f"{rng.choice('bcdfgkmnprst')}{rng.choice('aeiou')}{rng.choice('lmnrst')}e" for _ in range(150)]
            made.append(
                " ".join(rng.choice(WORDS) if rng.random() < 0.4 else rng.choice(own) for _ in range(300)) + "."
            )
    return made


@pytest.fixture(scope="module")
def section(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sources")
    every = texts(12000)
    for number in range(12):
        rows = [json.dumps({"text": text}) for text in every[number::12]]
        (folder / f"{number:02d}.jsonl").write_text("\n".join(rows))
    path = folder / "section.json"
    near = {"near": {}, "lines": {"min_characters": 40}}
    content = {"sources": [str(folder / "*.jsonl")], "shard_bytes": 2**20, "dedup": near, "personal_data": {}}
    path.write_text(json.dumps(content))
    return path


def start(place: str, section: Path, out: Path) -> subprocess.Popen[str]:
    program = Path(__file__).with_name("build_anywhere.py")
    environment = {**os.environ, "RAY_AUTH_MODE": "disabled"}
    return subprocess.Popen(
        [sys.executable, str(program), place, str(section), str(out)],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=environment, start_new_session=True,
    )  # fmt: skip


def sums(out: Path) -> dict[str, str]:
    files = sorted(path for path in out.rglob("*") if path.is_file())
    return {str(path.relative_to(out)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def build(place: str, section: Path, out: Path) -> dict[str, str]:
    """Build there; the checksum of every file."""
    running = start(place, section, out)
    _, errors = running.communicate(timeout=500)
    assert running.returncode == 0, errors[-3000:]
    if place == "ray-node-killed":
        assert "one node dies now" in errors
    return sums(out)


@pytest.fixture(scope="module")
def alone(section: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return build("native-1", section, tmp_path_factory.mktemp("alone") / "out")


@pytest.mark.parametrize("place", PLACES)
def test_the_same_bytes_everywhere(place: str, section: Path, alone: dict[str, str], tmp_path: Path) -> None:
    if place.startswith("ray"):
        pytest.importorskip("ray", reason="Ray is not installed: pip install 'groundup[cluster]'")
    assert len(alone) > 10
    assert build(place, section, tmp_path / "out") == alone


def test_killed_at_any_moment(section: Path, alone: dict[str, str], tmp_path: Path) -> None:
    """SIGKILL to the whole build, each time later, until it gets through."""
    rng = random.Random(1)
    kills = 0
    for attempt in range(40):
        running = start("native-2", section, tmp_path / "out")
        try:
            running.wait(timeout=1.5 + rng.random() * (1 + attempt / 3))
        except subprocess.TimeoutExpired:
            os.killpg(running.pid, signal.SIGKILL)
            running.wait()
            kills += 1
            time.sleep(0.2)
            continue
        assert running.returncode == 0, running.stderr.read()[-3000:] if running.stderr else ""
        break
    assert kills >= 3
    assert sums(tmp_path / "out") == alone
