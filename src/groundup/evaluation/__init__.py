"""What a model can do, in numbers that carry their uncertainty.

In come models, the tokenizer and the ``[evaluate]`` section; out come results.json (every model, task and
split: value, 95 % interval, n), comparisons.json (paired differences between one stage and the next) and
items.jsonl (what each model said to each item, and the verdict). Promises:

* every item is generated once for a model, greedily, and every score is read off that (`evaluate`,
  `answers`);
* a chat model is asked in its chat format and must end its answer; a base model continues plain text
  (`answers`);
* the true answers come from the simulator; random, majority and copy-last baselines meet the same judge
  (`items`);
* every score has n and an interval that fits it: Wilson for a rate, its limits combined for a mean of two
  rates, the bootstrap by document for bits per byte and by story for a difference (`scores`, `bits`);
* what assistants say in conversations that no stage learned from is predicted by chat models in the chat format,
  by base models as plain lines (`conversations`);
* a user's own JSONL tasks are scored beside them, and a bad line is named (`custom`).
"""

from groundup.evaluation.bits import bits_per_byte_of
from groundup.evaluation.conversations import ANSWERS, MAX_CONVERSATIONS, HeldOut
from groundup.evaluation.evaluate import TASKS, Foreign, evaluate, task_texts
from groundup.evaluation.scores import mean_of_two

__all__ = [
    "ANSWERS",
    "MAX_CONVERSATIONS",
    "TASKS",
    "Foreign",
    "HeldOut",
    "bits_per_byte_of",
    "evaluate",
    "mean_of_two",
    "task_texts",
]
