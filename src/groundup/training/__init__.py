"""The one training loop, and pretraining on it.

In come packed rows, an objective and a recipe's section; out come weights in ``final``, checkpoints,
``metrics.jsonl`` and ``samples.jsonl``. The room promises:

- update n depends on the weights, the optimizer's state and n alone: a killed process, run again, reaches the same
  bits;
- the loss is a sum over one count taken over the whole update, so micro-batches never change the gradient;
- a step that is not to be trusted (non-finite, spiking) touches neither weights nor optimizer;
- what a probe decides is written to ``plan.json`` before the first update and never decided again.

``loop.py`` is the loop; ``objective.py`` says what an objective is; ``pretrain.py`` shows a driver, and ``seq2seq.py``
one for a model of another kind.
"""

from groundup.training.budget import Plan
from groundup.training.compute import autocast, prepare
from groundup.training.failures import is_out_of_memory, plain_words, release_memory
from groundup.training.journal import read_journal
from groundup.training.loop import Job, train
from groundup.training.objective import NextToken, Objective, Rows, Source, decoder_flops, to_tensors
from groundup.training.optimizers import Optimizer, orthogonalise
from groundup.training.pretrain import pretrain
from groundup.training.schedule import lr_factor
from groundup.training.seq2seq import seq2seq
from groundup.training.stage import (
    Phase,
    load_start,
    make_plan,
    open_rows,
    require_ramps_fit,
    sampler,
    save_final,
    train_on_rows,
)
from groundup.training.trackers import Tracking, require_trackers
from groundup.training.validation import validator

__all__ = [
    "Job",
    "NextToken",
    "Objective",
    "Optimizer",
    "Phase",
    "Plan",
    "Rows",
    "Source",
    "Tracking",
    "autocast",
    "decoder_flops",
    "is_out_of_memory",
    "lr_factor",
    "load_start",
    "make_plan",
    "open_rows",
    "orthogonalise",
    "plain_words",
    "prepare",
    "pretrain",
    "read_journal",
    "release_memory",
    "require_ramps_fit",
    "require_trackers",
    "sampler",
    "save_final",
    "seq2seq",
    "to_tensors",
    "train",
    "train_on_rows",
    "validator",
]
