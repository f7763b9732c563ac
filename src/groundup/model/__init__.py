"""The transformer and nothing else: no parallelism, no files, no training loop.

In come token ids, positions and an attention mask; out come hidden states, and, where asked, logits or
log-probabilities. The room promises:

- parameters are named and shaped as in the Qwen3 layout, so that export is a save;
- a packed row with its document mask gives each document what it gets alone;
- losses are pure sums over scored places, and the head is applied where something is scored.

Read ``transformer.py`` first, then ``attention.py``, ``positions.py``, ``norm.py``, ``initialise.py``, ``losses.py``;
``architecture.py`` holds every number of a model and counts its parameters and FLOPs; ``grow.py`` adds rows for
a larger vocabulary.
"""

from groundup.model.architecture import Architecture, ParameterCount, flops_per_token, parameter_count
from groundup.model.attention import Cache, attend_reference, document_mask
from groundup.model.grow import grow_vocabulary
from groundup.model.initialise import initialise, renew_blocks
from groundup.model.losses import IGNORE, bits_per_byte, cross_entropy_sum, scored_logprobs, token_logprobs
from groundup.model.transformer import Block, Transformer, attention_weights

__all__ = [
    "IGNORE",
    "Architecture",
    "Block",
    "Cache",
    "ParameterCount",
    "Transformer",
    "attend_reference",
    "attention_weights",
    "bits_per_byte",
    "cross_entropy_sum",
    "document_mask",
    "flops_per_token",
    "grow_vocabulary",
    "initialise",
    "parameter_count",
    "renew_blocks",
    "scored_logprobs",
    "token_logprobs",
]
