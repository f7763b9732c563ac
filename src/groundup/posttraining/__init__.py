"""After pretraining: supervised fine-tuning and direct preference optimisation, both on the one loop.

In come finished weights and JSON lines (or the story world); out come weights in ``final`` and the loop's metrics.
The room promises:

- chats are ids and masks built message by message; the loss counts what the assistant says and its end token;
- the two answers of a preference pair share their prompt's computation and do not see each other;
- losses are pure functions of tensors, each with its equation and paper;
- the reference model's log-probabilities are computed once, by the kernel that trains, and kept under a hash of all
  they depend on;
- a record that can't be read stops the build before training, with its file and line.
"""

from groundup.posttraining.dpo import DpoObjective, answer_logprobs, dpo
from groundup.posttraining.losses import dpo_loss
from groundup.posttraining.pairs import EncodedPair, PairBatch, PairSource, fit, pack
from groundup.posttraining.records import (
    Conversation,
    Pair,
    conversation_of,
    preference_of,
    read_conversations,
    read_preferences,
)
from groundup.posttraining.sft import held_out, sft

__all__ = [
    "Conversation",
    "DpoObjective",
    "EncodedPair",
    "Pair",
    "PairBatch",
    "PairSource",
    "answer_logprobs",
    "conversation_of",
    "dpo",
    "dpo_loss",
    "fit",
    "held_out",
    "pack",
    "preference_of",
    "read_conversations",
    "read_preferences",
    "sft",
]
