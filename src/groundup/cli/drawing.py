"""An architecture as boxes in a terminal, from the numbers of `groundup.cli.show.describe`."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.text import Text

    from groundup.model import Architecture

Facts = dict[str, Any]
WIDEST, NARROWEST = 100, 60
CELL = 7  # characters of a number's column; there are four
INDENT, LABEL = 2, 18

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


@dataclass(frozen=True)
class Line:
    """One line in a box: a text, and numbers where it has any."""

    text: str
    parameters: int | None = None
    flops: float | None = None
    style: str = ""


def draw(record: Facts, arch: Architecture) -> None:
    """Print the whole drawing to stdout."""
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False)
    width = max(NARROWEST, min(console.width, WIDEST))
    totals = record["parameters"]["total"], record["flops_per_token"]
    preset = record["preset"]
    title = f"{record['name']}: {preset['about']}" if preset else record["name"]
    console.print(Text(title, style="bold"), soft_wrap=True)
    shown: list[RenderableType] = [Text(line) for line in _facts(record, arch, width)]
    names = "".join(f"{name:>{CELL}}" for name in ("params", "share", "FLOPs", "share"))
    shown.append(Text(names.rjust(width - 2), style="dim"))
    arrow = Text(f"  │ {_number(arch.hidden_size)} channels", style="dim")
    for number, (title, lines) in enumerate(_boxes(record, arch)):
        if number:
            shown.append(arrow)
        shown.append(_panel(title, lines, width, totals))
    console.width = width
    for each in shown:
        console.print(each)


def short(number: float, units: str = "kMBT", gap: str = "") -> str:
    """Four digits and a unit: 596.0M, 1.236B."""
    for power, unit in reversed([*enumerate(units, 1)]):
        value = number / 1000**power
        if value >= 0.99995:
            return f"{value:.{3 if value < 9.9995 else 2 if value < 99.995 else 1}f}{gap}{unit}"
    return f"{number:.0f}{gap}"


def _facts(record: Facts, arch: Architecture, width: int) -> Iterator[str]:
    """The model in a few lines."""
    count, context = record["parameters"], record["context"]
    weights = f"{_bytes(record['weight_bytes'])} in bfloat16, {_bytes(2 * record['weight_bytes'])} in float32"
    active = f", {_number(count['active'])} of them for one token" if count["idle"] else ""
    window = f", of which layers with a window need {_number(arch.window or 0)}" if _windows(arch) else ""
    flops = short(record["flops_per_token"], "kMGT", " ")
    cache = (
        f"{_number(record['cache_bytes_per_token'])} bytes a token in bfloat16; "
        f"{_bytes(record['cache_bytes'])} for {_number(context)} tokens{window}"
    )
    rows = [
        ("parameters", _number(count["total"]) + active),
        ("weights", weights),
        ("training", f"{flops}FLOPs a token, forward and backward, in rows of {_number(context)}"),
        ("cache", cache),
    ]
    if _windows(arch) and "L" in arch.window_pattern:
        pattern = "".join("S" if arch.has_window(layer) else "L" for layer in range(arch.layers))
        rows.append(("layers", f"{pattern} (S: a window of {_number(arch.window or 0)} tokens, L: everything)"))
    preset = record["preset"] or {}
    if preset.get("source"):
        rows.append(("source", preset["source"]))
    if preset.get("note"):
        rows.append(("", preset["note"]))
    for name, text in rows:
        first, *others = textwrap.wrap(text, width - 12, break_on_hyphens=False)
        yield f"{name:<12}{first}"
        yield from (" " * 12 + line for line in others)


def _boxes(record: Facts, arch: Architecture) -> Iterator[tuple[str, list[Line]]]:
    """Every box with its title, from the ids to the logits."""
    yield "embedding", list(_embedding(record, arch))
    for block in record["blocks"]:
        times = len(block["layers"])
        title = f"{times} × block, {_number(block['parameters'])} parameters each"
        yield title if times > 1 else f"block, {_number(block['parameters'])} parameters", list(_block(block, arch))
    if record["ahead"]:
        title = f"{arch.predict_ahead} × block ahead, in training only: the next token but one and so on"
        yield title, list(_ahead(record, arch))
    yield "head", list(_head(record, arch))


def _embedding(record: Facts, arch: Architecture) -> Iterator[Line]:
    yield from _tensors(record["embedding"])
    if arch.positions == "sinusoidal":
        yield Line("sinusoidal positions are added")
    if arch.embedding_scale:
        yield Line(f"token embeddings × √{_number(arch.hidden_size)}")
    if arch.embedding_norm:
        yield Line("RMSNorm without gains")


def _head(record: Facts, arch: Architecture) -> Iterator[Line]:
    head = [row for row in record["end"] if row["kind"] == "head"]
    if arch.norm_placement != "post":
        yield from _tensors(row for row in record["end"] if row["kind"] != "head")
        if not arch.norm_gains:
            yield Line(_labelled(NORM_NAMES[arch.norm], "no gains"))
    shape = f"{_number(arch.hidden_size)} → {_number(arch.vocabulary_size)}"
    if head:
        yield Line(_labelled("lm_head", shape), head[0]["parameters"], record["head_flops"])
    else:
        yield Line(_labelled("embed_tokens", f"{shape}, tied"), None, record["head_flops"])
    if arch.logit_softcap:
        yield Line(f"logits bent to stay below {arch.logit_softcap:g}")


def _ahead(record: Facts, arch: Architecture) -> Iterator[Line]:
    """The blocks that predict further tokens, in sum; their use of the head is in the head's box."""
    rows = record["ahead"]
    projections = [row for row in rows if "projection" in row["name"]]
    shape = f"{_number(2 * arch.hidden_size)} → {_number(arch.hidden_size)}"
    yield _sum(_labelled("projection", shape), projections)
    inner = [row for row in rows if row not in projections]
    total = _sum("block with a plain feed-forward layer", inner)
    yield Line(total.text, total.parameters, (total.flops or 0) + record["ahead_score_flops"])


