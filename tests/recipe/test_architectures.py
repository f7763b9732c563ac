"""The presets of [model] and the ladder."""

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from groundup.recipe import ModelSection, RecipeError, dump_toml, parse_recipe
from groundup.recipe.architectures import architecture, architecture_names, ladder, with_architecture
from groundup.recipe.model import ModelShape

LADDER = ["ladder-1m", "ladder-3m", "ladder-10m", "ladder-30m", "ladder-100m", "ladder-300m", "ladder-1b"]


def test_every_family_is_there():
    names = architecture_names()
    assert len(set(names)) == len(names)
    for name in (
        "gpt2", "gpt2-medium", "gpt2-large", "gpt2-xl", "llama-3.2-1b", "llama-3.2-3b", "llama-3-8b", "llama-3.1-8b",
        "llama-3-70b", "llama-3.1-70b", "qwen3-0.6b", "qwen3-1.7b", "qwen3-4b", "qwen3-8b", "qwen3-14b", "qwen3-32b",
        "qwen3-30b-a3b", "mistral-7b", "mistral-7b-v0.3", "mixtral-8x7b", "olmo-2-1b", "olmo-2-7b", "olmo-2-13b",
        "olmo-2-32b", "gemma-3-270m", "gemma-3-1b", "gemma-3-4b", "gemma-3-12b", "gemma-3-27b", "deepseek-v2-lite",
        "attention-is-all-you-need", "attention-is-all-you-need-big", *LADDER,
    ):  # fmt: skip
        assert name in names


@pytest.mark.parametrize("name", architecture_names())
def test_every_preset_is_a_model(name):
    """Each names only fields there are, gives what it says, and has its source."""
    preset = architecture(name)
    section = ModelSection(preset=name)
    assert section.preset == name
    written = section.model_dump(exclude_unset=True, exclude={"preset"})
    assert set(written) == set(preset.model) <= set(ModelShape.model_fields)
    assert preset.about
    assert preset.vocabulary_size >= 1024
    if preset.family != "ladder":
        assert preset.source.startswith("https://")
    if preset.family not in ("ladder", "transformer"):
        assert preset.parameters


def test_only_some_published_architectures_scale_embeddings():
    scaled = {name for name in architecture_names() if ModelSection(preset=name).embedding_scale}
    assert {architecture(name).family for name in scaled} == {"ladder", "gemma-3", "transformer"}
    assert ModelSection().embedding_scale
    assert not ModelShape().embedding_scale


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("gpt2-xl", {"layers": 48, "hidden_size": 1600, "heads": 25, "positions": "learned", "norm": "layer"}),
        ("llama-3-8b", {"rope_scaling": None, "context_length": 8192, "qk_norm": "none", "tied_embeddings": False}),
        ("qwen3-0.6b", {"head_dim": 128, "qk_norm": "head", "rope_theta": 1e6, "tied_embeddings": True}),
        ("mistral-7b", {"window": 4096, "rope_theta": 1e4}),
        ("mistral-7b-v0.3", {"window": None, "rope_theta": 1e6}),
        ("olmo-2-32b", {"norm_placement": "output", "qk_norm": "width", "kv_heads": 8}),
        ("gemma-3-270m", {"norm_offset": True, "rope_scaling": None, "local_rope_theta": 1e4, "window": 512}),
        ("attention-is-all-you-need", {"norm_placement": "post", "feed_forward": "relu", "dropout": 0.1}),
    ],
)
def test_facts_of_releases(name, expected):
    section = ModelSection(preset=name)
    assert {key: getattr(section, key) for key in expected} == expected


def test_nested_facts_of_releases():
    llama = ModelSection(preset="llama-3.2-1b").rope_scaling
    assert (llama.kind, llama.factor, llama.original_context) == ("llama3", 32.0, 8192)
    assert (llama.low_frequency_factor, llama.high_frequency_factor) == (1.0, 4.0)
    gemma = ModelSection(preset="gemma-3-4b")
    assert (gemma.rope_scaling.kind, gemma.rope_scaling.factor) == ("linear", 8.0)
    assert [layer for layer in range(gemma.layers) if not gemma.has_window(layer)] == [5, 11, 17, 23, 29]
    deepseek = ModelSection(preset="deepseek-v2-lite")
    assert (deepseek.latent.kv_rank, deepseek.latent.rotary_dim, deepseek.latent.query_rank) == (512, 64, None)
    assert (deepseek.experts.count, deepseek.experts.per_token, deepseek.experts.shared) == (64, 6, 2)
    assert (deepseek.experts.dense_layers, deepseek.experts.renormalise) == (1, False)


