"""The yardsticks of the benchmarks: whole process trees are counted, similarities and scores are exact."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))  # they are scripts, not a package

import common  # noqa: E402
import scores  # noqa: E402

BURN = "import time\nheld = b'x' * 50_000_000\nwhile time.process_time() < {}: pass\n"


@pytest.mark.skipif(sys.platform != "linux", reason="orphans are waited for on Linux only")
def test_orphans_count() -> None:
    """A child starts a grandchild in a session of its own and ends at once, before the grandchild's work."""
    grandchild = BURN.format(0.6)
    child = f"import subprocess, sys\nsubprocess.Popen([sys.executable, '-c', {grandchild!r}], start_new_session=True)"
    cost = common.measure([sys.executable, "-c", child])
    assert cost.exact
    assert 0.6 <= cost.cpu < 1.2
    assert cost.peak is not None
    assert 5e7 < cost.peak <= cost.peak_rss < 8e7


def test_a_command_that_fails_is_an_error_with_its_output() -> None:
    with pytest.raises(common.FailedError, match="the reason"):
        common.measure([sys.executable, "-c", "raise SystemExit('the reason')"])


def test_what_outlives_the_limit_is_killed() -> None:
    with pytest.raises(common.FailedError):
        common.measure([sys.executable, "-c", "import time; time.sleep(60)"], limit=0.3)


def test_neighbours_equal_the_plain_definition() -> None:
    chance = np.random.default_rng(0)
    base = [[f"w{i}" for i in chance.integers(0, 2000, 120)] for _ in range(20)]
    texts = [" ".join(words) for words in base]
    for words in base[:12]:
        copy = list(words)
        for place in chance.integers(0, len(copy), chance.integers(0, 9)):
            copy[place] = "other"
        texts.append(" ".join(copy))

    def shingles(text: str) -> set[tuple[str, ...]]:
        words = text.split()
        return {tuple(words[i : i + 5]) for i in range(len(words) - 4)}

    expected = {}
    for i, a in enumerate(map(shingles, texts)):
        for j, b in enumerate(map(shingles, texts)):
            if i < j and len(a & b) / len(a | b) >= 0.5:
                expected[i, j] = len(a & b) / len(a | b)
    found = scores.neighbours(texts)
    pairs = zip(found.first.tolist(), found.second.tolist(), strict=True)
    assert len(expected) > 5
    assert dict(zip(pairs, found.similarity.tolist(), strict=True)) == pytest.approx(expected)


def test_recall_and_precision_by_hand() -> None:
    # A chain 0 ~ 1 ~ 2 of which 0 stays: 2 is like no document that stays. 3 and 4 are alike and both stay.
    pairs = scores.Neighbours(np.array([0, 1, 3]), np.array([1, 2, 4]), np.array([0.9, 0.9, 0.85]))
    kept = np.array([True, False, False, True, True])
    assert scores.recall(pairs, kept, 0.8) == (pytest.approx(2 / 3), 3)
    assert scores.precision(pairs, kept, 0.5) == (0.5, 2)


def test_agreement_by_hand() -> None:
    a, b = np.array([True, True, False, False]), np.array([True, False, False, False])
    assert scores.agreement(a, b) == (0.75, pytest.approx(0.5))  # chance: 1/2 · 1/4 + 1/2 · 3/4 = 1/2


def test_text_f1_by_hand() -> None:
    assert scores.text_f1("a b c d e", "A b, c d") == pytest.approx(2 * 1 / 3)
    assert scores.text_f1("", "a b c d") == 0
    assert scores.text_of_html("<p>One <b>two</b><script>no</script></p><p>three &amp;</p>").split() == [
        "One", "two", "three", "&",
    ]  # fmt: skip
