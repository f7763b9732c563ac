"""The section `[ladder]`: rungs' shapes, names, and what is refused."""

import pytest

from groundup.recipe import LadderSection, Recipe, RecipeError, Rung, dump_toml, load_recipe, parse_recipe, rung_model
from groundup.recipe.architectures import architecture, ladder

FIVE = "[corpus]\n[tokenizer]\n[ladder]\nrungs = [{0}]\n"
SIZES = ", ".join(f"{{ layers = 1, hidden_size = {width} }}" for width in (16, 24, 32, 48, 64))


def test_a_rung_takes_its_proportions_from_its_width():
    assert Rung(layers=3, hidden_size=96).shape() == {
        "layers": 3, "hidden_size": 96, "heads": 3, "kv_heads": 3, "head_dim": 32, "intermediate_size": 256,
    }  # fmt: skip
    assert Rung(layers=2, hidden_size=16).shape()["heads"] == 1
    given = Rung(layers=2, hidden_size=64, heads=8, head_dim=8, kv_heads=2, intermediate_size=100)
    assert [given.shape()[name] for name in ("heads", "head_dim", "kv_heads", "intermediate_size")] == [8, 8, 2, 100]


@pytest.mark.parametrize("depth", [1, 4, 9, 12, 20, 30])
def test_a_rung_by_width_has_the_shape_of_our_family(depth):
    _, fields = ladder(depth)
    by_width = Rung(layers=depth, hidden_size=fields["hidden_size"]).shape()
    by_name = Rung(preset=f"ladder-d{depth}").shape()
    assert by_width == by_name == {name: value for name, value in fields.items() if name != "context_length"}


def test_a_rungs_model_is_the_recipes_but_for_its_shape():
    recipe = parse_recipe("[model]\npreset = 'qwen3-0.6b'\ncontext_length = 128\n")
    model = rung_model(recipe.model, Rung(layers=2, hidden_size=64))
    assert (model.layers, model.hidden_size, model.intermediate_size, model.resolved_head_dim) == (2, 64, 192, 32)
    assert (model.context_length, model.preset, model.embedding_scale) == (128, None, False)
    assert model.rope_theta == architecture("qwen3-0.6b").model["rope_theta"] != 10_000


def test_rungs_may_be_names_and_are_named():
    section = LadderSection(
        rungs=("ladder-d1", "ladder-d4", {"preset": "ladder-d5", "name": "five"}, "ladder-d7", "ladder-d9")
    )
    assert [rung.label for rung in section.rungs] == ["ladder-d1", "ladder-d4", "five", "ladder-d7", "ladder-d9"]
    assert Rung(layers=3, hidden_size=96).label == "3x96"


def test_the_stage_stands_between_tokens_and_models_and_may_occur_often():
    text = (
        FIVE.format(SIZES) + "[pretrain]\nsteps = 1\n[book]\n[stages.again]\nkind = 'ladder'\nrungs = [" + SIZES + "]\n"
    )
    recipe = parse_recipe(text)
    names = [stage.name for stage in recipe.ordered_stages()]
    assert names == ["corpus", "tokenizer", "ladder", "again", "pretrain", "book"]
    assert recipe.inputs(recipe.ordered_stages()[2]) == ["corpus", "tokenizer"]
    assert recipe.trained_stages() == ["pretrain"]
    assert parse_recipe(dump_toml(recipe)) == recipe


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (FIVE.format("'ladder-d1', 'ladder-d4', 'ladder-d5', 'ladder-d6'"), "at least 5 items"),
        (FIVE.format(SIZES) + "tokens = 1000\n", "tokens"),
        (FIVE.format(SIZES + ", { layers = 2 }"), "needs layers and hidden_size, or a preset"),
        (FIVE.format(SIZES + ", 'ladder-dx'"), "no architecture 'ladder-dx'"),
        (FIVE.format(SIZES + ", { name = '1x64', layers = 2, hidden_size = 64 }"), "two rungs named '1x64'"),
        (FIVE.format(SIZES + ", { name = 'A b', layers = 2, hidden_size = 64 }"), "name"),
        (FIVE.format(SIZES + ", { layers = 2, hidden_size = 64, heads = 3, kv_heads = 2 }"), "rung '2x64': heads = 3"),
        (FIVE.format(SIZES) + "tokens_per_parameter = 0\n", "greater than 0"),
        (FIVE.format(SIZES) + "micro_batch = 0\n", "at least 1 row"),
        ("[ladder]\nrungs = [" + SIZES + "]\n", "needs stage 'corpus'"),
        (FIVE.format(SIZES) + "[sft]\nsteps = 1\nstart = 'ladder'\n", "doesn't make"),
    ],
)
def test_what_is_no_ladder_is_refused(text, message):
    with pytest.raises(RecipeError) as caught:
        parse_recipe(text)
    assert message in str(caught.value)


def test_the_built_in_ladder():
    recipe = load_recipe("ladder")
    assert isinstance(recipe, Recipe)
    assert len(recipe.ladder.rungs) == 6
    assert recipe.ladder.tokens_per_parameter == 10
    assert [stage.name for stage in recipe.ordered_stages()] == ["corpus", "tokenizer", "ladder", "book"]
