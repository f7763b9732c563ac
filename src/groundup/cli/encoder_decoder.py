"""The encoder-decoder of `[seq2seq]`: its numbers for `groundup show`, and its drawing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from math import prod
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
    from groundup.model import EncoderDecoderArchitecture

# The sublayers of a block in their order: prefix of their tensors, what attention is called, and the norm after it.
_SELF = ("self_attn.", "multi-head attention", "self_attn_layer_norm.")
_CROSS = ("cross_attn.", "multi-head attention to the encoder's output", "cross_attn_layer_norm.")
_MLP = ("mlp.", "", "mlp_layer_norm.")


def describe_encoder_decoder(arch: EncoderDecoderArchitecture, context: int) -> Facts:
    """All numbers of an encoder-decoder, JSON-able.

    Parameters are counted once each, FLOPs are of training (forward and backward) for a pair of sentences of
    ``context`` words each, as `encoder_decoder_flops` counts them. ``encoder`` and ``decoder`` have the numbers of one
    of their blocks, which are all alike. Bytes are those of bfloat16.
    """
    import torch

    from groundup.model import EncoderDecoder, encoder_decoder_flops

    with torch.device("meta"):
        model = EncoderDecoder(arch)
    rows = [_row(name, tuple(weight.shape), context) for name, weight in model.named_parameters()]
    pairs = 12.0 * arch.hidden_size * context**2  # of places, each with all of the other sentence
    encoder = _block(rows, "encoder.", {"self_attn.": pairs})
    decoder = _block(rows, "decoder.", {"self_attn.": pairs / 2, "cross_attn.": pairs})
    embedding = [row for row in rows if row["name"].startswith("embed_")]
    end = [row for row in rows if row["name"].startswith("lm_head.")]
    counts = {
        "embedding": _parameters(embedding),
        "encoder": arch.layers * encoder["parameters"],
        "decoder": arch.layers * decoder["parameters"],
        "head": _parameters(end),
    }
    total = sum(counts.values())
    return {
        "kind": "encoder-decoder",
        "architecture": arch.to_dict(),
        "context": context,
        "parameters": {**counts, "total": total},
        "flops_per_pair": encoder_decoder_flops(arch, context, context, 1),
        "weight_bytes": 2 * total,
        "cache_bytes_per_word": 2 * 2 * arch.layers * arch.hidden_size,
        "embedding": embedding,
        "encoder": encoder,
        "decoder": decoder,
        "end": end,
        "head_flops": 6.0 * context * arch.target_vocabulary * arch.hidden_size,
    }


def _row(name: str, shape: tuple[int, ...], words: int) -> Facts:
    """A tensor's numbers. Tables are looked up, and the head's FLOPs are told apart, since a tied one has no tensor."""
    multiplies = len(shape) > 1 and not name.startswith(("embed_", "lm_head."))
    size = prod(shape)
    return {"name": name, "shape": list(shape), "parameters": size, "flops": 6.0 * words * size if multiplies else 0.0}


def _block(rows: Iterable[Facts], stack: str, scores: dict[str, float]) -> Facts:
    """The numbers of one block of a stack."""
    prefix = f"{stack}layers.0."
    parts = [{**row, "name": row["name"].removeprefix(prefix)} for row in rows if row["name"].startswith(prefix)]
    return {
        "parameters": _parameters(parts),
        "flops": sum(row["flops"] for row in parts) + sum(scores.values()),
        "score_flops": scores,
        "parts": parts,
    }


def _parameters(rows: Iterable[Facts]) -> int:
    return sum(row["parameters"] for row in rows)


def draw_encoder_decoder(record: Facts, arch: EncoderDecoderArchitecture) -> None:
    """Print the whole drawing to stdout."""
    totals = record["parameters"]["total"], record["flops_per_pair"]
    print_drawing(record["name"], _facts(record), _boxes(record, arch), totals)


def _facts(record: Facts) -> list[tuple[str, str]]:
    """The model in a few lines."""
    count, context = record["parameters"], record["context"]
    weights = f"{in_bytes(record['weight_bytes'])} in bfloat16, {in_bytes(2 * record['weight_bytes'])} in float32"
    flops = short(record["flops_per_pair"], "kMGT", " ")
    cache = f"{record['cache_bytes_per_word']:,} bytes a word in bfloat16, of the source and of the target up to now"
    return [
        ("parameters", f"{count['total']:,}, {count['encoder']:,} in the encoder, {count['decoder']:,} in the decoder"),
        ("weights", weights),
        ("training", f"{flops}FLOPs a pair of sentences of {context:,} words each, forward and backward"),
        ("cache", cache),
        *record["notes"].items(),
    ]


def _boxes(record: Facts, arch: EncoderDecoderArchitecture) -> Iterator[Box]:
    """Every box, from the ids of the source to the scores of the target's next word."""
    arrow = f"{arch.hidden_size:,} channels"
    yield Box("", "embeddings of source and target", list(_embedding(record, arch)))
    yield Box(f"{arrow}, of the source", _title("encoder", record, arch), list(_stack("encoder", record, arch)))
    yield Box(
        f"{arrow}, which every decoder block sees",
        _title("decoder", record, arch),
        list(_stack("decoder", record, arch)),
    )
    shape = f"{arch.hidden_size:,} → {arch.target_vocabulary:,}"
    if record["end"]:
        head = Line(labelled("lm_head", shape), record["parameters"]["head"], record["head_flops"])
    else:
        head = Line(labelled("embed_target", f"{shape}, tied"), None, record["head_flops"])
    yield Box(arrow, "head", [head])


