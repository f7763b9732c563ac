"""An architecture as boxes in a terminal, from the numbers of `groundup.cli.show.describe`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from groundup.cli.boxes import (
    INDENT,
    LABEL,
    Box,
    Facts,
    Line,
    bias,
    in_bytes,
    labelled,
    module_lines,
    print_drawing,
    railed,
    short,
    spans,
    summed,
)

if TYPE_CHECKING:
    from groundup.model import Architecture

ACTIVATIONS = {
    "relu": "ReLU",
    "gelu": "GELU",
    "gelu_tanh": "GELU (tanh)",
    "squared_relu": "ReLU²",
    "swiglu": "SwiGLU",
    "geglu": "GeGLU",
    "geglu_tanh": "GeGLU (tanh)",
}
NORM_NAMES = {"rms": "RMSNorm", "layer": "LayerNorm"}


def draw(record: Facts, arch: Architecture) -> None:
    """Print the whole drawing to stdout."""
    preset = record["preset"]
    title = f"{record['name']}: {preset['about']}" if preset else record["name"]
    totals = record["parameters"]["total"], record["flops_per_token"]
    print_drawing(title, _facts(record, arch), _boxes(record, arch), totals)


def _facts(record: Facts, arch: Architecture) -> list[tuple[str, str]]:
    """The model in a few lines."""
    count, context = record["parameters"], record["context"]
    weights = f"{in_bytes(record['weight_bytes'])} in bfloat16, {in_bytes(2 * record['weight_bytes'])} in float32"
    active = f", {count['active']:,} of them for one token" if count["idle"] else ""
    window = f", of which layers with a window need {arch.window or 0:,}" if _windows(arch) else ""
    flops = short(record["flops_per_token"], "kMGT", " ")
    cache = (
        f"{record['cache_bytes_per_token']:,} bytes a token in bfloat16; "
        f"{in_bytes(record['cache_bytes'])} for {context:,} tokens{window}"
    )
    rows = [
        ("parameters", f"{count['total']:,}{active}"),
        ("weights", weights),
        ("training", f"{flops}FLOPs a token, forward and backward, in rows of {context:,}"),
        ("cache", cache),
    ]
    if _windows(arch) and "L" in arch.window_pattern:
        pattern = "".join("S" if arch.has_window(layer) else "L" for layer in range(arch.layers))
        rows.append(("layers", f"{pattern} (S: a window of {arch.window or 0:,} tokens, L: everything)"))
    preset = record["preset"] or {}
    if preset.get("source"):
        rows.append(("source", preset["source"]))
    if preset.get("note"):
        rows.append(("", preset["note"]))
    return [*rows, *record["notes"].items()]


def _boxes(record: Facts, arch: Architecture) -> Iterator[Box]:
    """Every box, from the ids to the logits."""
    arrow = f"{arch.hidden_size:,} channels"
    yield Box(arrow, "embedding", list(_embedding(record, arch)))
    for block in record["blocks"]:
        times = len(block["layers"])
        title = f"{times} × block, {block['parameters']:,} parameters each"
        title = title if times > 1 else f"block, {block['parameters']:,} parameters"
        yield Box(arrow, title, list(_block(block, arch)))
    if record["ahead"]:
        title = f"{arch.predict_ahead} × block ahead, in training only: the next token but one and so on"
        yield Box(arrow, title, list(_ahead(record, arch)))
    yield Box(arrow, "head", list(_head(record, arch)))


def _embedding(record: Facts, arch: Architecture) -> Iterator[Line]:
    yield from module_lines(record["embedding"])
    if arch.positions == "sinusoidal":
        yield Line("sinusoidal positions are added")
    if arch.embedding_scale:
        yield Line(f"token embeddings × √{arch.hidden_size:,}")
    if arch.embedding_norm:
        yield Line("RMSNorm without gains")


def _head(record: Facts, arch: Architecture) -> Iterator[Line]:
    head = [row for row in record["end"] if row["kind"] == "head"]
    if arch.norm_placement != "post":
        yield from module_lines(row for row in record["end"] if row["kind"] != "head")
        if not arch.norm_gains:
            yield Line(labelled(NORM_NAMES[arch.norm], "no gains"))
    shape = f"{arch.hidden_size:,} → {arch.vocabulary_size:,}"
    if head:
        yield Line(labelled("lm_head", shape), head[0]["parameters"], record["head_flops"])
    else:
        yield Line(labelled("embed_tokens", f"{shape}, tied"), None, record["head_flops"])
    if arch.logit_softcap:
        yield Line(f"logits bent to stay below {arch.logit_softcap:g}")


def _ahead(record: Facts, arch: Architecture) -> Iterator[Line]:
    """The blocks that predict further tokens, in sum; their use of the head is in the head's box."""
    rows = record["ahead"]
    projections = [row for row in rows if "projection" in row["name"]]
    shape = f"{2 * arch.hidden_size:,} → {arch.hidden_size:,}"
    yield summed(labelled("projection", shape), projections)
    inner = [row for row in rows if row not in projections]
    total = summed("block with a plain feed-forward layer", inner)
    yield Line(total.text, total.parameters, (total.flops or 0) + record["ahead_score_flops"])


