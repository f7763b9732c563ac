"""`groundup show`: a model's architecture, drawn with shapes, parameters and FLOPs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from groundup.cli.output import print_json
from groundup.cli.subject import about, find_subject

if TYPE_CHECKING:
    from groundup.model import Architecture
    from groundup.model.count import Part


def show(
    what: str | None = None, /, *, stage: str | None = None, context: int | None = None, json: bool = False
) -> None:
    """Draw the architecture of a run, a preset or a recipe: shapes, parameters and FLOPs of every part.

    Nothing is given memory, so that a model of 70B parameters is shown at once on any machine.

    Example: groundup show qwen3-0.6b

    Parameters
    ----------
    what
        A run or model directory (a checkpoint of others too), a preset of [model], a built-in recipe or a TOML file.
        Without it, the presets are listed.
    stage
        Of a run: the stage whose model is shown; the last trained one where not given.
    context
        Tokens in a row, for FLOPs and the cache, or words in a sentence; the model's longest where not given.
    json
        Print all numbers as one JSON object.
    """
    from groundup.run import UserError

    if context is not None and context < 1:
        raise UserError(f"--context {context} can't be used", expected="a number of at least 1")
    if what is None:
        _list(json=json)
        return
    from groundup.model import EncoderDecoderArchitecture

    subject = find_subject(what, stage)
    arch, named = subject.arch, {"name": subject.name, "preset": subject.preset, "notes": dict(subject.notes)}
    seen = context or arch.context_length
    if isinstance(arch, EncoderDecoderArchitecture):
        from groundup.cli.encoder_decoder import describe_encoder_decoder, draw_encoder_decoder

        record = {**named, **describe_encoder_decoder(arch, seen)}
        print_json(record) if json else draw_encoder_decoder(record, arch)
    else:
        from groundup.cli.drawing import draw

        record = {**named, **describe(arch, seen)}
        print_json(record) if json else draw(record, arch)


def preset_rows() -> list[dict[str, Any]]:
    """Every preset: its data, and parameters, those of one token, and cached bytes a token as counted here."""
    from groundup.model import Architecture, parameter_count
    from groundup.recipe import ModelSection
    from groundup.recipe.architectures import architecture, architecture_names

    rows = []
    for name in architecture_names():
        preset = architecture(name)
        arch = Architecture.from_section(ModelSection(preset=name), preset.vocabulary_size)
        count = parameter_count(arch)
        rows.append(
            {
                **about(preset),
                "parameters": count.total,
                "active_parameters": count.active,
                "layers": arch.layers,
                "hidden_size": arch.hidden_size,
                "heads": arch.heads,
                "kv_heads": arch.kv_heads,
                "vocabulary_size": arch.vocabulary_size,
                "context_length": arch.context_length,
                "cache_bytes_per_token": cache_bytes(arch, 1),
            }
        )
    return rows


def describe(arch: Architecture, context: int) -> dict[str, Any]:
    """All numbers of a model, JSON-able.

    Parameters are counted once each, FLOPs are of training (forward and backward) for one token of a row of ``context``
    tokens, and ``blocks`` are kinds of layers with the numbers of one such layer. Bytes are those of bfloat16.
    """
    import dataclasses

    from groundup.model import flops_per_token, parameter_count
    from groundup.model.count import attention_flops, model_parts

    count = parameter_count(arch)
    outside = [part for part in model_parts(arch) if part.layer is None]
    ahead = [part for part in outside if part.name.startswith("model.ahead.")]
    end = [part for part in outside if part.kind == "head" or part.name.startswith("model.norm.")]
    return {
        "kind": "decoder",
        "architecture": arch.to_dict(),
        "context": context,
        "parameters": {**dataclasses.asdict(count), "total": count.total, "active": count.active},
        "flops_per_token": flops_per_token(arch, context),
        "weight_bytes": 2 * count.total,
        "cache_bytes_per_token": cache_bytes(arch, 1),
        "cache_bytes": cache_bytes(arch, context),
        "embedding": [_row(part) for part in outside if part not in ahead and part not in end],
        "blocks": _blocks(arch, context),
        "ahead": [_row(part) for part in ahead],
        "ahead_score_flops": arch.predict_ahead * attention_flops(arch, arch.layers - 1, context),
        "end": [_row(part) for part in end],
        "head_flops": 6.0 * (1 + arch.predict_ahead) * arch.vocabulary_size * arch.hidden_size,
    }


def cache_bytes(arch: Architecture, tokens: int) -> int:
    """Bytes in bfloat16 that generation needs of so many earlier tokens; layers with a window need no more than it."""
    size = 0
    for layer, tensors in enumerate(arch.cache_shapes()):
        seen = min(tokens, arch.window) if arch.window is not None and arch.has_window(layer) else tokens
        size += 2 * seen * sum(heads * width for heads, width in tensors)
    return size


def _blocks(arch: Architecture, context: int) -> list[dict[str, Any]]:
    """The kinds of layers, each with the numbers of the layers that are of it."""
    from groundup.model.count import attention_flops, mean_keys, model_parts

    layers: list[list[Part]] = [[] for _ in range(arch.layers)]
    for part in model_parts(arch):
        if part.layer is not None:
            layers[part.layer].append(part)
    kinds: dict[Any, list[int]] = {}
    for layer, parts in enumerate(layers):
        shapes = tuple((_inner_name(part), part.shape) for part in parts)
        kinds.setdefault((arch.has_window(layer), shapes), []).append(layer)
    found = []
    for (windowed, _), members in kinds.items():
        first = members[0]
        rows = [_row(part) for part in layers[first]]
        scores = attention_flops(arch, first, context)
        found.append(
            {
                "layers": members,
                "window": arch.window if windowed else None,
                "mean_keys": mean_keys(arch, first, context),
                "parameters": sum(row["parameters"] for row in rows),
                "flops": sum(row["flops"] for row in rows) + scores,
                "score_flops": scores,
                "parts": rows,
            }
        )
    return found


def _row(part: Part) -> dict[str, Any]:
    """A tensor's numbers. The head's FLOPs are told apart, since a tied head has them and no tensor."""
    flops = 6.0 * part.active if part.multiplies and part.kind != "head" else 0.0
    return {
        "name": _inner_name(part),
        "kind": part.kind,
        "shape": list(part.shape),
        "parameters": part.parameters,
        "flops": flops,
    }


def _inner_name(part: Part) -> str:
    """The name within the layer; outside of layers, within the model."""
    prefix = "model." if part.layer is None else f"model.layers.{part.layer}."
    return part.name.removeprefix(prefix)


def _list(*, json: bool) -> None:
    """The presets, one a line."""
    rows = preset_rows()
    if json:
        print_json(rows)
        return
    from groundup.cli.boxes import short
    from groundup.cli.inspect import _table

    cells = []
    for row in rows:
        few = row["active_parameters"] < row["parameters"]
        cells.append(
            [row["name"], short(row["parameters"]), short(row["active_parameters"]) if few else "", row["about"]]
        )
    _table(["preset", "parameters", "for a token", "what it is"], cells)
    print("ladder-dN is the rung of N layers. groundup show NAME draws one.")
