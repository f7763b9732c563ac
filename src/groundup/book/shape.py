"""The model chapter: shapes, parameter and FLOP counts of this model, and where its heads look."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from groundup.book.departures import departures
from groundup.book.text import token_text
from groundup.corpus import read_documents
from groundup.interchange import load_architecture, stock_form, why_no_stock_layout
from groundup.model import Architecture, Transformer, attention_weights, flops_per_token, parameter_count
from groundup.recipe import Recipe
from groundup.run import UserError
from groundup.storyworld import questions
from groundup.tokenizer import Tokenizer, encode_chat

Facts = dict[str, Any]
MAP_TOKENS = 64
GRID_TOKENS = 96
MOST_LAYERS, MOST_HEADS = 8, 8
FAR = 4
"""A head that looks this many tokens back or further looks something up; nearer ones spell words."""


def architecture(run: Path, recipe: Recipe, models: list[str], vocabulary: int) -> Facts:
    """The numbers of the model, from its own config.json where it is trained, else from the recipe."""
    try:
        arch = load_architecture(run / models[-1] / "final")
    except (UserError, IndexError):
        arch = Architecture.from_section(recipe.model, vocabulary)
    count = parameter_count(arch)
    matmul = flops_per_token(arch, 0)  # without attention's scores
    shapes = arch.cache_shapes()
    return {
        **arch.to_dict(),
        "head_dim": arch.resolved_head_dim,
        "qk_norm": arch.qk_norm == "head",
        **_layout(arch),
        "departures": departures(arch),
        "total": count.total,
        "parts": [
            {"name": name, "parameters": number}
            for name, number in (
                ("token embedding", count.embedding),
                ("learned positions", count.positions),
                ("attention", count.attention),
                ("feed-forward", count.feed_forward),
                ("experts", count.experts),
                ("norms", count.norms),
                ("output head", count.head),
                ("other", count.other),
            )
            if number
        ],
        "tensors": _tensors(arch),
        "matmul": round(matmul / 6),
        "flops_matmul": matmul,
        "flops_attention": flops_per_token(arch, arch.context_length) - matmul,
        "flops": flops_per_token(arch, arch.context_length),
        "cache_values": sum(heads * width for pair in shapes for heads, width in pair),
        "cache_values_full": 2 * arch.layers * arch.heads * arch.resolved_head_dim,
    }


def _layout(arch: Architecture) -> Facts:
    """The class of `transformers` that loads an export, None where there is none, and whether exporting changes the
    tensors."""
    if why_no_stock_layout(arch):
        return {"layout": None, "folded": False}
    form = stock_form(arch)
    return {"layout": form.layout.class_name, "folded": not form.verbatim}


def _tensors(arch: Architecture) -> list[Facts]:
    """Every kind of tensor with its shape and how often it occurs; layers count as one kind."""
    with torch.device("meta"):
        model = Transformer(arch)
    kinds: dict[str, Facts] = {}
    for name, weight in model.named_parameters():
        kind = name.replace(".layers.0.", ".layers.N.") if ".layers." in name else name
        if ".layers." in name and ".layers.0." not in name:
            kind = ".".join("N" if part.isdigit() else part for part in name.split("."))
        entry = kinds.setdefault(kind, {"name": kind, "shape": list(weight.shape), "times": 0, "parameters": 0})
        entry["times"] += 1
        entry["parameters"] += weight.numel()
    return list(kinds.values())


def attention(run: Path, recipe: Recipe, model: Transformer, tool: Tokenizer, *, chats: bool, world: bool) -> Facts:
    """Attention weights over one text the model never trained on, for every head and for one head with its tokens.

    Weights are given as grey bytes, 255 (white) for 0 and 0 for 1.
    """
    text, ids = _text(run, recipe, tool, chats=chats, world=world)
    ids = ids[: min(GRID_TOKENS, model.arch.context_length)]
    device = model.head_weight.device
    seen = [layer.cpu() for layer in attention_weights(model, torch.tensor(ids, device=device))]
    heads = [(layer, head) for layer in range(len(seen)) for head in range(len(seen[layer]))]
    layer, head = max(heads, key=lambda place: _lookup(seen[place[0]][place[1]]))
    shown = min(MAP_TOKENS, len(ids))
    layers = _spread(len(seen), MOST_LAYERS)
    columns = _spread(model.arch.heads, MOST_HEADS)
    return {
        "text": text,
        "layer": layer,
        "head": head,
        "far": FAR,
        "tokens": [token_text(tool.token(number, special=True)) for number in ids[:shown]],
        "size": shown,
        "map": _bytes(seen[layer][head][:shown, :shown]),
        "grid_size": len(ids),
        "grid": [{"layer": i, "heads": [{"head": j, "map": _bytes(seen[i][j])} for j in columns]} for i in layers],
        "heads_left_out": len(heads) - len(layers) * len(columns),
    }


def _text(run: Path, recipe: Recipe, tool: Tokenizer, *, chats: bool, world: bool) -> tuple[str, list[int]]:
    """A held-out text and its ids: a story and its question, or the start of a validation document."""
    if world:
        question = questions(recipe.run.seed, "iid", 1)[0]
        if chats:
            return question.plain_prompt, list(encode_chat(tool, question.messages, generation_prompt=True).ids)
        text = question.plain_prompt
    else:
        text = next(read_documents(run / "corpus", "validation")).text[:400]
    return text, [tool.endoftext, *tool.encode(text)]


def _lookup(weights: torch.Tensor) -> float:
    """Mean weight that a head's queries put on tokens at least ``FAR`` back, the very first token left out.

    Many heads rest on the first token when they have nothing to say, so weight there means nothing.
    """
    distant = weights.tril(-FAR).clone()
    distant[:, 0] = 0
    return float(distant.sum() / len(weights))


def _bytes(weights: torch.Tensor) -> list[int]:
    values: list[int] = (255 - weights.clamp(0, 1).sqrt() * 255).round().to(torch.uint8).flatten().tolist()
    return values


def _spread(count: int, most: int) -> list[int]:
    """All of 0 … count - 1, or ``most`` of them evenly spread with both ends."""
    if count <= most:
        return list(range(count))
    return sorted({round(place * (count - 1) / (most - 1)) for place in range(most)})


def answer_focus(recipe: Recipe, model: Transformer, tool: Tokenizer) -> Facts | None:
    """Where the model looks when the fact of an answer is next: the story's tokens with the weight of one head.

    The true answer is given up to the fact, so what is shown is the very step that has to find it. The head is the one
    with the most weight on the story's mentions of the fact. None where the story doesn't fit the context.
    """
    question = questions(recipe.run.seed, "iid", 1)[0]
    prompt = list(encode_chat(tool, question.messages, generation_prompt=True).ids)
    answer = tool.encode(question.answer)
    ids = prompt + answer
    start = len(prompt) + _tokens_before(tool, answer, question.answer.index(question.fact))
    if len(ids) > model.arch.context_length:
        return None
    known = torch.tensor(ids[:start], device=model.head_weight.device)
    weights = [layer[:, start - 1].cpu() for layer in attention_weights(model, known)]
    mentions = _mentions(tool, prompt, question.fact)
    if not mentions:
        return None
    places = [(layer, head) for layer in range(len(weights)) for head in range(len(weights[layer]))]
    layer, head = max(places, key=lambda place: float(weights[place[0]][place[1]][mentions].sum()))
    chosen = weights[layer][head]
    likely = model.logits(model(known[None])[0, -1]).float().softmax(-1).topk(5)
    return {
        "question": question.question,
        "answer": question.answer,
        "fact": question.fact,
        "given": tool.decode(answer[: start - len(prompt)]),
        "layer": layer,
        "head": head,
        "on_fact": float(chosen[mentions].sum()),
        "tokens": [
            {"text": token_text(tool.token(number, special=True)), "weight": float(chosen[place])}
            for place, number in enumerate(ids[:start])
        ],
        "next": [
            {"text": token_text(tool.token(int(number), special=True)), "probability": float(probability)}
            for probability, number in zip(likely.values, likely.indices, strict=True)
        ],
    }


def _tokens_before(tool: Tokenizer, ids: list[int], character: int) -> int:
    """How many of ``ids`` lie before the character of their text at which the next token begins to say it."""
    size = 0
    for place, number in enumerate(ids):
        size += len(tool.token(number).decode("utf-8", "replace"))
        if size > character:
            return place
    return len(ids) - 1


def _mentions(tool: Tokenizer, ids: list[int], word: str) -> list[int]:
    """Places of the tokens that spell ``word`` in the text of ``ids``."""
    text, spans = "", []
    for number in ids:
        piece = tool.token(number, special=True).decode("utf-8", "replace")
        spans.append((len(text), len(text) + len(piece)))
        text += piece
    found: list[int] = []
    at = text.find(word)
    while at >= 0:
        found += [place for place, (first, last) in enumerate(spans) if first < at + len(word) and last > at]
        at = text.find(word, at + 1)
    return found
