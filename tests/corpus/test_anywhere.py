"""The same bytes on one process, on two, on Ray, on two nodes, and when one of them dies. Run with -m slow."""

import hashlib
import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
PLACES = ("native-2", "ray-local", "ray-two-nodes", "ray-node-killed")
WORDS = (
    "the of and a to in is was he for it with as his on be at by i had not are but from or have an they which".split()
)


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


def build(place: str, section: Path, out: Path) -> dict[str, str]:
    """Build there; the checksum of every file."""
    program = Path(__file__).with_name("build_anywhere.py")
    environment = {**os.environ, "RAY_AUTH_MODE": "disabled"}
    done = subprocess.run(
        [sys.executable, str(program), place, str(section), str(out)],
        capture_output=True, text=True, timeout=500, env=environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    if place == "ray-node-killed":
        assert "one node dies now" in done.stderr
    files = sorted(path for path in out.rglob("*") if path.is_file())
    return {str(path.relative_to(out)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="module")
def alone(section: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return build("native-1", section, tmp_path_factory.mktemp("alone") / "out")


@pytest.mark.parametrize("place", PLACES)
def test_the_same_bytes_everywhere(place: str, section: Path, alone: dict[str, str], tmp_path: Path) -> None:
    if place.startswith("ray"):
        pytest.importorskip("ray", reason="Ray is not installed: pip install 'groundup[cluster]'")
    assert len(alone) > 10
    assert build(place, section, tmp_path / "out") == alone