def _title(stack: str, record: Facts, arch: EncoderDecoderArchitecture) -> str:
    parameters = f"{record[stack]['parameters']:,} parameters"
    each = f"{arch.layers} × block, {parameters} each" if arch.layers > 1 else f"block, {parameters}"
    return f"{stack}: {each}"


def _embedding(record: Facts, arch: EncoderDecoderArchitecture) -> Iterator[Line]:
    for line in module_lines(record["embedding"]):
        yield Line(line.text + (", of both" if arch.embeddings == "shared" else ""), line.parameters, line.flops)
    yield Line(f"embeddings × √{arch.hidden_size:,}")
    yield Line("sinusoidal positions are added")


def _stack(stack: str, record: Facts, arch: EncoderDecoderArchitecture) -> Iterator[Line]:
    """The blocks of one stack, all in one: what is added to the residual stream stands on branches, norms on it."""
    block, times = record[stack], arch.layers
    rows = [{**row, "parameters": times * row["parameters"], "flops": times * row["flops"]} for row in block["parts"]]
    yield Line(f"│ {spans(list(range(times)))}", style="dim")
    for prefix, name, norm in (_SELF, _MLP) if stack == "encoder" else (_SELF, _CROSS, _MLP):
        tensors = [row for row in rows if row["name"].startswith(prefix)]
        yield Line("├─╮")
        if prefix == _MLP[0]:
            yield from railed(_feed_forward(tensors, arch), "│ │ ")
        else:
            masked = "masked " if stack == "decoder" and prefix == _SELF[0] else ""
            keys = record["context"] / 2 if masked else record["context"]
            title = f"{masked}{name}, {arch.heads} heads of {arch.hidden_size // arch.heads}"
            scores = times * block["score_flops"][prefix]
            yield from railed(_attention(title, prefix, tensors, scores, keys), "│ │ ")
        yield Line("⊕─╯")
        after = [row for row in rows if row["name"].startswith(norm)]
        yield from railed([summed(f"{'LayerNorm':<{LABEL + INDENT}} {arch.hidden_size:,}{bias(after)}", after)], "│ ")


def _attention(title: str, prefix: str, tensors: list[Facts], scores: float, keys: float) -> Iterator[Line]:
    total = summed(title, tensors)
    yield Line(total.text, total.parameters, (total.flops or 0) + scores, "bold")
    inside = [row for row in tensors if ".o_proj." not in row["name"]]
    compared = Line(labelled("scores, values", f"{round(keys):,} keys on average"), None, scores)
    last = module_lines([row for row in tensors if row not in inside], prefix)
    yield from railed([*module_lines(inside, prefix), compared, *last], " " * INDENT)


def _feed_forward(tensors: list[Facts], arch: EncoderDecoderArchitecture) -> Iterator[Line]:
    total = summed(f"feed-forward, ReLU of {arch.intermediate_size:,}", tensors)
    yield Line(total.text, total.parameters, total.flops, "bold")
    yield from railed(module_lines(tensors, "mlp."), " " * INDENT)
