"""Our side of time_to_loss.py: the trainer that `groundup build` uses.

loss_groundup.py '{"text": …, "setting": "short", "seed": 1, "threads": 2}'
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from shakespeare import characters, score, splits


@dataclass(frozen=True)
class Setting:
    """A model and how it is trained; ``rows`` in an update, ``micro`` in a pass."""

    length: int
    rows: int
    micro: int
    updates: int
    compile: bool
    model: dict[str, Any]
    optimizer: dict[str, Any]
    schedule: dict[str, Any]


SETTINGS = {
    # What reaches nanoGPT's loss soonest: too short to be compiled, so of layers that PyTorch has whole.
    "short": Setting(
        64, 32, 32, 130, False,
        {"layers": 2, "hidden_size": 128, "heads": 4, "kv_heads": 4, "intermediate_size": 512,
         "norm": "layer", "feed_forward": "squared_relu", "qk_norm": "none", "bigram_rows": 65 * 65},
        {"muon_lr": 0.06, "embedding_lr": 0.05, "adamw_lr": 0.003},
        {"warmup_fraction": 0.02, "cooldown_fraction": 0.6},
    ),
    # As low as twenty minutes go.
    "stretch": Setting(
        256, 32, 16, 1500, True,
        {"layers": 6, "hidden_size": 192, "heads": 6, "kv_heads": 6, "bigram_rows": 65 * 65},
        {"muon_lr": 0.02, "embedding_lr": 0.03, "adamw_lr": 0.003, "weight_decay": 0.2},
        {"warmup_fraction": 0.02, "cooldown_fraction": 0.6},
    ),
}  # fmt: skip


class Windows:
    """Windows at random places of a text; update n is a function of the seed and n."""

    def __init__(self, ids: NDArray[np.uint16], setting: Setting, seed: int) -> None:
        self.ids, self.length, self.rows, self.seed = ids.astype(np.int32), setting.length, setting.rows, seed

    def update(self, step: int) -> Any:
        from groundup.tokenizer import Batch

        starts = np.random.default_rng((self.seed, step)).integers(len(self.ids) - self.length, size=self.rows)
        found = self.ids[starts[:, None] + np.arange(self.length + 1)]
        places = np.broadcast_to(np.arange(self.length, dtype=np.int32), (self.rows, self.length))
        return Batch(found[:, :-1], found[:, 1:], places, np.ones_like(places))


def main() -> None:
    given = json.loads(sys.argv[1])
    text, setting = Path(given["text"]), SETTINGS[given["setting"]]
    from groundup.hardware import resolve
    from groundup.model import Architecture, fresh_model, parameter_count
    from groundup.recipe import ModelSection, PretrainSection
    from groundup.tokenizer import Prefetch
    from groundup.training import Job, NextToken, prepare
    from groundup.training.budget import Plan
    from groundup.training.loop import Trainer

    train, validation = splits(text)
    updates, length, rows, seed = setting.updates, setting.length, setting.rows, given["seed"]
    hardware = resolve(device="cpu", precision="bf16", compile=setting.compile, threads=given["threads"])
    prepare(hardware)
    section = PretrainSection.model_validate(
        {"steps": updates, "tokens_per_update": rows * length, "sequence_length": length,
         "optimizer": setting.optimizer, "schedule": setting.schedule}
    )  # fmt: skip
    shape = ModelSection.model_validate({**setting.model, "context_length": length})
    model = fresh_model(Architecture.from_section(shape, len(characters(text))), seed)
    source = Windows(train, setting, seed)
    with tempfile.TemporaryDirectory() as folder:
        plan = Plan("", updates, rows, setting.micro, length, setting.compile)
        job = Job(
            "bench", "pretrain", Path(folder), "", model, NextToken(), source, section, plan, hardware, seed, bool
        )  # fmt: skip
        trainer = Trainer(job)
        begun = time.perf_counter()
        with Prefetch(source, 0, updates) as batches:
            for number, batch in enumerate(batches, start=1):
                report = trainer.update(batch)
                if number % 50 == 0:
                    print(f"{number}: {report['loss']:.4f} after {time.perf_counter() - begun:.1f} s", file=sys.stderr)
        seconds = time.perf_counter() - begun
    model.eval()
    loss = score(lambda ids: model.logits(model(ids)), validation, length)
    count = parameter_count(model.arch).total
    print(json.dumps({"seconds": seconds, "loss": loss, "tokens": trainer.done.tokens, "parameters": count}))


if __name__ == "__main__":
    main()
