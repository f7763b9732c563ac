"""Two small finished runs: one with every kind of stage on the story world, one with a base model of own text."""

import pytest

from groundup.build import build
from groundup.recipe import parse_recipe

STORYWORLD = """
[run]
name = "tiny"
[corpus]
sources = [{ path = "builtin:storyworld", documents = 60 }]
validation_fraction = 0.1
[tokenizer]
vocabulary_size = 512
[model]
layers = 1
hidden_size = 32
heads = 2
kv_heads = 1
intermediate_size = 64
context_length = 384
[pretrain]
steps = 4
tokens_per_update = 1536
log_every = 1
validate_every = 2
sample_every = 2
sample_prompts = ["Once *upon* #a time"]
[sft]
steps = 2
tokens_per_update = 1536
log_every = 1
data = [{ path = "builtin:storyworld", count = 20 }]
[dpo]
steps = 2
pairs_per_update = 4
log_every = 1
data = [{ path = "builtin:storyworld", count = 12 }]
[evaluate]
tasks = ["bits_per_byte", "storyworld_qa", "storyworld_honesty", "storyworld_harmlessness", "storyworld_helpfulness"]
questions = 2
[export]
[book]
author = "A. Writer"
[expect]
"dpo/storyworld_qa/iid" = ">= 0.0"
[hardware]
device = "cpu"
precision = "fp32"
compile = false
threads = 1
"""

OWN_TEXT = """
[run]
name = "own"
[corpus]
sources = ["{folder}"]
validation_fraction = 0.2
passage_characters = 400
[tokenizer]
vocabulary_size = 512
[model]
layers = 1
hidden_size = 32
heads = 2
kv_heads = 2
intermediate_size = 64
context_length = 64
positions = "learned"
tied_embeddings = false
[pretrain]
steps = 3
tokens_per_update = 256
[pretrain.optimizer]
muon_lr = 0.0
[evaluate]
[book]
title = "Of #my *own* $texts"
[hardware]
device = "cpu"
precision = "fp32"
compile = false
threads = 1
"""


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory):
    run = tmp_path_factory.mktemp("book") / "tiny"
    recipe = parse_recipe(STORYWORLD)
    build(recipe, run)
    return run, recipe


@pytest.fixture(scope="session")
def own_run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("texts")
    odd = "Ein *Satz* mit #let x = 1, @label, <tag>, \\n und $y$; 你好 🙂 " + "o" * 300
    for number in range(6):
        paragraphs = [f"Text {number}, paragraph {place}: the river runs by the old house. {odd}" for place in range(6)]
        (folder / f"{number}.txt").write_text("\n\n".join(paragraphs), encoding="utf-8")
    run = tmp_path_factory.mktemp("book") / "own"
    recipe = parse_recipe(OWN_TEXT.replace("{folder}", folder.as_posix()))
    build(recipe, run)
    return run, recipe
