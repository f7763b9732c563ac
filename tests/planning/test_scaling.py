"""Loss laws: closed forms, known laws found again, and intervals that hold as often as they say."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from groundup.planning import fit_huber, fit_law, student
from groundup.planning.scaling import Law


def rungs(count, ratio=4.0, first=1e12):
    return [first * ratio**place for place in range(count)]


def drawn(law, compute, seeds, sigma, generator, own=0.0):
    """Losses of runs whose logarithm scatters by ``sigma``, that of each rung as a whole by ``own``."""
    shifts = own * generator.standard_normal(len(compute))
    return [
        [law(each) * math.exp(shift + sigma * generator.standard_normal()) for _ in range(count)]
        for each, shift, count in zip(compute, shifts, seeds, strict=True)
    ]


@pytest.mark.parametrize(
    ("degrees", "table"),
    [(1, 12.706), (2, 4.303), (3, 3.182), (4, 2.776), (7, 2.365), (10, 2.228), (30, 2.042), (120, 1.980)],
)
def test_student_is_the_printed_table(degrees, table):
    assert student(degrees) == pytest.approx(table, abs=6e-4)


def test_student_has_closed_forms_and_needs_a_degree():
    assert student(1) == pytest.approx(math.tan(math.pi * 0.95 / 2), rel=1e-12)
    assert student(2) == pytest.approx(0.95 * math.sqrt(2 / (1 - 0.95**2)), rel=1e-12)
    with pytest.raises(ValueError, match="0 degrees"):
        student(0)


@settings(max_examples=40)
@given(
    floor=st.floats(0.0, 2.0),
    scale=st.floats(0.2, 3.0),
    exponent=st.floats(0.04, 0.6),
    count=st.integers(3, 6),
    ratio=st.floats(2.5, 10.0),
)
def test_losses_without_noise_give_their_law(floor, scale, exponent, count, ratio):
    compute = rungs(count, ratio)
    law = Law(floor, scale, exponent, compute[0])
    fit = fit_law(compute, [[law(each)] for each in compute])
    further = compute[-1] * ratio
    assert fit.law(further) == pytest.approx(law(further), rel=1e-4)
    assert fit.law(compute[1]) == pytest.approx(law(compute[1]), rel=1e-5)
    assert fit.law.exponent == pytest.approx(exponent, rel=0.02)
    assert fit.law.floor == pytest.approx(floor, abs=0.02 * (floor + scale))
    assert (fit.sigma is None) == (count == 3)


def test_three_rungs_have_no_interval_however_many_seeds_and_a_fourth_gives_one():
    compute = rungs(4)
    law = Law(0.5, 1.0, 0.2, 1e12)
    losses = [[law(each) * 0.99, law(each) * 1.01] for each in compute]
    bare = fit_law(compute[:3], losses[:3])
    estimate = bare.predict(1e14)
    assert (bare.sigma, bare.degrees, estimate.low, estimate.high) == (None, 0, None, None)
    assert estimate.value == pytest.approx(law(1e14), rel=1e-5)
    fit = fit_law(compute, losses)
    assert fit.degrees == 1 + 4
    assert fit.sigma == pytest.approx(math.sqrt(4 * 2 * 0.01**2 / 5), rel=1e-5)
    assert fit.predict(1e14).low < law(1e14) < fit.predict(1e14).high


def test_the_law_is_the_best_of_all_laws():
    """Against a plain search over all three numbers in float64."""
    generator = np.random.default_rng(3)
    compute = rungs(5)
    losses = drawn(Law(0.6, 1.2, 0.25, compute[0]), compute, [1] * 5, 0.01, generator)
    fit = fit_law(compute, losses)
    x, y = np.array(compute) / fit.law.reference, np.array(losses)[:, 0]

    def squares(floor, scale, exponent):
        return float((((floor + scale * x**-exponent) / y - 1) ** 2).sum())

    best = squares(fit.law.floor, fit.law.scale, fit.law.exponent)
    for _ in range(4000):
        floor, scale, exponent = generator.normal(
            (fit.law.floor, fit.law.scale, fit.law.exponent), generator.choice([1e-3, 0.02, 0.3])
        )
        if floor >= 0 and exponent > 0.01:
            assert squares(floor, scale, exponent) >= best - 1e-12
    assert fit.sigma == pytest.approx(math.sqrt(best / 2), rel=1e-6)


def test_an_interval_holds_what_as_a_further_rung_keeps_the_fit():
    """The profile by its definition: the best law with the further rung, found by a search of its own."""
    generator = np.random.default_rng(5)
    compute = rungs(5)
    losses = drawn(Law(0.6, 1.2, 0.25, compute[0]), compute, [1] * 5, 0.003, generator)
    fit = fit_law(compute, losses)
    further = compute[-1] * 4
    estimate = fit.predict(further)
    y = np.array(losses)[:, 0]
    x = np.array([*compute, further]) / fit.law.reference

    def squares(value):
        weights = 1 / np.array([*y, estimate.value])
        values = np.array([*y, value])
        best = math.inf
        for exponent in np.geomspace(0.01, 1.5, 6000):
            columns = np.stack([np.ones_like(x), x**-exponent], 1) * weights[:, None]
            solution, *_ = np.linalg.lstsq(columns, values * weights, rcond=None)
            if solution[0] < 0:
                columns = columns[:, 1:]
                solution, *_ = np.linalg.lstsq(columns, values * weights, rcond=None)
            best = min(best, float(((columns @ solution - values * weights) ** 2).sum()))
        return best

    least = 2 * fit.sigma**2
    chance = (fit.sigma * student(2)) ** 2
    for end in (estimate.low, estimate.high):
        assert squares(end) - least == pytest.approx(chance, rel=0.02)
    assert squares(estimate.value) - least < 0.01 * chance


COVERED = [
    ((1, 1, 1, 1, 1), 0.2, 0.5, 0.0, 0.93, 0.97),
    ((1, 1, 1, 1, 1), 0.1, 0.0, 0.0, 0.93, 0.985),
    ((3, 3, 2, 1), 0.2, 0.5, 0.0, 0.94, 0.985),
    ((3, 3, 2, 1, 1), 0.3, 0.5, 0.0, 0.94, 0.985),
    ((1, 1, 1, 1, 1), 0.2, 0.5, 0.006, 0.93, 0.97),  # rungs that scatter more than seeds, and so does the next
]


@pytest.mark.parametrize(("seeds", "exponent", "floor", "own", "least", "most"), COVERED)
def test_intervals_hold_as_often_as_they_say(seeds, exponent, floor, own, least, most):
    """Of 600 ladders drawn from a known law: the further run's loss, the exponent and the floor within their 95 %."""
    compute = rungs(len(seeds) + 1)
    law = Law(floor, 1.5, exponent, compute[0])
    generator = np.random.default_rng(11)
    hits = np.zeros(3)
    for _ in range(600):
        losses = drawn(law, compute, (*seeds, 1), 0.004, generator, own)
        fit = fit_law(compute[:-1], losses[:-1])
        estimates = (fit.predict(compute[-1]), fit.exponent, fit.floor)
        truths = (losses[-1][0], exponent, floor)
        hits += [each.low <= truth <= each.high for each, truth in zip(estimates, truths, strict=True)]
    assert least <= hits[0] / 600 <= most
    assert min(hits[1:]) / 600 >= 0.92


