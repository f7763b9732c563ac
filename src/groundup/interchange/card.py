"""README.md of an export: what the model is and how to load it."""

from __future__ import annotations

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


def model_card(name: str, form: StockForm, *, own: bool) -> str:
    """The text of README.md.

    Args:
        own: whether the tokenizer is this package's, with its chat format.
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
    return f"""\
---
library_name: transformers
pipeline_tag: text-generation
---
# {name}

A language model built from the ground up with groundup, in the `{form.layout.class_name}` layout.

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
What the model was trained on, and how well it answers, is in the run directory that it comes from.
"""