def test_what_is_written_wins_key_by_key():
    written = {"preset": "mixtral-8x7b", "layers": 3, "experts": {"per_token": 1}}
    merged = with_architecture(written)
    assert merged["layers"] == 3
    assert merged["experts"] == {"count": 8, "per_token": 1, "balance_weight": 0.02, "z_weight": 0.0}
    assert merged["hidden_size"] == 4096
    assert merged["preset"] == "mixtral-8x7b"
    assert written == {"preset": "mixtral-8x7b", "layers": 3, "experts": {"per_token": 1}}
    assert architecture("mixtral-8x7b").model["experts"]["per_token"] == 2


def test_presets_cannot_be_changed():
    with pytest.raises(TypeError):
        architecture("gpt2").model["layers"] = 1
    with_architecture({"preset": "mixtral-8x7b"})["experts"]["count"] = 1
    assert architecture("mixtral-8x7b").model["experts"]["count"] == 8


def test_an_unknown_name_gets_the_nearest():
    with pytest.raises(RecipeError, match="no architecture 'lama-3-8b'") as caught:
        architecture("lama-3-8b")
    assert caught.value.mend == "did you mean 'llama-3-8b'?"
    with pytest.raises(RecipeError, match="did you mean 'qwen3-0.6b'") as caught:
        parse_recipe('[model]\npreset = "qwen3-06b"\n')
    assert "model" in caught.value.where


def test_a_recipe_with_a_preset_is_written_whole_and_reads_back_equal():
    recipe = parse_recipe('[model]\npreset = "deepseek-v2-lite"\nlayers = 2\n[model.experts]\ncount = 16\n')
    assert (recipe.model.layers, recipe.model.experts.count, recipe.model.experts.per_token) == (2, 16, 6)
    text = dump_toml(recipe)
    assert "kv_rank = 512" in text
    assert parse_recipe(text) == recipe


def test_rungs_by_hand():
    """Depth 4: 4 · 4 · 8 = 128; 8/3 · 128 = 341.3, up to 352. Depth 20: 4 · 20 · 24 = 1920, to 2048 of 256s."""
    assert ladder(4) == (
        2048,
        {
            "layers": 4,
            "hidden_size": 128,
            "heads": 4,
            "kv_heads": 2,
            "head_dim": 32,
            "intermediate_size": 352,
            "context_length": 256,
        },
    )
    vocabulary, rung = ladder(20)
    assert vocabulary == 32768
    assert (rung["hidden_size"], rung["heads"], rung["kv_heads"], rung["head_dim"]) == (2048, 16, 8, 128)
    assert (rung["intermediate_size"], rung["context_length"]) == (5632, 4096)


def test_every_rung_has_a_name():
    assert architecture("ladder-d4").model == architecture("ladder-1m").model
    assert architecture("ladder-d11").model["layers"] == 11
    for name in ("ladder-d0", "ladder-d", "ladder-d100", "ladder-d04"):
        with pytest.raises(RecipeError, match="no architecture"):
            architecture(name)
    for depth in (0, 100):
        with pytest.raises(RecipeError, match="layers"):
            ladder(depth)


@given(st.integers(1, 98))
def test_one_dial_sets_everything(depth):
    """A deeper rung is never smaller in anything; widths are whole heads, and multiples that quantisation takes."""
    (vocabulary, rung), (more, deeper) = ladder(depth), ladder(depth + 1)
    width = rung["hidden_size"]
    ModelShape(**rung)
    assert rung["heads"] * rung["head_dim"] == width
    assert more >= vocabulary
    assert all(deeper[key] >= rung[key] for key in ("hidden_size", "intermediate_size", "head_dim", "context_length"))
    multiple = 256 if width >= 512 else 64
    assert width % multiple == 0
    assert rung["intermediate_size"] % (multiple if width >= 256 else 32) == 0
    assert 0 <= rung["intermediate_size"] - 8 * width / 3 < multiple
    assert vocabulary == 8 * rung["context_length"]
    assert 2 / 3 <= rung["context_length"] / (2 * width) <= 4 / 3


def test_presets_need_no_torch():
    program = (
        "import sys\nfrom groundup.recipe.architectures import architecture\narchitecture('gpt2')\n"
        "print('torch' in sys.modules)"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False"
