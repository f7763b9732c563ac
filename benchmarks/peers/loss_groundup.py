"""Our side of time_to_loss.py: the trainer that `groundup build` uses.

loss_groundup.py '{"text": …, "seed": 1, "threads": 2}'
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from shakespeare import characters, score, splits

# What reaches nanoGPT's loss soonest: too short to be compiled, so of layers that PyTorch has whole.
LENGTH, ROWS, UPDATES = 64, 32, 130
MODEL = {
    "layers": 2, "hidden_size": 128, "heads": 4, "kv_heads": 4, "intermediate_size": 512, "context_length": LENGTH,
    "norm": "layer", "feed_forward": "squared_relu", "qk_norm": "none", "bigram_rows": 65 * 65,
}  # fmt: skip
OPTIMIZER = {"muon_lr": 0.06, "embedding_lr": 0.05, "adamw_lr": 0.003}
SCHEDULE = {"warmup_fraction": 0.02, "cooldown_fraction": 0.6}


def main() -> None:
    given = json.loads(sys.argv[1])
    text = Path(given["text"])
    from groundup.hardware import resolve
    from groundup.model import Architecture, fresh_model, parameter_count
    from groundup.recipe import ModelSection, PretrainSection
    from groundup.tokenizer import Loader, PackedRows, Prefetch, ShardWriter, TokenShards
    from groundup.training import Job, NextToken, prepare
    from groundup.training.budget import Plan
    from groundup.training.loop import Trainer

    train, validation = splits(text)
    hardware = resolve(device="cpu", precision="bf16", compile=False, threads=given["threads"])
    prepare(hardware)
    section = PretrainSection.model_validate(
        {"steps": UPDATES, "tokens_per_update": ROWS * LENGTH, "sequence_length": LENGTH,
         "optimizer": OPTIMIZER, "schedule": SCHEDULE}
    )  # fmt: skip
    arch = Architecture.from_section(ModelSection.model_validate(MODEL), len(characters(text)))
    model = fresh_model(arch, given["seed"])
    with tempfile.TemporaryDirectory() as folder:
        with ShardWriter(Path(folder) / "shards", "uint16", pad_id=0) as writer:
            writer.add_many(train.astype(np.int64), [len(train)], [0])
        loader = Loader(PackedRows(TokenShards(Path(folder) / "shards"), LENGTH, given["seed"]), ROWS)
        plan = Plan("", UPDATES, ROWS, ROWS, LENGTH)
        job = Job(
            "bench",
            "pretrain",
            Path(folder),
            "",
            model,
            NextToken(),
            loader,
            section,
            plan,
            hardware,
            given["seed"],
            bool,
        )
        trainer = Trainer(job)
        begun = time.perf_counter()
        with Prefetch(loader, 0, UPDATES) as updates:
            for number, update in enumerate(updates, start=1):
                report = trainer.update(update)
                if number % 50 == 0:
                    print(f"{number}: {report['loss']:.4f} after {time.perf_counter() - begun:.1f} s", file=sys.stderr)
        seconds = time.perf_counter() - begun
    model.eval()
    loss = score(lambda ids: model.logits(model(ids)), validation, LENGTH)
    print(
        json.dumps(
            {"seconds": seconds, "loss": loss, "tokens": trainer.done.tokens, "parameters": parameter_count(arch).total}
        )
    )


if __name__ == "__main__":
    main()
