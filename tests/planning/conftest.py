"""A run with token shards, and a ladder of five very small rungs for it."""

import dataclasses

import pytest
import torch

from groundup.build import build
from groundup.hardware import Hardware
from groundup.planning import ladder
from groundup.recipe import LadderSection, parse_recipe

CPU = Hardware("cpu", "fp32", False, 1, {})
RECIPE = """
[run]
name = "rungs"
seed = 3
[corpus]
sources = [{ path = "builtin:storyworld", documents = 300 }]
validation_fraction = 0.1
[tokenizer]
vocabulary_size = 512
[model]
layers = 3
hidden_size = 24
heads = 1
kv_heads = 1
intermediate_size = 64
context_length = 64
[ladder]
rungs = [
    { layers = 1, hidden_size = 8, seeds = 2 },
    { layers = 1, hidden_size = 12 },
    { layers = 1, hidden_size = 16 },
    { layers = 1, hidden_size = 20 },
    { name = "last", layers = 2, hidden_size = 24 },
]
tokens_per_parameter = 0.5
tokens_per_update = 512
log_every = 1
validate_every = 0
checkpoint_every = 2
validation_tokens = 4096
[book]
[hardware]
device = "cpu"
precision = "fp32"
compile = false
threads = 1
"""


@dataclasses.dataclass
class Climber:
    """Calls the ladder on one run, with other settings where given."""

    run: object
    recipe: object

    def __call__(self, out, stop=lambda: False, tracking=None, **changes):
        section = LadderSection.model_validate({**self.recipe.ladder.model_dump(), **changes})
        return ladder(
            section,
            self.recipe.model,
            run=self.run,
            out=out,
            seed=3,
            hardware=CPU,
            fingerprint="f" * 64,
            should_stop=stop,
            tracking=tracking,
        )


@pytest.fixture(scope="session")
def climb(tmp_path_factory):
    run = tmp_path_factory.mktemp("planning") / "run"
    recipe = parse_recipe(RECIPE)
    build(recipe, run, until="tokenizer")
    return Climber(run, recipe)


@pytest.fixture(autouse=True)
def as_before():
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture(scope="session")
def whole(climb, tmp_path_factory):
    """An uninterrupted ladder: its directory and metrics."""
    out = tmp_path_factory.mktemp("whole") / "ladder"
    return out, climb(out)