def _block(block: Facts, arch: Architecture) -> Iterator[Line]:
    """The lines of one kind of layer: the residual stream on the left, what is added to it on branches."""
    from groundup.model.block import NORMS

    times = len(block["layers"])
    rows = [{**row, "parameters": times * row["parameters"], "flops": times * row["flops"]} for row in block["parts"]]
    norms = NORMS[arch.norm_placement]
    yield Line(f"│ {spans(block['layers'])}", style="dim")
    yield from railed(module_lines(_named(rows, "", depth=1)), "│ ")
    for part, before, after in (("self_attn.", *norms[:2]), ("mlp.", *norms[2:])):
        inner = _attention(block, rows, arch) if part == "self_attn." else _mlp(rows, arch)
        closing = list(_norm(rows, after, arch))
        on_stream = arch.norm_placement == "post"
        yield Line("├─╮")
        yield from railed([*_norm(rows, before, arch), *inner, *([] if on_stream else closing)], "│ │ ")
        yield Line("⊕─╯")
        yield from railed(closing if on_stream else [], "│ ")


def _norm(rows: list[Facts], name: str | None, arch: Architecture) -> Iterator[Line]:
    """A norm by the name its tensors would have; one without gains has none."""
    if name is None:
        return
    tensors = _named(rows, name + ".")
    shape = f"{arch.hidden_size:,}{bias(tensors)}" if tensors else "no gains"
    yield summed(f"{NORM_NAMES[arch.norm]:<{LABEL + INDENT}} {shape}", tensors)


def _attention(block: Facts, rows: list[Facts], arch: Architecture) -> Iterator[Line]:
    tensors = _named(rows, "self_attn.")
    scores = len(block["layers"]) * block["score_flops"]
    total = summed(_attention_name(block, arch), tensors)
    yield Line(total.text, total.parameters, (total.flops or 0) + scores, "bold")
    inside = [row for row in tensors if ".o_proj." not in row["name"]]
    keys = labelled("scores, values", f"{round(block['mean_keys']):,} keys on average")
    last = module_lines([row for row in tensors if row not in inside], "self_attn.")
    for line in (*module_lines(inside, "self_attn."), Line(keys, None, scores), *last):
        yield Line(" " * INDENT + line.text, line.parameters, line.flops)


def _attention_name(block: Facts, arch: Architecture) -> str:
    """Attention in words: its kind, heads, positions and options."""
    local = arch.local_rope_theta if block["window"] is not None else None
    scaling = None if local else arch.rope_scaling
    if arch.latent is not None:
        kind = f"latent attention, {arch.heads} heads of {arch.key_dim} ({arch.rotary_dim} rotary)"
        kind += f", values of {arch.value_dim}, from {arch.latent.kv_rank} channels"
    elif arch.kv_heads == arch.heads:
        kind = f"multi-head attention, {arch.heads} heads of {arch.key_dim}"
    else:
        kind = "multi-query" if arch.kv_heads == 1 else "grouped-query"
        kind += f" attention, {arch.heads} heads of {arch.key_dim}, {arch.kv_heads} of keys and values"
    options = [
        (arch.positions == "rotary", f"rotary (base {local or arch.rope_theta:,.0f})"),
        (scaling is not None, f"{scaling.kind} × {scaling.factor:g}" if scaling else ""),
        (arch.positions == "alibi", "ALiBi"),
        (arch.attention_scale is not None, f"scores × {arch.attention_scale or 0:.4g}"),
        (arch.attention_softcap is not None, f"scores bent below {arch.attention_softcap or 0:g}"),
        (arch.attention_sinks, "sinks"),
        (block["window"] is not None, f"a window of {block['window'] or 0:,}"),
    ]
    return ", ".join([kind, *(text for on, text in options if on)])


def _mlp(rows: list[Facts], arch: Architecture) -> Iterator[Line]:
    tensors = _named(rows, "mlp.")
    name = f"feed-forward, {ACTIVATIONS[arch.feed_forward]} of {arch.intermediate_size:,}"
    if arch.experts is not None and any(row["kind"] == "experts" for row in tensors):
        inner = arch.experts.intermediate_size or arch.intermediate_size
        name = f"{arch.experts.per_token} of {arch.experts.count} experts, {ACTIVATIONS[arch.feed_forward]} of "
        name += f"{inner:,}" + (f", and {arch.experts.shared} shared" if arch.experts.shared else "")
    total = summed(name, tensors)
    yield Line(total.text, total.parameters, total.flops, "bold")
    for line in module_lines(tensors, "mlp."):
        yield Line(" " * INDENT + line.text, line.parameters, line.flops)


def _named(rows: list[Facts], prefix: str, depth: int | None = None) -> list[Facts]:
    """The rows whose name begins so, and where ``depth`` is given has so many parts."""
    found = [row for row in rows if row["name"].startswith(prefix)]
    return [row for row in found if depth is None or len(row["name"].split(".")) == depth]


def _windows(arch: Architecture) -> bool:
    return any(arch.has_window(layer) for layer in range(arch.layers))
