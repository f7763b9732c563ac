"""A wrong recipe is refused with what, where and how to mend it."""

import pytest

from groundup.recipe import RecipeError, load_recipe, parse_recipe
from groundup.recipe.names import find_line

BASE = "[corpus]\n[tokenizer]\n[pretrain]\nsteps = 3\n"


def _refused(text, *overrides):
    with pytest.raises(RecipeError) as caught:
        parse_recipe(text, overrides, source="mine.toml")
    return caught.value


@pytest.mark.parametrize(
    ("text", "what", "where", "mend"),
    [
        (
            BASE + "token_per_update = 9\n",
            "unknown key 'pretrain.token_per_update'",
            "mine.toml, pretrain.token_per_update, line 5",
            "did you mean 'tokens_per_update'?",
        ),
        ("[corpsu]\n", "unknown section [corpsu]", "mine.toml, corpsu, line 1", "did you mean 'corpus'?"),
        (
            BASE + "\n[pretrain.optimizer]\n# a comment\nmuon_rl = 1\n",
            "unknown key 'pretrain.optimizer.muon_rl'",
            "mine.toml, pretrain.optimizer.muon_rl, line 8",
            "did you mean 'muon_lr'?",
        ),
        (
            '[corpus]\nsources = [\n  "a",\n  {path = "b", wieght = 2},\n]\n',
            "unknown key 'corpus.sources[1].wieght'",
            "mine.toml, corpus.sources[1].wieght, line 2",
            "did you mean 'weight'?",
        ),
        (
            BASE + "[stages.more]\nkind = 'stf'\n",
            "[stages.more] has an unknown kind 'stf'",
            "mine.toml, stages.more.kind, line 6",
            "did you mean 'sft'?",
        ),
        (
            BASE + "[stages.more]\nsteps = 2\n",
            "[stages.more] lacks its kind",
            "mine.toml, stages.more, line 5",
            None,
        ),
        (
            BASE + "[model]\npositions = 'rotery'\n",
            'model.positions = "rotery" can\'t be used',
            "mine.toml, model.positions, line 6",
            "did you mean 'rotary'?",
        ),
        ("seed = 3\n", "unknown section [seed]", "mine.toml, seed, line 1", None),
        ("run = 3\n", "run = 3 is no section", "mine.toml, run, line 1", None),
        (
            "[pretrain]\nsteps = '3'\n",
            'pretrain.steps = "3" can\'t be used',
            "mine.toml, pretrain.steps, line 2",
            None,
        ),
        (
            BASE + "minutes = 2\n",
            "exactly one of steps, tokens, epochs, minutes must be given, not steps and minutes",
            "mine.toml, pretrain, line 3",
            None,
        ),
    ],
)
def test_mistakes_are_named_with_their_line_and_the_nearest_name(text, what, where, mend):
    error = _refused(text)
    assert (error.what, error.where, error.mend) == (what, where, mend)
    assert str(error).startswith(what)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[pretrain]\nsteps = 3\n", "[pretrain] needs stage 'corpus', which this recipe lacks"),
        (BASE + "[sft]\nsteps = 1\nstart = 'pretran'\n", "needs stage 'pretran'"),
        (
            BASE + "[sft]\nsteps = 1\nstart = 'corpus'\n",
            "needs a trained model, which stage 'corpus' doesn't make",
        ),
        (BASE + "[evaluate]\nmodels = ['dpo']\n", "[evaluate] needs stage 'dpo'"),
        (BASE + "[expect]\n'pretrain/bits_per_byte/validation' = '< 2'\n", "needs an [evaluate] section"),
        (BASE + "[evaluate]\n[expect]\n'dpo/x/y' = '< 2'\n", "no stage 'dpo'"),
        (BASE + "[evaluate]\n[expect]\n'pretrain/x' = '< 2'\n", 'must be "model/task/split"'),
        (BASE + "[evaluate]\n[expect]\n'pretrain/x/y' = 'good'\n", "must be a comparison and a number"),
        (BASE + "[stages.book]\nkind = 'sft'\nsteps = 1\n", "a stage's name is lower-case letters"),
        (
            BASE + "[stages.a]\nkind='sft'\nsteps=1\nstart='b'\n[stages.b]\nkind='sft'\nsteps=1\nstart='a'\n",
            "start from one another in a circle: a, b",
        ),
        (BASE + "[model]\nheads = 5\n", "heads = 5 must be a multiple of kv_heads = 4"),
        (BASE + "[model]\nhidden_size = 190\n", "hidden_size = 190 must be a multiple of heads = 4"),
        (BASE + "[model]\nhidden_size = 12\n", "rotary positions need an even head width, not 3"),
        (BASE + "[pretrain.optimizer]\nbetas = [0.9, 1.0]\n", "must lie in [0, 1)"),
        (BASE + "[pretrain.schedule]\nwarmup_fraction = 0.6\n", "exceed 1"),
        (BASE + "micro_batch = 0\n", "micro_batch = 0 must be at least 1"),
        (BASE + "[hardware]\nthreads = 0\n", "threads = 0 must be at least 1"),
        ("[corpus\n", "not valid TOML"),
    ],
)
def test_what_does_not_hold_together_is_refused(text, message):
    assert message in str(_refused(text))


@pytest.mark.parametrize("section", ["reward", "ppo", "grpo", "classify", "distill", "best_of_n", "plan"])
def test_sections_of_no_room_are_unknown_and_not_listed(section):
    error = _refused(f"[{section}]\n")
    assert error.what == f"unknown section [{section}]"
    assert section not in error.expected.split(", ")
    assert section not in _refused(f"[stages.a]\nkind = '{section}'\n").expected


def test_an_override_is_named_as_the_place_of_its_mistake():
    error = _refused(BASE, "pretrain.stepz=4")
    assert error.where == "--set pretrain.stepz=4"
    assert error.mend == "did you mean 'steps'?"
    assert _refused(BASE, "pretrain.steps=abc").where == "--set pretrain.steps=abc"
    assert "is not of the form" in _refused(BASE, "pretrain.steps").what
    assert "names no key" in _refused(BASE, "pretrain=3").what
    assert "the value is no TOML" in _refused(BASE, "corpus.sources=[3").what
    assert "is a value, not a section" in _refused(BASE, "pretrain.steps.more=3").what


def test_unknown_recipes_get_the_nearest_name(tmp_path):
    with pytest.raises(RecipeError) as caught:
        load_recipe("latop")
    assert caught.value.mend == "did you mean 'laptop'?"
    with pytest.raises(RecipeError, match="no recipe file"):
        load_recipe(tmp_path / "none.toml")
    with pytest.raises(RecipeError, match="can't read"):
        load_recipe(tmp_path)
    (tmp_path / "bad.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(RecipeError, match="can't read"):
        load_recipe(tmp_path / "bad.toml")


def test_lines_are_found_through_dots_quotes_and_headers():
    toml = 'run.seed = 1\n[expect]\n"a/b/c" = "> 1"\n[ stages . "x" ]\nkind = "sft"\n'
    assert find_line(toml, ("run", "seed")) == 1
    assert find_line(toml, ("expect", "a/b/c")) == 3
    assert find_line(toml, ("stages", "x", "kind")) == 5
    assert find_line(toml, ("stages", "x")) == 4
    assert find_line(toml, ("nothing",)) is None
