"""What of a model differs from the common design that the chapter draws and explains, in words."""

from __future__ import annotations

from collections.abc import Iterator

from groundup.model import Architecture

PLACEMENTS = {
    "post": "each layer normalises the sum, norm(x + f(x)), as the first transformer did (arXiv 1706.03762)",
    "sandwich": "each layer normalises both what it reads and what it adds (arXiv 2408.00118)",
    "output": "each layer normalises what it adds, not what it reads (arXiv 2501.00656)",
}
ACTIVATIONS = {
    "relu": "two matrices with ReLU, max(z, 0), between them",
    "gelu": "two matrices with GELU between them (arXiv 1606.08415)",
    "gelu_tanh": "two matrices with the tanh form of GELU between them (arXiv 1606.08415)",
    "squared_relu": "two matrices with the square of ReLU between them (arXiv 2109.08668)",
    "geglu": "the gate passed through GELU in place of SiLU (arXiv 2002.05202)",
    "geglu_tanh": "the gate passed through the tanh form of GELU in place of SiLU (arXiv 2002.05202)",
}


def departures(arch: Architecture) -> list[str]:
    """A sentence without its full stop for each choice that is not the common design's; empty for the default."""
    return [*_attention(arch), *_blocks(arch), *_ends(arch)]


def _attention(arch: Architecture) -> Iterator[str]:
    if arch.positions == "alibi":
        yield "a score falls with the distance between query and key, by a slope of each head (arXiv 2108.12409)"
    if arch.positions == "none":
        yield "nothing tells a token its place but what it can see"
    if arch.rope_scaling is not None:
        scaling = arch.rope_scaling
        yield f"the angles are stretched for a context {scaling.factor:g} times as long, by the {scaling.kind} rule"
    if arch.latent is not None:
        yield (
            f"keys and values of all heads are made from one vector of {arch.latent.kv_rank:,} numbers a token, and "
            f"{arch.latent.rotary_dim} further channels, shared by all heads, carry the place (arXiv 2405.04434)"
        )
    if arch.window is not None:
        count = sum(arch.has_window(layer) for layer in range(arch.layers))
        yield f"{count} of the {arch.layers} layers see only the last {arch.window:,} tokens"
    if arch.local_rope_theta is not None:
        yield f"in layers with a window the base of the angles is {arch.local_rope_theta:,.0f}"
    if arch.qk_norm == "width":
        yield "queries and keys are normalised over their whole width (arXiv 2501.00656)"
    if arch.attention_scale is not None:
        yield f"scores are multiplied by {arch.attention_scale:.4g}"
    if arch.attention_softcap is not None:
        yield f"scores z are bent to {arch.attention_softcap:g} tanh(z / {arch.attention_softcap:g}) (arXiv 2408.00118)"
    if arch.attention_sinks:
        yield "a head may look at nothing, with a learned score (arXiv 2508.10925)"
    if arch.value_embeddings:
        yield "in every other layer a table's vector for the token is added to its values, through a learned gate"


def _blocks(arch: Architecture) -> Iterator[str]:
    if arch.feed_forward != "swiglu":
        yield f"the feed-forward layer is {ACTIVATIONS[arch.feed_forward]}"
    if arch.experts is not None:
        table = arch.experts
        shared = f", and through {table.shared} that all tokens share" if table.shared else ""
        yield (
            f"the feed-forward layer is {table.count} experts, of which a router sends each token through "
            f"{table.per_token}{shared} (arXiv 2101.03961)"
        )
    if arch.norm == "layer":
        yield "norms are LayerNorm, which subtracts the mean first (arXiv 1607.06450)"
    if not arch.norm_gains:
        yield "norms have no gains"
    if arch.norm_offset:
        yield "a gain is one plus its weight"
    if arch.norm_placement in PLACEMENTS:
        yield PLACEMENTS[arch.norm_placement]
    if arch.biases != "none":
        where = "queries, keys and values" if arch.biases == "qkv" else "all matrices within the layers"
        yield f"{where} add a bias"
    if arch.residual_scalars:
        yield "each layer first multiplies the residual stream by a learned number"
    if arch.x0_skip:
        yield "each layer adds the embedding again, times a learned number"
    if arch.dropout:
        weights = ", weights" if arch.resolved_attention_dropout == arch.dropout else ""
        yield f"in training {arch.dropout:.0%} of embeddings{weights} and outputs are set to zero (arXiv 1207.0580)"
    if arch.resolved_attention_dropout != arch.dropout and arch.resolved_attention_dropout:
        yield f"in training {arch.resolved_attention_dropout:.0%} of attention weights are set to zero"
    if arch.residual_start == "scaled":
        yield "the matrices that write into the residual stream begin at random too, smaller the more layers there are"


def _ends(arch: Architecture) -> Iterator[str]:
    if arch.embedding_norm:
        yield "embeddings are normalised before the first layer"
    if arch.bigram_rows:
        yield f"a hashed table of {arch.bigram_rows:,} rows adds a vector for each token and the one before it"
    if arch.logit_softcap is not None:
        yield f"the head's results z are bent to {arch.logit_softcap:g} tanh(z / {arch.logit_softcap:g})"
    if arch.predict_ahead:
        yield f"in training {arch.predict_ahead} further blocks predict tokens further ahead (arXiv 2412.19437)"