def test_a_floor_that_the_rungs_do_not_show_begins_at_zero():
    generator = np.random.default_rng(1)
    compute = rungs(5)
    unseen = fit_law(compute, drawn(Law(0.0, 2.0, 0.1, compute[0]), compute, [1] * 5, 0.005, generator))
    seen = fit_law(compute, drawn(Law(1.0, 1.0, 0.4, compute[0]), compute, [1] * 5, 0.002, generator))
    assert unseen.floor.low == 0.0
    assert unseen.floor.high > 0.3
    assert 0.8 < seen.floor.low <= seen.floor.value <= seen.floor.high < 1.2


def test_scale_of_compute_and_losses_does_not_matter():
    compute = rungs(5)
    losses = drawn(Law(0.6, 1.2, 0.25, compute[0]), compute, [2] * 5, 0.004, np.random.default_rng(2))
    one = fit_law(compute, losses).predict(1e16)
    other = fit_law([each * 1e6 for each in compute], [[2 * loss for loss in runs] for runs in losses]).predict(1e22)
    for name in ("value", "low", "high"):
        assert getattr(other, name) == pytest.approx(2 * getattr(one, name), rel=1e-6)


def test_losses_that_rise_are_foretold_level_and_with_doubt():
    fit = fit_law(rungs(4), [[1.0], [1.01], [1.02], [1.03]])
    assert fit.law.scale == 0.0
    estimate = fit.predict(1e16)
    assert estimate.low < 1.0 < 1.04 < estimate.high


@pytest.mark.parametrize(
    ("compute", "losses", "message"),
    [
        ([1e12, 2e12], [[1.0], [0.9]], "as many rungs"),
        ([1e12, 2e12, 4e12], [[1.0], [0.9]], "as many rungs"),
        ([1e12, 2e12, 2e12], [[1.0], [0.9], [0.8]], "equal compute"),
        ([1e12, 2e12, 4e12], [[1.0], [], [0.8]], "each rung needs one"),
        ([1e12, 2e12, 4e12], [[1.0], [math.nan], [0.8]], "finite"),
        ([1e12, 2e12, 0.0], [[1.0], [0.9], [0.8]], "above 0"),
    ],
)
def test_what_is_no_ladder_is_refused(compute, losses, message):
    with pytest.raises(ValueError, match=message):
        fit_law(compute, losses)


def test_huber_finds_a_law_and_is_not_moved_by_one_bad_rung():
    compute = rungs(6)
    law = Law(0.5, 1.4, 0.2, compute[0])
    losses = [law(each) for each in compute]
    found = fit_huber(compute, losses)
    assert (found.floor, found.exponent) == (pytest.approx(0.5, rel=1e-3), pytest.approx(0.2, rel=1e-3))
    losses[2] *= 1.05
    further = compute[-1] * 4
    squares = fit_law(compute, [[loss] for loss in losses]).law
    assert abs(fit_huber(compute, losses)(further) - law(further)) < 0.2 * abs(squares(further) - law(further))
