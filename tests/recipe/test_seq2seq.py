"""The section of translation: what it needs, what may stand beside it, and its rates."""

import pytest

from groundup.recipe import RecipeError, dump_toml, load_recipe, parse_recipe

ALONE = "[seq2seq]\nsteps = 5\n"


def test_it_needs_no_other_stage():
    recipe = parse_recipe(ALONE)
    assert [stage.name for stage in recipe.ordered_stages()] == ["seq2seq"]
    assert recipe.inputs(recipe.ordered_stages()[0]) == []
    assert recipe.trained_stages() == []
    assert parse_recipe(dump_toml(recipe)) == recipe


def test_it_stands_beside_a_language_model_and_is_none_of_its_stages():
    text = "[corpus]\n[tokenizer]\n[pretrain]\nsteps = 1\n[evaluate]\n[stages.french]\nkind = 'seq2seq'\nsteps = 2\n"
    recipe = parse_recipe(text)
    names = [stage.name for stage in recipe.ordered_stages()]
    assert names == ["corpus", "tokenizer", "pretrain", "french", "evaluate"]
    assert recipe.evaluated_models(recipe.evaluate) == ("pretrain",)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (ALONE + "[seq2seq.model]\nheads = 3\n", "multiple of heads = 3"),
        (ALONE + "[seq2seq.schedule]\nkind = 'wsd'\n", 'peak_lr = "paper" needs'),
        (ALONE + "[seq2seq.schedule]\nwarmup_fraction = 0.0\n", 'peak_lr = "paper" needs'),
        (ALONE + "[seq2seq.optimizer]\nmuon_lr = 0.01\n", "a rate of Adam"),
        (ALONE + "epochs = 2\n", "exactly one of"),
        (ALONE + "unit = 'word'\n", "unit"),
        (ALONE + "[evaluate]\nmodels = ['seq2seq']\n[corpus]\n[tokenizer]\n", "doesn't make"),
        (ALONE + "[sft]\nsteps = 1\nstart = 'seq2seq'\n[corpus]\n[tokenizer]\n", "doesn't make"),
        (ALONE + "[expect]\n'sft/translation/iid' = '>= 1'\n", "no stage 'sft'"),
        ("[corpus]\n[expect]\n'corpus/translation/iid' = '>= 1'\n", "needs an [evaluate] section (or [seq2seq])"),
    ],
)
def test_what_does_not_go_together_is_refused(text, message):
    with pytest.raises(RecipeError) as error:
        parse_recipe(text)
    assert message in str(error.value)


def test_tables_keep_their_defaults_where_a_part_is_written():
    section = parse_recipe(
        ALONE + "[seq2seq.optimizer]\nadamw_lr = 0.01\n[seq2seq.schedule]\ncooldown_fraction = 0.3\n"
    )
    assert section.seq2seq.optimizer.muon_lr == 0
    assert section.seq2seq.optimizer.betas == (0.9, 0.98)
    assert section.seq2seq.schedule.kind == "inverse_sqrt"


def test_the_recipe_demands_what_it_promises():
    recipe = load_recipe("seq2seq")
    assert recipe.expect["seq2seq/translation/iid"] == ">= 0.99"
    assert recipe.seq2seq.model.layers >= 1
