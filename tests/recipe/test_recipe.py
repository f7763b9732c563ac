"""Recipes: loading, round trips, overrides, the order of stages."""

import math
import tomllib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from groundup.recipe import (
    KINDS,
    CorpusSection,
    DataTable,
    DpoSection,
    EvaluateSection,
    Expectation,
    ModelSection,
    OptimizerTable,
    PretrainSection,
    Recipe,
    RecipeError,
    RunSection,
    ScheduleTable,
    SftSection,
    SourceTable,
    TokenizerSection,
    builtin_recipes,
    dump_toml,
    load_recipe,
    parse_expectation,
    parse_recipe,
)
from groundup.recipe.docs import recipe_markdown
from groundup.recipe.overrides import apply_overrides, parse_override

NAMES = ("finetune", "ladder", "laptop", "one-gpu", "own-text", "seq2seq", "shakespeare", "smoke", "web")
text = st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=20)
counts = st.integers(1, 10**9)
positive = st.floats(1e-9, 1e6, allow_subnormal=False)
shares = st.floats(0, 0.5)
optimizers = st.builds(
    OptimizerTable,
    muon_lr=shares,
    adamw_lr=positive,
    betas=st.tuples(shares, shares),
    grad_clip=st.none() | positive,
)
schedules = st.builds(ScheduleTable, warmup_fraction=shares, cooldown_fraction=shares)
budgets = st.one_of(
    st.fixed_dictionaries({"steps": counts}),
    st.fixed_dictionaries({"tokens": counts}),
    st.fixed_dictionaries({"epochs": positive}),
    st.fixed_dictionaries({"minutes": positive}),
)


@st.composite
def recipes(draw):
    """Whole recipes with awkward strings, numbers and optional parts."""

    def train(kind, **fields):
        rest = {"optimizer": optimizers, "schedule": schedules, "micro_batch": st.just("auto") | counts}
        rest |= {"sample_prompts": st.lists(text, max_size=2).map(tuple)} | fields
        return kind(**draw(budgets), **draw(st.fixed_dictionaries(rest)))

    data = st.lists(text | st.builds(DataTable, path=text, count=st.none() | counts), min_size=1, max_size=3).map(tuple)
    sources = st.lists(text | st.builds(SourceTable, path=text, weight=positive), min_size=1, max_size=3).map(tuple)
    return Recipe(
        run=RunSection(name="any", seed=draw(st.integers(0, 2**31 - 1))),
        corpus=CorpusSection(sources=draw(sources)),
        tokenizer=TokenizerSection(vocabulary_size=draw(st.integers(512, 2**20))),
        model=ModelSection(rope_theta=draw(st.floats(1.5, 1e7)), qk_norm=draw(st.booleans())),
        pretrain=train(PretrainSection),
        sft=train(SftSection, data=data),
        dpo=train(DpoSection, data=data),
        stages={"again": train(SftSection, data=data, start=st.just("dpo"))},
        evaluate=EvaluateSection(models=draw(st.sampled_from([(), ("sft", "again")]))),
        expect={"sft/storyworld_qa/iid": ">= 0.60"},
    )


@settings(max_examples=60, deadline=None)
@given(recipes())
def test_dump_and_load_give_the_equal_recipe(recipe):
    assert parse_recipe(dump_toml(recipe)) == recipe


@pytest.mark.parametrize("name", NAMES)
def test_built_in_recipes_load_and_round_trip(name, tmp_path):
    recipe = load_recipe(name)
    assert recipe.run.name == name
    path = tmp_path / "recipe.toml"
    path.write_text(dump_toml(recipe), encoding="utf-8")
    assert load_recipe(path) == recipe
    assert load_recipe(str(path)) == recipe


def test_built_in_recipes_are_listed_with_the_default_first():
    found = builtin_recipes()
    assert tuple(sorted(found)) == NAMES
    assert next(iter(found)) == "laptop"
    assert all(len(about) > 20 and not about.startswith("#") for about in found.values())


