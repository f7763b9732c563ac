"""Our side of time_to_loss.py: the trainer that `groundup build` uses.

loss_groundup.py '{"text": …, "seed": 1, "threads": 2, "setting": "quick"}'
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from shakespeare import characters, score, splits

SETTINGS: dict[str, dict[str, Any]] = {
    # What reaches nanoGPT's CPU loss soonest: too short to be compiled, so of layers that PyTorch has whole.
    "quick": {
        "model": {
            "layers": 2, "hidden_size": 128, "heads": 4, "kv_heads": 4, "intermediate_size": 512, "context_length": 64,
            "norm": "layer", "feed_forward": "squared_relu", "qk_norm": "none", "bigram_rows": 4225,
        },
        "rows": 32, "steps": 130, "compile": False,
        "optimizer": {"muon_lr": 0.06, "embedding_lr": 0.05, "adamw_lr": 0.003, "weight_decay": 0.0},
        "schedule": {"warmup_fraction": 0.02, "cooldown_fraction": 0.6, "final_lr_fraction": 0.0},
    },
}  # fmt: skip


def main() -> None:
    given = json.loads(sys.argv[1])
    setting, text = SETTINGS[given["setting"]], Path(given["text"])
    from groundup.hardware import resolve
    from groundup.model import Architecture, fresh_model, parameter_count
    from groundup.recipe import ModelSection, PretrainSection
    from groundup.tokenizer import Loader, PackedRows, Prefetch, ShardWriter, TokenShards
    from groundup.training import Job, NextToken, prepare
    from groundup.training.budget import Plan
    from groundup.training.loop import Trainer

    train, validation = splits(text)
    rows, steps, length = setting["rows"], setting["steps"], setting["model"]["context_length"]
    hardware = resolve(device="cpu", precision="bf16", compile=setting["compile"], threads=given["threads"])
    prepare(hardware)
    section = PretrainSection.model_validate(
        {"steps": steps, "tokens_per_update": rows * length, "sequence_length": length,
         "optimizer": setting["optimizer"], "schedule": setting["schedule"]}
    )  # fmt: skip
    arch = Architecture.from_section(ModelSection.model_validate(setting["model"]), len(characters(text)))
    model = fresh_model(arch, given["seed"])
    with tempfile.TemporaryDirectory() as folder:
        with ShardWriter(Path(folder) / "shards", "uint16", pad_id=0) as writer:
            writer.add_many(train.astype(np.int64), [len(train)], [0])
        loader = Loader(PackedRows(TokenShards(Path(folder) / "shards"), length, given["seed"]), rows)
        plan = Plan("", steps, rows, setting.get("micro_rows", rows), length, setting["compile"])
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
        with Prefetch(loader, 0, steps) as updates:
            for number, update in enumerate(updates, start=1):
                report = trainer.update(update)
                if number % 50 == 0:
                    print(f"{number}: {report['loss']:.4f} after {time.perf_counter() - begun:.1f} s", file=sys.stderr)
        seconds = time.perf_counter() - begun
    model.eval()
    loss = score(lambda ids: model.logits(model(ids)), validation, length)
    print(
        json.dumps(
            {"seconds": seconds, "loss": loss, "tokens": trainer.done.tokens, "parameters": parameter_count(arch).total}
        )
    )


if __name__ == "__main__":
    main()
