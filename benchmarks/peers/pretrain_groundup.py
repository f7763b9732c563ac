"""Our side of the training benchmarks: the trainer that `groundup build` uses, on packed rows of documents."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from steps import channel, serve, shape


def main() -> None:
    told, given, begun = channel(), shape(), time.perf_counter()
    from groundup.hardware import resolve
    from groundup.model import Architecture, fresh_model, parameter_count
    from groundup.recipe import ModelSection, PretrainSection
    from groundup.tokenizer import Loader, PackedRows, Prefetch, TokenShards
    from groundup.training import Job, NextToken, prepare
    from groundup.training.budget import CPU_TOKENS, Plan
    from groundup.training.compute import held_garbage
    from groundup.training.loop import Trainer

    device = given.get("device", "cpu")
    hardware = resolve(device=device, precision=given["precision"], compile=given["compile"], threads=given["threads"])
    prepare(hardware)
    section = PretrainSection.model_validate(
        {"steps": 10**6, "tokens_per_update": given["rows"] * given["length"], "sequence_length": given["length"]}
    )
    model = ModelSection.model_validate(
        {"layers": given["layers"], "hidden_size": given["width"], "heads": given["heads"], "kv_heads": given["heads"],
         "intermediate_size": given["inner"], "context_length": given["length"]}
    )  # fmt: skip
    fresh = fresh_model(Architecture.from_section(model, given["vocabulary"]), 1)
    loader = Loader(PackedRows(TokenShards(Path(given["shards"])), given["length"], 1), given["rows"])
    micro = given.get("micro", min(given["rows"], CPU_TOKENS // given["length"]))
    plan = Plan("", 10**6, given["rows"], micro, given["length"], hardware.compile)
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        job = Job("bench", "pretrain", out, "", fresh, NextToken(), loader, section, plan, hardware, 1, bool)
        trainer = Trainer(job)
        with Prefetch(loader, 0, 10**6) as updates, held_garbage():
            waiting = iter(updates)
            count = parameter_count(fresh.arch)

            def step() -> float:
                loss = trainer.update(next(waiting))["loss"]
                if trainer.plan != plan:  # it would go on so, and be timed with a micro-batch that nobody knows of
                    raise MemoryError("the trainer ran out of memory and changed its micro-batch")
                if trainer.guard.skipped:
                    raise ValueError("the guard refused an update, whose time would be too short")
                return loss

            serve(
                told, step, begun, device=device, parameters=count.total, precision=hardware.precision,
                compiled=hardware.compile,
            )  # fmt: skip


if __name__ == "__main__":
    main()