def test_smoke_leaves_nothing_to_a_probe():
    recipe = load_recipe("smoke")
    assert "auto" not in recipe.hardware.model_dump().values()
    for section in (recipe.pretrain, recipe.sft, recipe.dpo):
        assert section.steps is not None
        assert section.micro_batch != "auto"
    others = ("import", "ladder", "seq2seq")  # of recipes that begin elsewhere
    assert [stage.kind for stage in recipe.ordered_stages()] == [kind for kind in KINDS if kind not in others]


def test_a_file_gives_its_name_to_the_run(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text("[corpus]\n", encoding="utf-8")
    recipe = load_recipe(path)
    assert recipe.run.name == "mine"
    assert recipe.corpus == CorpusSection()
    assert recipe.tokenizer is None
    assert [stage.name for stage in recipe.ordered_stages()] == ["corpus"]


def test_sections_are_immutable():
    with pytest.raises(ValueError, match="frozen"):
        load_recipe("smoke").run.seed = 3


@pytest.mark.parametrize(
    ("override", "keys", "value"),
    [
        ("a.b=3", ["a", "b"], 3),
        ("a.b = 0.5", ["a", "b"], 0.5),
        ("a.b=true", ["a", "b"], True),
        ("a.b=word", ["a", "b"], "word"),
        ("a.b=/path/x=y.txt", ["a", "b"], "/path/x=y.txt"),
        ('a.b="3"', ["a", "b"], "3"),
        ('a.b=["x", {path = "y"}]', ["a", "b"], ["x", {"path": "y"}]),
        ('expect."sft/storyworld_qa/iid"=">= 0.6"', ["expect", "sft/storyworld_qa/iid"], ">= 0.6"),
        ("expect.'a/b=c/d'=< 2", ["expect", "a/b=c/d"], "< 2"),
        ("stages.more-sft.kind=sft", ["stages", "more-sft", "kind"], "sft"),
        ("a.b=", ["a", "b"], ""),
        ("a.b=1\nc=2", ["a", "b"], "1\nc=2"),
    ],
)
def test_overrides_are_toml_or_bare_words(override, keys, value):
    assert parse_override(override) == (keys, value)


@given(st.integers() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False) | st.lists(st.integers()))
def test_an_override_takes_any_toml_value(value):
    written = repr(value).lower()
    assert parse_override(f"a.b={written}") == (["a", "b"], tomllib.loads(f"v = {written}")["v"])


def test_overrides_make_sections_and_replace_budgets_and_leave_the_original():
    raw = {"pretrain": {"minutes": 5, "optimizer": {"adamw_lr": 0.1}}}
    changed = apply_overrides(raw, ["pretrain.steps=3", "pretrain.optimizer.adamw_lr=0.2", "sft.epochs=1"])
    assert changed == {"pretrain": {"steps": 3, "optimizer": {"adamw_lr": 0.2}}, "sft": {"epochs": 1}}
    assert raw == {"pretrain": {"minutes": 5, "optimizer": {"adamw_lr": 0.1}}}


def test_further_stages_come_after_what_they_start_from():
    recipe = parse_recipe(
        "[corpus]\n[tokenizer]\n[pretrain]\nsteps = 1\n[dpo]\nsteps = 1\nstart = 'tuned'\n"
        "[stages.tuned]\nkind = 'sft'\nsteps = 1\nstart = 'longer'\n"
        "[stages.longer]\nkind = 'pretrain'\nsteps = 1\nstart = 'pretrain'\n[evaluate]\n[export]\n[book]\n"
    )
    stages = recipe.ordered_stages()
    assert [stage.name for stage in stages] == [
        "corpus", "tokenizer", "pretrain", "longer", "tuned", "dpo", "evaluate", "export", "book",
    ]  # fmt: skip
    by_name = {stage.name: stage for stage in stages}
    assert by_name["tuned"].kind == "sft"
    assert recipe.inputs(by_name["longer"]) == ["corpus", "tokenizer", "pretrain"]
    assert recipe.inputs(by_name["tuned"]) == ["tokenizer", "longer"]
    assert recipe.inputs(by_name["evaluate"]) == ["corpus", "tokenizer", "pretrain", "longer", "tuned", "dpo"]
    assert recipe.exported_stage(recipe.export) == "dpo"
    assert set(recipe.inputs(by_name["book"])) == {stage.name for stage in stages} - {"book"}