def _block(block: Facts, arch: Architecture) -> Iterator[Line]:
    """The lines of one kind of layer: the residual stream on the left, what is added to it on branches."""
    from groundup.model.block import NORMS

    times = len(block["layers"])
    rows = [{**row, "parameters": times * row["parameters"], "flops": times * row["flops"]} for row in block["parts"]]
    norms = NORMS[arch.norm_placement]
    yield Line(f"│ {_spans(block['layers'])}", style="dim")
    yield from (Line("│ " + line.text, line.parameters, line.flops) for line in _tensors(_named(rows, "", depth=1)))
    for part, before, after in (("self_attn.", *norms[:2]), ("mlp.", *norms[2:])):
        inner = _attention(block, rows, arch) if part == "self_attn." else _mlp(rows, arch)
        lines = [*_norm(rows, before, arch), *inner]
        closing = list(_norm(rows, after, arch))
        on_stream = arch.norm_placement == "post"
        yield Line("├─╮")
        for line in [*lines, *([] if on_stream else closing)]:
            yield Line("│ │ " + line.text, line.parameters, line.flops, line.style)
        yield Line("⊕─╯")
        for line in closing if on_stream else ():
            yield Line("│ " + line.text, line.parameters, line.flops, line.style)


def _norm(rows: list[Facts], name: str | None, arch: Architecture) -> Iterator[Line]:
    """A norm by the name its tensors would have; one without gains has none."""
    if name is None:
        return
    tensors = _named(rows, name + ".")
    shape = f"{_number(arch.hidden_size)}{_bias(tensors)}" if tensors else "no gains"
    yield _sum(f"{NORM_NAMES[arch.norm]:<{LABEL + INDENT}} {shape}", tensors)


def _attention(block: Facts, rows: list[Facts], arch: Architecture) -> Iterator[Line]:
    tensors = _named(rows, "self_attn.")
    scores = len(block["layers"]) * block["score_flops"]
    total = _sum(_attention_name(block, arch), tensors)
    yield Line(total.text, total.parameters, (total.flops or 0) + scores, "bold")
    inside = [row for row in tensors if ".o_proj." not in row["name"]]
    keys = _labelled("scores, values", f"{_number(round(block['mean_keys']))} keys on average")
    last = _tensors([row for row in tensors if row not in inside], "self_attn.")
    for line in (*_tensors(inside, "self_attn."), Line(keys, None, scores), *last):
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
        (block["window"] is not None, f"a window of {_number(block['window'] or 0)}"),
    ]
    return ", ".join([kind, *(text for on, text in options if on)])


def _mlp(rows: list[Facts], arch: Architecture) -> Iterator[Line]:
    tensors = _named(rows, "mlp.")
    name = f"feed-forward, {ACTIVATIONS[arch.feed_forward]} of {_number(arch.intermediate_size)}"
    if arch.experts is not None and any(row["kind"] == "experts" for row in tensors):
        inner = arch.experts.intermediate_size or arch.intermediate_size
        name = f"{arch.experts.per_token} of {arch.experts.count} experts, {ACTIVATIONS[arch.feed_forward]} of "
        name += _number(inner) + (f", and {arch.experts.shared} shared" if arch.experts.shared else "")
    total = _sum(name, tensors)
    yield Line(total.text, total.parameters, total.flops, "bold")
    for line in _tensors(tensors, "mlp."):
        yield Line(" " * INDENT + line.text, line.parameters, line.flops)


