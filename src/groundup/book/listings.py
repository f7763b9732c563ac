"""The project's own code for the book, read from the source at the moment the book is made, so it never drifts."""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import groundup
from groundup.corpus.dedup.exact import _digest as exact_key
from groundup.corpus.text import normalise, split_position
from groundup.inference.engine import Decoding
from groundup.model import Block, attend_reference, bits_per_byte, document_mask, token_logprobs
from groundup.model.feed_forward import FeedForward
from groundup.model.initialise import lookup_attention
from groundup.model.norm import RMSNorm
from groundup.model.positions import rotary_table, rotate
from groundup.planning.scaling import _profile as law_profile
from groundup.posttraining import answer_logprobs, dpo_loss
from groundup.run import bootstrap_ratio, wilson
from groundup.storyworld import judge_answer
from groundup.storyworld.narrate import narrate_for, tell
from groundup.storyworld.world import World
from groundup.tokenizer import encode_chat
from groundup.tokenizer.plan import best_fit
from groundup.tokenizer.reference import encode_word, learn
from groundup.training import lr_factor, orthogonalise
from groundup.training.guard import Guard
from groundup.training.loop import Trainer
from groundup.training.optimizers import Muon

SHOWN: dict[str, Callable[..., Any]] = {
    "world_apply": World.apply,
    "tell": tell,
    "narrate_for": narrate_for,
    "normalise": normalise,
    "exact_key": exact_key,
    "split_position": split_position,
    "learn": learn,
    "encode_word": encode_word,
    "best_fit": best_fit,
    "encode_chat": encode_chat,
    "rms_norm": RMSNorm.forward,
    "rotary_table": rotary_table,
    "rotate": rotate,
    "attend_reference": attend_reference,
    "document_mask": document_mask,
    "feed_forward": FeedForward.forward,
    "block": Block.forward,
    "lookup_attention": lookup_attention,
    "token_logprobs": token_logprobs,
    "bits_per_byte": bits_per_byte,
    "orthogonalise": orthogonalise,
    "muon_step": Muon.step,
    "lr_factor": lr_factor,
    "law_profile": law_profile,
    "gradients": Trainer.gradients,
    "guard": Guard.accepts,
    "restore": Trainer.restore,
    "answer_logprobs": answer_logprobs,
    "dpo_loss": dpo_loss,
    "wilson": wilson,
    "bootstrap_ratio": bootstrap_ratio,
    "judge_answer": judge_answer,
    "decoding_step": Decoding.step,
}


def listing(function: Callable[..., Any]) -> dict[str, Any]:
    """Name, file below the package, first line and source text of a function."""
    shown = inspect.unwrap(function)
    path = Path(inspect.getsourcefile(shown) or "")
    lines, first = inspect.getsourcelines(shown)
    return {
        "name": shown.__qualname__,
        "file": path.relative_to(Path(groundup.__file__).parents[1]).as_posix(),
        "line": first,
        "source": textwrap.dedent("".join(lines)).rstrip(),
    }


def listings() -> dict[str, dict[str, Any]]:
    """Every listing that a chapter may show."""
    return {key: listing(function) for key, function in SHOWN.items()}