def test_expectations():
    found = parse_expectation("sft/storyworld_qa/iid", ">= 0.60")
    assert found == Expectation("sft/storyworld_qa/iid", "sft", "storyworld_qa", "iid", ">=", 0.6)
    results = {"sft": {"storyworld_qa": {"iid": {"value": 0.6}}}}
    assert found.value_in(results) == 0.6
    assert found.met_by(0.6)
    assert not found.met_by(math.nextafter(0.6, 0))
    assert not found.met_by(None)
    assert found.value_in({"sft": {}}) is None
    assert parse_expectation("a/b/c", "< 1e-3").met_by(0.0009)
    for key, condition in (
        ("a/b", "> 1"),
        ("a//c", "> 1"),
        ("a/b/c", "1"),
        ("a/b/c", "= 1"),
        ("a/b/c", "> x"),
    ):
        with pytest.raises(ValueError, match="must be"):
            parse_expectation(key, condition)


def test_the_page_of_the_recipe_is_current():
    page = Path(__file__).parents[2] / "docs" / "recipe.md"
    assert page.read_text(encoding="utf-8") == recipe_markdown(), "run: python -m groundup.recipe"


def test_every_field_is_documented():
    def walk(model):
        for name, field in model.model_fields.items():
            assert field.description, f"{model.__name__}.{name}"
            assert field.description.endswith("."), f"{model.__name__}.{name}"

    for section in (CorpusSection, SourceTable, TokenizerSection, ModelSection, PretrainSection, SftSection):
        walk(section)
    for section in (DpoSection, DataTable, EvaluateSection, OptimizerTable, ScheduleTable, Recipe):
        walk(section)


def test_a_preset_is_added_to_key_by_key():
    written = (
        '[corpus]\nsources = ["a"]\npreset = "web"\n[corpus.filters.c4]\nmin_sentences = 3\n[corpus.dedup.lines]\n'
    )
    recipe = parse_recipe(written)
    filters, dedup = recipe.corpus.filters, recipe.corpus.dedup
    assert (filters.c4.min_sentences, filters.c4.terminal_punctuation) == (3, False)
    assert filters.language.keep == ("en",)
    assert filters.gopher_quality is not None
    assert filters.length is None
    assert dedup.lines is not None
    assert dedup.near is not None
    assert parse_recipe(dump_toml(recipe)) == recipe
    with pytest.raises(RecipeError, match="preset"):
        parse_recipe(written.replace('"web"', '"wed"'))


def test_an_adopted_vocabulary_survives_the_resolved_recipe(tmp_path):
    """RUN/recipe.toml has every default filled in, and is read again by every later command."""
    path = tmp_path / "mine.toml"
    path.write_text('[corpus]\nsources = ["x.txt"]\n[tokenizer]\nadopt = "gpt2/"\nextra_tokens = ["abc"]\n')
    recipe = load_recipe(path)
    path.write_text(dump_toml(recipe))
    assert load_recipe(path) == recipe
    assert load_recipe(path).tokenizer.split_pattern is None


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ('adopt = "gpt2/"\nvocabulary_size = 512', "vocabulary_size can't be given beside adopt"),
        ("vocabulary_size = 512\nreserved_tokens = 1024", "no room for merges beside 1287"),
        ('vocabulary_size = 512\nextra_tokens = ["a"]\nreserved_tokens = 248', "no room for merges beside 512"),
        ("digits = 0", "digits"),
        ('split_pattern = ""', "split_pattern"),
    ],
)
def test_wrong_vocabularies(lines, message, tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(f'[corpus]\nsources = ["x.txt"]\n[tokenizer]\n{lines}\n')
    with pytest.raises(RecipeError, match=message):
        load_recipe(path)
