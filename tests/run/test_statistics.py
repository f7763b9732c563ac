"""Intervals have known values, cover what they should, and repeat for a seed."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from groundup.run import Interval, bootstrap_ratio, human, log, paired_bootstrap, progress, wilson


def test_wilson_known_values():
    found = wilson(8, 10)
    assert found.value == 0.8
    assert found.low == pytest.approx(0.490162, abs=1e-6)
    assert found.high == pytest.approx(0.943318, abs=1e-6)
    assert wilson(0, 0) == Interval(0.5, 0.0, 1.0, 0)
    assert wilson(0, 20).low == 0.0
    assert wilson(0, 20).high == pytest.approx(0.161125, abs=1e-6)
    assert wilson(20, 20).high == 1.0


@given(st.integers(0, 500), st.integers(1, 500))
def test_wilson_holds_the_rate_within_the_unit_interval(successes, n):
    successes = min(successes, n)
    found = wilson(successes, n)
    assert 0 <= found.low <= found.value <= found.high <= 1
    mirrored = wilson(n - successes, n)
    assert found.low == pytest.approx(1 - mirrored.high, abs=1e-12)


@pytest.mark.parametrize("successes", [-1, 11])
def test_wilson_refuses_nonsense(successes):
    with pytest.raises(ValueError, match="must lie between"):
        wilson(successes, 10)


def test_bootstrap_ratio_weighs_units_by_size_and_repeats():
    bits, size = [10.0, 200.0, 33.0], [10.0, 100.0, 30.0]
    found = bootstrap_ratio(bits, size, seed=3)
    assert found.value == pytest.approx(243 / 140)
    assert found.low == pytest.approx(1.0)
    assert found.high == pytest.approx(2.0)
    assert found.n == 3
    assert bootstrap_ratio(bits, size, seed=3) == found
    assert bootstrap_ratio([2.0, 4.0], [1.0, 2.0], seed=0) == Interval(2.0, 2.0, 2.0, 2)


def test_bootstrap_ratio_refuses_nonsense():
    with pytest.raises(ValueError, match="equally many"):
        bootstrap_ratio([1.0], [1.0, 2.0], seed=0)
    with pytest.raises(ValueError, match="positive"):
        bootstrap_ratio([1.0], [0.0], seed=0)


def test_bootstrap_covers_the_mean_about_as_often_as_it_says():
    generator = np.random.default_rng(0)
    covered = 0
    for trial in range(100):
        sample = generator.normal(5.0, 1.0, size=60)
        found = bootstrap_ratio(sample, np.ones(60), seed=trial, resamples=400)
        covered += found.low <= 5.0 <= found.high
    assert 88 <= covered <= 99


def test_paired_bootstrap_is_tighter_than_its_parts_and_respects_clusters():
    generator = np.random.default_rng(1)
    a = generator.normal(0, 5, size=200)
    b = a + 1 + generator.normal(0, 0.1, size=200)
    found = paired_bootstrap(a, b, seed=0)
    assert found.value == pytest.approx(1.0, abs=0.03)
    assert 0.95 < found.low < found.high < 1.05
    assert found.n == 200
    before = np.zeros(40)
    after = np.repeat(generator.integers(0, 2, size=10), 4)
    alone = paired_bootstrap(before, after, seed=0)
    clustered = paired_bootstrap(before, after, seed=0, clusters=np.repeat(np.arange(10), 4).tolist())
    assert clustered.value == alone.value == after.mean()
    assert clustered.high - clustered.low > 1.5 * (alone.high - alone.low)
    with pytest.raises(ValueError, match="cluster labels"):
        paired_bootstrap(before, after, seed=0, clusters=[1])


def test_progress_is_silent_where_stderr_is_no_terminal(capsys):
    with progress("read", 10, "documents") as bar:
        bar.advance(3)
        bar.advance()
        assert bar.completed == 4
        bar.update(9)
        bar.note("loss 1.23")
        assert bar.completed == 9
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "")


def test_log_goes_to_stderr_as_it_is(capfd):
    log("[1/8] a [bold]line[/bold] " + "x" * 200)
    captured = capfd.readouterr()
    assert captured.out == ""
    assert captured.err.replace("\n", "") == "[1/8] a [bold]line[/bold] " + "x" * 200


@pytest.mark.parametrize(
    ("number", "text"),
    [(0.5234, "0.52"), (12.34, "12.3"), (950, "950"), (1234, "1.2k"), (3.4e6, "3.4M"), (7e9, "7.0G")],
)
def test_human(number, text):
    assert human(number) == text
