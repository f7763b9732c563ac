"""`[import]`: what it implies, what contradicts it, and that it survives writing."""

import pytest

from groundup.recipe import ModelSection, Recipe, RecipeError, dump_toml, load_recipe, parse_recipe
from groundup.recipe.docs import recipe_markdown

IMPORT = '[import]\nsource = "checkpoint"\n'
SFT = "[sft]\nsteps = 5\n"


def test_an_import_alone_brings_its_vocabulary():
    recipe = parse_recipe(IMPORT)
    assert recipe.import_.source == "checkpoint"
    assert recipe.tokenizer is not None
    assert [stage.name for stage in recipe.ordered_stages()] == ["import", "tokenizer"]
    assert {stage.name: recipe.inputs(stage) for stage in recipe.ordered_stages()} == {
        "import": [], "tokenizer": ["import"],
    }  # fmt: skip
    assert recipe.trained_stages() == ["import"]


def test_stages_begin_from_it_where_the_one_before_is_missing():
    recipe = parse_recipe(IMPORT + SFT + "[dpo]\nsteps = 5\n[stages.other]\nkind = 'dpo'\nsteps = 5\n")
    assert (recipe.sft.start, recipe.dpo.start, recipe.stages["other"].start) == ("import", "sft", "sft")
    assert parse_recipe(IMPORT + "[dpo]\nsteps = 5\n").dpo.start == "import"
    assert parse_recipe(IMPORT + "[stages.other]\nkind = 'sft'\nsteps = 5\n").stages["other"].start == "import"
    recipe = parse_recipe(IMPORT + SFT + "[corpus]\n[pretrain]\nsteps = 5\n")
    assert (recipe.pretrain.start, recipe.sft.start) == ("import", "pretrain")
    stages = {stage.name: recipe.inputs(stage) for stage in recipe.ordered_stages()}
    assert list(stages) == ["import", "corpus", "tokenizer", "pretrain", "sft"]
    assert stages["tokenizer"] == ["corpus", "import"]
    assert stages["pretrain"] == ["corpus", "tokenizer", "import"]


def test_what_is_written_wins():
    recipe = parse_recipe(IMPORT + SFT + "start = 'pretrain'\n[corpus]\n[pretrain]\nsteps = 5\nstart = 'import'\n")
    assert recipe.sft.start == "pretrain"
    assert parse_recipe(IMPORT + "[tokenizer]\nreserved_tokens = 2\n").tokenizer.reserved_tokens == 2


def test_without_an_import_nothing_is_implied():
    assert parse_recipe("[corpus]\n").tokenizer is None
    assert parse_recipe("[corpus]\n[tokenizer]\n[pretrain]\nsteps = 5\n").pretrain.start is None
    with pytest.raises(RecipeError, match=r"\[sft\] needs stage 'pretrain'"):
        parse_recipe("[corpus]\n[tokenizer]\n" + SFT)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ("[tokenizer]\nvocabulary_size = 9000\n", "vocabulary_size can't be given beside \\[import\\]"),
        ("[tokenizer]\nadopt = 'x'\n", "`import.tokenizer` names one that is elsewhere"),
        ("[tokenizer]\nsplit_pattern = 'gpt2'\n", "split_pattern can't be given"),
        ("[pretrain]\nsteps = 5\n", r"\[pretrain\] needs stage 'corpus'"),
        ("[evaluate]\n", "bits_per_byte is measured on documents that"),
        ("[evaluate]\ntasks = ['answers']\n", "answers is measured on conversations that"),
        ("[book]\n", r"\[book\] tells how a model was made from the ground up"),
        ("[evaluate]\ntasks = ['x.jsonl']\nmodels = ['imprt']\n", "did you mean 'import'"),
        ("sha256 = 'abc'\n", 'sha256 = "abc" can\'t be used'),
        ("sorce = 'abc'\n", "did you mean 'source'"),
        ("[stages.import]\nkind = 'sft'\nsteps = 5\n", "not a section's"),
        ("[stages.other]\nkind = 'import'\nsource = 'x'\n", "unknown kind 'import'"),
    ],
)
def test_contradictions_are_refused(more, message):
    with pytest.raises(RecipeError, match=message):
        parse_recipe(IMPORT + more)


def test_a_source_is_needed_and_a_section_is_a_table():
    with pytest.raises(RecipeError, match=r"\[import\] lacks 'source'"):
        parse_recipe("[import]\n")
    with pytest.raises(RecipeError, match="import = 'x' is no section"):
        parse_recipe("import = 'x'\n")
    with pytest.raises(RecipeError, match=r"unknown section \[import_\]"):
        parse_recipe("[import_]\nsource = 'x'\n")


@pytest.mark.parametrize("more", ["", SFT, "[model]\nlayers = 7\n", f"sha256 = '{'a' * 64}'\ntokenizer = 'there'\n"])
def test_writing_and_reading_gives_the_equal_recipe(more):
    recipe = parse_recipe(IMPORT + more)
    text = dump_toml(recipe)
    assert parse_recipe(text) == recipe
    assert ("[model]" in text) == (recipe.model != ModelSection())
    assert Recipe.model_validate(recipe.model_dump()) == recipe


def test_finetune_is_measured_before_and_after():
    recipe = load_recipe("finetune", ["import.source=gpt2", 'sft.data=["mine.jsonl"]', "sft.steps=3"])
    assert (recipe.import_.source, recipe.sft.data, recipe.sft.steps) == ("gpt2", ("mine.jsonl",), 3)
    assert [stage.name for stage in recipe.ordered_stages()] == ["import", "tokenizer", "sft", "evaluate", "export"]
    assert recipe.evaluated_models(recipe.evaluate) == ("import", "sft")
    assert recipe.exported_stage(recipe.export) == "sft"
    assert recipe.sft.optimizer.muon_lr == 0
    assert recipe.sft.optimizer.adamw_lr <= 2e-5


def test_it_is_documented_by_the_name_that_is_written():
    page = recipe_markdown()
    assert "## `[import]`" in page
    assert "import_" not in page
