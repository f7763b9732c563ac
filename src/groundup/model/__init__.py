"""The transformer and nothing else: no parallelism, no files, no training loop.

In come token ids, positions and an attention mask; out come hidden states, and, where asked, logits or
log-probabilities. The room promises:

- parameters are named and shaped as in the Qwen3 layout, so that export is a save;
- a packed row with its document mask gives each document what it gets alone;
- losses are pure sums over scored places, and the head is applied where something is scored.

Read ``transformer.py`` first, then ``block.py``, ``attention.py``, ``attend.py`` (the formula and its fast forms),
``masks.py``, ``positions.py``, ``norm.py``, ``feed_forward.py``, ``losses.py``, ``initialise.py``. Each further idea
has a file: ``latent.py`` (latent attention), ``experts.py`` (mixture of experts), ``ahead.py`` (predicting further
tokens), ``embeddings.py`` (pairs of tokens), ``fp8.py`` (8-bit products), ``flex.py`` (FlexAttention), ``grow.py``
(more vocabulary), ``encoder_decoder.py`` (the original transformer). ``architecture.py`` holds every choice of a model,
``count.py`` its parameters and FLOPs.
"""

from groundup.model.architecture import Architecture
from groundup.model.attend import attend, attend_reference
from groundup.model.block import Block
from groundup.model.context import Cache, Routing
from groundup.model.count import ParameterCount, flops_per_token, palm_flops_per_token, parameter_count
from groundup.model.encoder_decoder import (
    EncoderDecoder,
    EncoderDecoderArchitecture,
    Memory,
    MultiHeadAttention,
    encoder_decoder_flops,
    initialise_encoder_decoder,
    smoothed_cross_entropy_sum,
)
from groundup.model.grow import grow_vocabulary
from groundup.model.initialise import fresh_model, initialise, renew_blocks
from groundup.model.layers import train_in_fp8
from groundup.model.losses import (
    IGNORE,
    Head,
    balance_loss,
    bits_per_byte,
    cross_entropy_sum,
    router_z_loss,
    scored_logprobs,
    targets_ahead,
    token_logprobs,
)
from groundup.model.masks import PackedMask, document_mask
from groundup.model.transformer import Transformer, attention_weights

__all__ = [
    "IGNORE",
    "Architecture",
    "Block",
    "Cache",
    "EncoderDecoder",
    "EncoderDecoderArchitecture",
    "Head",
    "Memory",
    "MultiHeadAttention",
    "PackedMask",
    "ParameterCount",
    "Routing",
    "Transformer",
    "attend",
    "attend_reference",
    "attention_weights",
    "balance_loss",
    "bits_per_byte",
    "cross_entropy_sum",
    "document_mask",
    "encoder_decoder_flops",
    "flops_per_token",
    "fresh_model",
    "grow_vocabulary",
    "initialise",
    "initialise_encoder_decoder",
    "palm_flops_per_token",
    "parameter_count",
    "renew_blocks",
    "router_z_loss",
    "scored_logprobs",
    "smoothed_cross_entropy_sum",
    "targets_ahead",
    "token_logprobs",
    "train_in_fp8",
]
