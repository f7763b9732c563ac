"""Export to Hugging Face's layout: a directory that stock tools load with no custom code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from groundup.interchange.layout import configuration, why_no_stock_layout
from groundup.interchange.weights import WEIGHTS, load_architecture, load_model, write_tensors
from groundup.model import Architecture, parameter_count
from groundup.run import UserError, staged_directory, write_json, write_text
from groundup.tokenizer import Tokenizer, chat_template

BOS, EOS, PAD, TOOL = "<|endoftext|>", "<|end|>", "<|pad|>", "<|tool|>"


def export_hf(model_dir: Path, tokenizer_dir: Path, out: Path, *, name: str = "groundup") -> dict[str, Any]:
    """Write a model and its tokenizer into ``out`` as `transformers`, vLLM and others read them.

    The weights are copied, nothing is folded, so logits agree exactly. Files: config.json,
    generation_config.json, model.safetensors, tokenizer.json, tokenizer_config.json (with the chat template),
    special_tokens_map.json and README.md. ``out`` appears as a whole or not at all.

    Args:
        name: what the model card calls the model.

    Returns:
        metrics: parameters, tensors and bytes of the export.

    Raises:
        UserError: if the architecture has no stock layout, a file is missing, or the tokenizer has more ids
            than the model has rows.
    """
    arch = load_architecture(model_dir)
    reasons = why_no_stock_layout(arch)
    if reasons:
        raise UserError(
            f"this model has {' and '.join(reasons)}, and no stock layout exists for that",
            where=str(model_dir),
            expected="positions = rotary and qk_norm = true, the Qwen3 layout",
            mend="this package itself loads the model as it is; train one with the stock layout to export it",
        )
    tokenizer = Tokenizer.load(tokenizer_dir)
    if tokenizer.vocabulary_size > arch.vocabulary_size:
        raise UserError(
            f"the tokenizer has {tokenizer.vocabulary_size} ids, the model only {arch.vocabulary_size} rows",
            where=str(tokenizer_dir),
            mend="export a model with the tokenizer it was trained on",
        )
    with staged_directory(out) as staged:
        dtype = _stored_dtype(Path(model_dir) / WEIGHTS)
        model = load_model(model_dir, dtype=dtype)
        tensors = {key: value.contiguous() for key, value in model.state_dict().items()}
        write_tensors(tensors, staged / WEIGHTS)
        _write_configuration(staged, arch, dtype, tokenizer)
        _write_tokenizer(staged, arch, tokenizer)
        write_text(staged / "README.md", model_card(name, arch, tokenizer))
        size = sum(file.stat().st_size for file in staged.iterdir())
    return {
        "hf_parameters": parameter_count(arch).total,
        "hf_tensors": len(tensors),
        "hf_bytes": size,
        "hf_model_type": "qwen3",
    }


def _stored_dtype(path: Path) -> torch.dtype:
    """The dtype of the weights in a file; float32 where there is no such file, whose absence load_model
    reports."""
    if not path.is_file():
        return torch.float32
    with safe_open(path, framework="pt") as file:
        dtype: torch.dtype = file.get_tensor("model.norm.weight").dtype
    return dtype


def _write_configuration(out: Path, arch: Architecture, dtype: torch.dtype, tokenizer: Tokenizer) -> None:
    """config.json and generation_config.json; generation ends at the end of a message or of a document."""
    ids = {"bos": tokenizer.endoftext, "eos": tokenizer.end, "pad": tokenizer.pad}
    write_json(out / "config.json", configuration(arch, dtype, **ids))
    write_json(
        out / "generation_config.json",
        {
            "bos_token_id": tokenizer.endoftext,
            "eos_token_id": [tokenizer.end, tokenizer.endoftext],
            "pad_token_id": tokenizer.pad,
            "do_sample": False,
        },
    )


def _write_tokenizer(out: Path, arch: Architecture, tokenizer: Tokenizer) -> None:
    """tokenizer.json as it is, and how stock tools should use it."""
    tokenizer.save(out)
    specials = tokenizer.special_ids()
    roles = {"bos_token": BOS, "eos_token": EOS, "pad_token": PAD}
    others = [token for token in specials if token not in roles.values()]
    flags = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True}
    write_json(
        out / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "added_tokens_decoder": {str(id): {"content": token, **flags} for token, id in specials.items()},
            **roles,
            "additional_special_tokens": others,
            "add_bos_token": False,
            "add_prefix_space": False,
            "clean_up_tokenization_spaces": False,
            "model_max_length": arch.context_length,
            "chat_template": chat_template(),
        },
    )
    write_json(out / "special_tokens_map.json", {**roles, "additional_special_tokens": others})


def model_card(name: str, arch: Architecture, tokenizer: Tokenizer) -> str:
    """README.md of an export: what the model is and how to load it."""
    count = parameter_count(arch)
    head = "shared with the embedding" if arch.tied_embeddings else "of its own"
    return f"""\
---
library_name: transformers
pipeline_tag: text-generation
---
# {name}

A language model built from the ground up with groundup, in the `Qwen3ForCausalLM` layout.

| | |
|---|---|
| parameters | {count.total:,} ({count.embedding:,} of them embeddings) |
| layers, width, feed-forward | {arch.layers}, {arch.hidden_size}, {arch.intermediate_size} |
| query heads, key and value heads, head width | {arch.heads}, {arch.kv_heads}, {arch.head_dim} |
| context | {arch.context_length:,} tokens |
| vocabulary | {tokenizer.vocabulary_size:,} tokens, byte-level BPE; output head {head} |

```python
from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained(".")
model = AutoModelForCausalLM.from_pretrained(".")
messages = [{{"role": "user", "content": "Hello!"}}]
inputs = tokenizer.apply_chat_template(
    messages, add_generation_prompt=True, return_dict=True, return_tensors="pt"
)
output = model.generate(**inputs, max_new_tokens=40)
print(tokenizer.decode(output[0, inputs["input_ids"].shape[1]:], skip_special_tokens=True))
```

A message ends with `{EOS}`, a document with `{BOS}`. The chat template takes `tools=` too; a model that was taught
to call them writes `{TOOL}` and one JSON object of `name` and `arguments` a call. A template is rendered to one
string, so a message that spells such a token becomes it: give `apply_chat_template` texts of strangers with
`sanitize_control_tokens=True`, which newer versions of `transformers` have.

What the model was trained on, and how well it answers, is in the run directory that it comes from.
"""
