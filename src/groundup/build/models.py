"""A model of a run, ready to be asked: with its tokenizer and the manners it was brought up with."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from groundup.build.importing import VOCABULARY, facts
from groundup.build.verify import find_stage
from groundup.recipe import Recipe, SftSection, Stage

if TYPE_CHECKING:
    from groundup.evaluation import Foreign, HeldOut
    from groundup.model import Transformer
    from groundup.tokenizer import Tokenizer


@dataclass(frozen=True)
class OpenModel:
    """A model in eval mode. ``chats`` is false for one that only continues text; ``begins`` are ids that it expects
    before a text, ``ends`` ids by which it ends one besides the tokenizer's own."""

    model: Transformer
    tokenizer: Tokenizer
    chats: bool
    begins: tuple[int, ...] = ()
    ends: tuple[int, ...] = ()


def open_model(run: Path, stage: Stage, device: str = "cpu") -> OpenModel:
    """Load the model of a stage that is built.

    An import that nobody has tuned yet knows nothing of the tokens that the run adds: it comes with its own vocabulary
    and no rows beyond it. Raises UserError for missing or broken files.
    """
    from groundup.interchange import load_model
    from groundup.tokenizer import Tokenizer

    model = load_model(run / stage.name / "final", device)
    if stage.kind != "import":
        return OpenModel(model, Tokenizer.load(run / "tokenizer"), stage.kind != "pretrain")
    known = facts(run)
    return OpenModel(
        _without_padding(model, known["tokens"]),
        Tokenizer.load(run / stage.name / VOCABULARY),
        known["chats"],
        tuple(known["begins"]),
        tuple(known["ends"]),
    )


class OpenModels(Mapping[str, tuple["Transformer", bool]]):
    """Models of a run with whether they chat, each loaded when it is asked for: seldom do all fit into memory."""

    def __init__(self, run: Path, recipe: Recipe, names: Sequence[str], device: str) -> None:
        self._run, self._device = run, device
        self._stages = {name: find_stage(recipe, name) for name in names}

    def __getitem__(self, name: str) -> tuple[Transformer, bool]:
        opened = open_model(self._run, self._stages[name], self._device)
        return opened.model, opened.chats

    def __iter__(self) -> Iterator[str]:
        return iter(self._stages)

    def __len__(self) -> int:
        return len(self._stages)


def foreign(run: Path, names: Sequence[str]) -> dict[str, Foreign]:
    """What evaluation must know of an import, if it is among the models of these names."""
    from groundup.evaluation import Foreign
    from groundup.tokenizer import Tokenizer

    if "import" not in names:
        return {}
    known = facts(run)
    tokenizer = Tokenizer.load(run / "import" / VOCABULARY)
    return {"import": Foreign(tokenizer, tuple(known["begins"]), tuple(known["ends"]))}


def held_out_conversations(recipe: Recipe) -> list[HeldOut]:
    """What no tuning stage of a recipe learns from, a sample of bounded size. Raises UserError for unreadable data."""
    from groundup.evaluation import MAX_CONVERSATIONS, HeldOut
    from groundup.posttraining import held_out

    found = [
        HeldOut(conversation.messages, conversation.tools)
        for stage in recipe.tuning_stages()
        if isinstance(stage.section, SftSection)
        for conversation in held_out(stage.section, seed=recipe.run.seed)
    ]
    if len(found) <= MAX_CONVERSATIONS:
        return found
    return random.Random(f"{recipe.run.seed}/answers").sample(found, MAX_CONVERSATIONS)


def _without_padding(model: Transformer, tokens: int) -> Transformer:
    """The model with only the first rows of its tables: rows that no token has take no part in any probability."""
    if tokens == model.arch.vocabulary_size:
        return model
    from torch.nn import Parameter

    model.arch = model.model.arch = model.arch.replace(vocabulary_size=tokens)
    model.model.embed_tokens.num_embeddings = tokens
    model.model.embed_tokens.weight = Parameter(model.model.embed_tokens.weight[:tokens].detach().clone())
    if not model.arch.tied_embeddings:
        model.lm_head.out_features = tokens
        model.lm_head.weight = Parameter(model.lm_head.weight[:tokens].detach().clone())
    return model
