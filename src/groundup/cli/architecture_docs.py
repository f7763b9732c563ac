"""``python -m groundup.cli.architecture_docs [FILE]`` writes docs/architectures.md, counted from the presets' data."""

from __future__ import annotations

import sys
import textwrap
from itertools import groupby
from pathlib import Path
from typing import Any

from groundup.cli.show import preset_rows

_HEAD = """# Architectures

<!-- Made from src/groundup/recipe/architectures.toml by `python -m groundup.cli.architecture_docs`; edit that. -->

A preset is a published architecture by name. It fills `[model]`; what is written beside it wins, key by key:

```toml
[model]
preset = "qwen3-0.6b"
layers = 12
```

`groundup show` lists the presets, and `groundup show NAME` draws one with shapes, parameters and FLOPs of every part.
The data are in `src/groundup/recipe/architectures.toml`, the fields in [recipe.md](recipe.md#model).

## Parameters, counted and published

Each architecture is built on the meta device, where tensors have shapes but no storage, and its tensors are counted;
a test compares the count with the published one and with the model that `transformers` builds from the same numbers.
Every parameter counts once, so that a head tied to the embedding has none of its own. *For a token*: those that one
token goes through, without the experts that are not chosen. *Cache*: what generation keeps of each earlier token, in
bfloat16; layers with a window need it only for the tokens in sight.

The count takes the published vocabulary. A build's own tokenizer has its own, and its model is larger or smaller by
that.
"""
_FAMILIES = {
    "gpt2": "GPT-2",
    "llama": "Llama 3",
    "qwen3": "Qwen3",
    "mistral": "Mistral and Mixtral",
    "olmo-2": "OLMo 2",
    "gemma-3": "Gemma 3, text",
    "deepseek": "DeepSeek-V2",
    "transformer": "Attention Is All You Need",
    "ladder": "The ladder",
}
_REMARKS = {
    "gemma-3": "The 4B, 12B and 27B releases see images too. Counted here is the text model alone: the published "
    "total, in the notes, less the vision tower's 416,866,032 and its projection's 1,152 · (width + 1).",
    "deepseek": "Latent attention (arXiv 2405.04434) keeps one vector of 512 channels and a key of 64 a token, "
    "whatever the number of heads.",
    "transformer": "The paper's model translates, with an encoder and a decoder. These are its decoders alone, as "
    "language models: norms after each sum, sinusoidal positions, ReLU, biases, embeddings scaled by √width. Nobody "
    "has published such a count.",
    "ladder": """\
Our own family for experiments across sizes, and the only one with a dial: the number of layers sets everything else
(`ladder()` in `src/groundup/recipe/architectures.py`). Any rung between these is `ladder-dN`, of N layers.

- The width is 4 · depth · (depth + 4), rounded to multiples of 64, and of 256 from 512 on. So small models are narrow,
  32 channels a layer at 4 layers, and large ones as wide as is usual, 64 at 12 (GPT-2's shape) and 102 at 20. With
  multiples of 256 every matrix fits GGUF's k-quants.
- Heads are 32 channels wide below a width of 256, 64 below 1,024 and 128 from there on. Two query heads
  share keys and values, unless their number is odd ([ablations.md](ablations.md)).
- The feed-forward layer's inner width is 8/3 of the width (SwiGLU's equal of 4, arXiv 2002.05202), rounded up to
  multiples of 32, 64 or 256.
- The context is the power of two nearest to twice the width, the vocabulary 8 times the context: 2,048 tokens at 1M
  parameters, 32,768 at 1B, close to the compute-optimal sizes of arXiv 2407.13623.
- Embeddings are tied and scaled; all else is the default of `[model]`. The tokenizer's size is set in `[tokenizer]`;
  the table counts with the rule's.""",
}


def architectures_markdown() -> str:
    """The whole page."""
    parts = [_HEAD]
    for family, rows in groupby(preset_rows(), key=lambda row: str(row["family"])):
        parts.append(f"### {_FAMILIES[family]}\n")
        if family in _REMARKS:
            remark = _REMARKS[family]
            parts.append((remark if "\n" in remark else textwrap.fill(remark, 118)) + "\n")
        parts.append(_table(list(rows)))
    return "\n".join(parts)


def _table(rows: list[dict[str, Any]]) -> str:
    """The members of one family; columns that none of them fills are left out."""
    published = any(row["published_parameters"] is not None for row in rows)
    mixed = any(row["active_parameters"] < row["parameters"] for row in rows)
    noted = any(row["note"] for row in rows)
    header = ["preset", "layers", "width", "heads", "vocabulary", "context", "parameters"]
    header += [*(["published"] * published), *(["for a token"] * mixed), "cache, bytes", *(["note"] * noted)]
    lines = [f"| {' | '.join(header)} |", "|---|" + "--:|" * (len(header) - 1 - noted) + "---|" * noted]
    for row in rows:
        heads = f"{row['heads']}" if row["heads"] == row["kv_heads"] else f"{row['heads']} / {row['kv_heads']}"
        cells = [_name(row), _number(row["layers"]), _number(row["hidden_size"]), heads]
        cells += [_number(row[key]) for key in ("vocabulary_size", "context_length", "parameters")]
        cells += [_number(row["published_parameters"])] * published + [_number(row["active_parameters"])] * mixed
        cells += [_number(row["cache_bytes_per_token"]), *([row["note"]] * noted)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _name(row: dict[str, Any]) -> str:
    source = row["source"]
    return f"[`{row['name']}`]({source})" if source.startswith("https://") else f"`{row['name']}`"


def _number(number: int | None) -> str:
    return "–" if number is None else f"{number:,}"


def main() -> None:
    """Write the page."""
    path = Path(sys.argv[1] if len(sys.argv) > 1 else "docs/architectures.md")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(architectures_markdown(), encoding="utf-8")


if __name__ == "__main__":
    main()
