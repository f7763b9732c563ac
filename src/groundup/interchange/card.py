"""README.md of an export: what the model is and how to load it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from groundup.interchange.stock import StockForm
from groundup.model import parameter_count

_CHAT = """\
messages = [{"role": "user", "content": "Hello!"}]
inputs = tokenizer.apply_chat_template(
    messages, add_generation_prompt=True, return_dict=True, return_tensors="pt"
)
"""
_PLAIN = """\
inputs = tokenizer("Once upon a time", return_tensors="pt")
"""
_OWN = """\
A message ends with `<|end|>`, a document with `<|endoftext|>`. The chat template takes `tools=` too; a model that was
taught to call them writes `<|tool|>` and one JSON object of `name` and `arguments` a call. A template is rendered to
one string, so a message that spells such a token becomes it: give `apply_chat_template` texts of strangers with
`sanitize_control_tokens=True`, which newer versions of `transformers` have.
"""
_SOURCE = """\
The tokenizer, its chat template and the stop tokens are those of the checkpoint that the model was imported from.
"""


@dataclass(frozen=True)
class Base:
    """The checkpoint of others that a model goes back to."""

    family: str
    """its layout's `model_type`"""
    name: str
    """its name on Hugging Face's hub where that is known, else its folder's"""
    on_hub: bool
    folder: Path
    """where its licence is, if it brought one"""
    tuned: bool
    """whether the model was trained on from there"""


def model_card(name: str, form: StockForm, *, own: bool, base: Base | None = None, licences: Sequence[str] = ()) -> str:
    """The text of README.md.

    Args:
        own: whether the tokenizer is this package's, with its chat format.
        base: the checkpoint that the model goes back to; None where it was built here.
        licences: files of the base that lie beside the card.
    """
    arch = form.arch
    count = parameter_count(arch)
    head = "shared with the embedding" if arch.tied_embeddings else "of its own"
    notes = _OWN if own else _SOURCE
    if form.folded:
        notes += f"\nIn training the model also had {', '.join(form.folded)}; these are worked into the weights here.\n"
    if form.dropped:
        notes += (
            f"\nThe {len(form.dropped)} tensors that predict further tokens in training are not part of this export.\n"
        )
    # The hub reads this as "made of": a model that nobody has trained on is the base itself.
    made_of = f"base_model: {base.name}\n" if base is not None and base.on_hub and base.tuned else ""
    return f"""\
---
library_name: transformers
pipeline_tag: text-generation
{made_of}---
# {name}

{_origin(base)}, in the `{form.layout.class_name}` layout.

| | |
|---|---|
| parameters | {count.total:,} ({count.embedding:,} of them embeddings) |
| layers, width, feed-forward | {arch.layers}, {arch.hidden_size}, {arch.intermediate_size} |
| query heads, key and value heads, head width | {arch.heads}, {arch.kv_heads}, {arch.resolved_head_dim} |
| context | {arch.context_length:,} tokens |
| vocabulary | {arch.vocabulary_size:,} rows; output head {head} |

```python
from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained(".")
model = AutoModelForCausalLM.from_pretrained(".")
{_CHAT if own else _PLAIN}output = model.generate(**inputs, max_new_tokens=40)
print(tokenizer.decode(output[0, inputs["input_ids"].shape[1]:], skip_special_tokens=True))
```

{notes}
{_more(base, licences)}
"""


def _origin(base: Base | None) -> str:
    """What the model is, as far as the comma before its layout."""
    if base is None:
        return "A language model built from the ground up with groundup"
    checkpoint = f"checkpoint `{base.name}` (family `{base.family}`)"
    if base.tuned:
        return f"A language model trained further with groundup from the {checkpoint}"
    return f"The {checkpoint}, imported by groundup and written out again with no training in between"


def _more(base: Base | None, licences: Sequence[str]) -> str:
    """Where the rest of what a reader should know is found."""
    here = "What the model was trained on, and how well it answers, is in the run directory that it comes from."
    if base is not None:
        here = "What the checkpoint was trained on, and what it may be used for, its makers say."
        if base.tuned:
            here += " What it has learned since, and how well it answers, is in the run directory that it comes from."
    return here + (f" The checkpoint brought {', '.join(licences)}, which lie beside this file." if licences else "")
