"""Rotary positions and their scalings, sinusoids and ALiBi's slopes, against the papers and the layouts."""

import cmath
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import LlamaConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from groundup.model.positions import alibi_slopes, rotary_table, rotate, sinusoidal_table, stretched
from groundup.recipe.model import RopeScaling

SCALINGS = [
    ({"rope_type": "linear", "factor": 4.0}, {"kind": "linear", "factor": 4}),
    (
        {"rope_type": "yarn", "factor": 16.0, "original_max_position_embeddings": 4096},
        {"kind": "yarn", "factor": 16, "original_context": 4096},
    ),
    (
        {
            "rope_type": "yarn",
            "factor": 3.5,
            "original_max_position_embeddings": 300,
            "beta_fast": 16.0,
            "beta_slow": 2.0,
            "attention_factor": 1.25,
        },
        {
            "kind": "yarn",
            "factor": 3.5,
            "original_context": 300,
            "beta_fast": 16,
            "beta_slow": 2,
            "attention_factor": 1.25,
        },
    ),
    (
        {
            "rope_type": "llama3",
            "factor": 8.0,
            "original_max_position_embeddings": 8192,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
        },
        {"kind": "llama3", "factor": 8, "original_context": 8192},
    ),
]


@pytest.mark.parametrize(("theirs", "ours"), SCALINGS)
@pytest.mark.parametrize(("width", "theta"), [(128, 500_000.0), (64, 10_000.0), (6, 100.0)])
def test_scaled_frequencies_are_those_of_transformers(theirs, ours, width, theta):
    config = LlamaConfig(
        hidden_size=width * 2,
        num_attention_heads=2,
        head_dim=width,
        max_position_embeddings=131_072,
        rope_parameters={"rope_theta": theta, **theirs},
    )
    expected, gain = ROPE_INIT_FUNCTIONS[theirs["rope_type"]](config, "cpu")
    plain = 1.0 / theta ** (torch.arange(0, width, 2) / width)
    found, found_gain = stretched(plain, theta, RopeScaling(**ours))
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=0)
    assert found_gain == pytest.approx(gain, rel=1e-12)
    cos, sin = rotary_table(torch.arange(50)[None], width, theta, RopeScaling(**ours))
    angles = torch.arange(50)[:, None] * expected
    torch.testing.assert_close(cos[0, 0], (angles.cos() * gain).repeat(1, 2), rtol=0, atol=1e-5)
    torch.testing.assert_close(sin[0, 0], (angles.sin() * gain).repeat(1, 2), rtol=0, atol=1e-5)


def test_ends_of_the_scalings():
    """What turns fast stays, what turns slowly is stretched wholly; a factor of 1 changes nothing."""
    plain = 1.0 / 10_000.0 ** (torch.arange(0, 64, 2) / 64)
    for kind in ("yarn", "llama3"):
        found, _ = stretched(plain, 10_000.0, RopeScaling(kind=kind, factor=4, original_context=2048))
        assert found[0] == plain[0]
        assert found[-1] == plain[-1] / 4
        assert (found[:-1] > found[1:]).all()
        found, gain = stretched(plain, 10_000.0, RopeScaling(kind=kind, factor=1, original_context=2048))
        torch.testing.assert_close(found, plain)
        assert gain == 1.0


def test_rotation_is_that_of_complex_numbers():
    x = torch.randn(2, 3, 7, 8, dtype=torch.float64)
    places = torch.tensor([[0, 1, 2, 3, 4, 5, 6], [3, 3, 0, 9, 1, 2, 11]])
    found = rotate(x, *rotary_table(places, 8, 100.0))
    for b in range(2):
        for t in range(7):
            for pair in range(4):
                turn = cmath.exp(1j * places[b, t].item() * 100.0 ** (-2 * pair / 8))
                for head in range(3):
                    expected = complex(x[b, head, t, pair], x[b, head, t, pair + 4]) * turn
                    value = complex(found[b, head, t, pair], found[b, head, t, pair + 4])
                    assert abs(value - expected) < 1e-5


def test_rotation_s_gradient_and_dtype():
    table = rotary_table(torch.tensor([[0, 5, 2]]), 4, 100.0, RopeScaling(kind="yarn", factor=4, original_context=8))
    x = torch.randn(1, 2, 3, 4, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: rotate(x, *table), (x,))
    assert rotate(x.detach().bfloat16(), *table).dtype == torch.bfloat16


def test_far_positions_keep_their_angle_to_float32_rounding():
    """At 131 071 tokens the angle of the fastest pair is exact, and others are off by no more than its rounding."""
    cos, _ = rotary_table(torch.tensor([[131_071]]), 64, 500_000.0)
    exact = [math.cos(131_071 * 500_000.0 ** (-2 * i / 64)) for i in range(32)]
    assert cos[0, 0, 0, 0].item() == pytest.approx(exact[0], abs=1e-6)
    assert (cos[0, 0, 0, :32].double() - torch.tensor(exact, dtype=torch.float64)).abs().max() < 131_071 * 2**-22


@pytest.mark.parametrize(("length", "width"), [(1, 2), (50, 16), (7, 5)])
def test_sinusoids(length, width):
    table = sinusoidal_table(length, width)
    for place in range(length):
        for channel in range(width):
            angle = place / 10_000 ** (channel // 2 * 2 / width)
            expected = math.cos(angle) if channel % 2 else math.sin(angle)
            assert table[place, channel].item() == pytest.approx(expected, abs=1e-5)


def test_slopes_of_the_paper():
    """Press et al. 2021, section 3: 8 heads have 1/2, 1/4, …, 1/256; 16 heads 2^-0.5, 2^-1, …; 12 heads, by the
    authors' code, those of 8 and every second of those of 16."""
    assert alibi_slopes(8) == [2.0**-power for power in range(1, 9)]
    assert alibi_slopes(16) == pytest.approx([2 ** (-power / 2) for power in range(1, 17)])
    assert alibi_slopes(12) == pytest.approx(alibi_slopes(8) + alibi_slopes(16)[0:8:2])
    assert alibi_slopes(1) == [2.0**-8]


@given(st.integers(1, 200))
def test_slopes_are_as_many_as_heads_and_all_different(heads):
    slopes = alibi_slopes(heads)
    assert len(set(slopes)) == len(slopes) == heads
    assert all(0 < slope < 1 for slope in slopes)


def test_scalings_need_their_numbers():
    with pytest.raises(ValueError, match="needs original_context"):
        RopeScaling(kind="yarn", factor=2)
    with pytest.raises(ValueError, match="below high_frequency_factor"):
        RopeScaling(kind="llama3", factor=2, original_context=64, low_frequency_factor=4)