def _tensors(rows: Iterable[Facts], prefix: str = "") -> Iterator[Line]:
    """A line for each module, its weight and bias in one."""
    modules: dict[str, list[Facts]] = {}
    for row in rows:
        name = row["name"].removeprefix(prefix)
        place, _, last = name.rpartition(".")
        modules.setdefault(place if last in ("weight", "bias") else name, []).append(row)
    for name, tensors in modules.items():
        yield _sum(_labelled(name, _shape(tensors) + _bias(tensors)), tensors)


def _shape(tensors: list[Facts]) -> str:
    """As what it does: rows × channels of a table, in → out of a matrix, count × (in → out) of a stack."""
    shape = tensors[0]["shape"]
    if len(shape) == 3:
        return f"{_number(shape[0])} × ({_number(shape[2])} → {_number(shape[1])})"
    if len(shape) == 2 and tensors[0]["flops"]:
        return f"{_number(shape[1])} → {_number(shape[0])}"
    return " × ".join(map(_number, shape))


def _bias(tensors: list[Facts]) -> str:
    return " + bias" if any(row["name"].endswith(".bias") for row in tensors) else ""


def _named(rows: list[Facts], prefix: str, depth: int | None = None) -> list[Facts]:
    """The rows whose name begins so, and where ``depth`` is given has so many parts."""
    found = [row for row in rows if row["name"].startswith(prefix)]
    return [row for row in found if depth is None or len(row["name"].split(".")) == depth]


def _sum(text: str, rows: list[Facts]) -> Line:
    return Line(text, sum(row["parameters"] for row in rows), sum(row["flops"] for row in rows))


def _labelled(label: str, text: str) -> str:
    return f"{label:<{LABEL}} {text}"


def _panel(title: str, lines: list[Line], width: int, totals: tuple[int, float]) -> RenderableType:
    from rich.panel import Panel
    from rich.text import Text

    inner = width - 4
    body = Text()
    for number, line in enumerate(lines):
        body.append("\n" if number else "")
        body.append(_rendered(line, inner, totals))
    return Panel(body, title=Text(title), title_align="left", width=width, padding=(0, 1))


def _rendered(line: Line, inner: int, totals: tuple[int, float]) -> Text:
    """The text on the left, wrapped under its own rail, and the numbers on the right of its first line."""
    from rich.text import Text

    rail = line.text[: len(line.text) - len(line.text.lstrip("│ "))]
    hanging = rail + " " * INDENT
    left = inner - 4 * CELL
    wrapped = _wrap(line.text[len(rail) :], left, rail, hanging)
    numbers = _cells(line.parameters, totals[0], "kMBT") + _cells(line.flops, totals[1], "kMGT")
    first = f"{wrapped[0]:<{left}}{numbers}".rstrip()
    return Text("\n".join([first, *wrapped[1:]]), style=line.style)


def _wrap(text: str, width: int, first: str = "", later: str = "") -> list[str]:
    """Lines of ``text``; spaces within stay, since they align columns."""
    if len(first) + len(text) <= width:
        return [first + text]
    return textwrap.wrap(
        " ".join(text.split()), width, initial_indent=first, subsequent_indent=later, break_on_hyphens=False
    )


def _cells(number: float | None, total: float, units: str) -> str:
    if not number:
        return " " * (2 * CELL)
    share = number / total
    text = f"{share:.1%}" if share >= 0.0005 else "<0.1%"
    return f"{short(number, units):>{CELL}}{text:>{CELL}}"


def _spans(layers: list[int]) -> str:
    """Layers as ranges: 0–4, 6–10; of many ranges the first few and the last."""
    spans: list[list[int]] = []
    for layer in layers:
        if spans and spans[-1][1] == layer - 1:
            spans[-1][1] = layer
        else:
            spans.append([layer, layer])
    names = [str(low) if low == high else f"{low}–{high}" for low, high in spans]
    if len(names) > 5:
        names = [*names[:3], "…", names[-1]]
    return ("layer " if len(layers) == 1 else "layers ") + ", ".join(names)


def _windows(arch: Architecture) -> bool:
    return any(arch.has_window(layer) for layer in range(arch.layers))


def _number(number: int) -> str:
    return f"{number:,}"


def _bytes(count: int) -> str:
    for size, unit in ((2**40, "TiB"), (2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")):
        if count >= size:
            return f"{count / size:.2f} {unit}"
    return f"{count} bytes"
