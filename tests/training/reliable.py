"""A small training for the tests of reliability, in a process of its own where that is wanted.

    python reliable.py run OUT [KEY=VALUE]...    trains in OUT; exit code 0, 1 for a plain error, 130 after a signal
    python reliable.py kill OUT KILLS SEED STEPS trains in OUT, killed so often at random moments; prints what was hit

Dropout, validation and samples are on, so that whatever they draw or write takes part.
"""

import json
import os
import random
import resource
import shutil
import signal
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch._dynamo  # here, so that no child of a fork has to

from groundup.hardware import Hardware
from groundup.model import Architecture, Transformer, initialise
from groundup.recipe import PretrainSection
from groundup.run import GroundupError
from groundup.tokenizer import Loader, PackedRows, ShardWriter, TokenShards
from groundup.training import Job, NextToken, Plan, prepare, train

ROWS, LENGTH = 8, 32
HEAVY = {"hidden": 128, "checkpoint_every": 2}
"""A training that spends much of its time on checkpoints."""
TIMELESS = (
    "step",
    "tokens",
    "loss",
    "lr",
    "grad_norm",
    "skipped",
    "without_targets",
    "micro_rows",
    "validation_loss",
)


def architecture(hidden: int = 32) -> Architecture:
    return Architecture(
        vocabulary_size=64,
        layers=2,
        hidden_size=hidden,
        heads=2,
        kv_heads=1,
        head_dim=16,
        intermediate_size=2 * hidden,
        context_length=LENGTH,
        dropout=0.1,
    )


def rows_of(folder: Path) -> PackedRows:
    """The same documents wherever they are written."""
    if not (folder / "index.json").exists():
        shutil.rmtree(folder, ignore_errors=True)  # what a killed writer left
        generator = np.random.default_rng(0)
        with ShardWriter(folder, "uint16", pad_id=1) as writer:
            for _ in range(200):
                writer.add((np.arange(generator.integers(3, 40)) + generator.integers(60)) % 60 + 2)
    return PackedRows(TokenShards(folder), LENGTH, seed=3)


def checksum(model: Transformer) -> float:
    return sum(float(weight.detach().double().sum()) for weight in model.parameters())


def make_job(out: Path, *, steps: int = 12, micro: int = 4, hidden: int = 32, threads: int = 1, **changes) -> Job:
    """A job of ``ROWS`` rows an update. ``changes`` are of the section where it has such a field, else of the job."""
    fields = {name: changes.pop(name) for name in list(changes) if name in PretrainSection.model_fields}
    section = PretrainSection(
        **{"steps": steps, "checkpoint_every": 3, "log_every": 1, "validate_every": 5, "sample_every": 5} | fields
    )
    model = Transformer(architecture(hidden))
    initialise(model, 1)
    settings = {
        "stage": "pretrain",
        "kind": "pretrain",
        "out": out,
        "fingerprint": "f" * 64,
        "model": model,
        "objective": NextToken(),
        "source": Loader(rows_of(out.parent / "shards"), ROWS),
        "section": section,
        "plan": Plan("f" * 64, steps, ROWS, micro, LENGTH),
        "hardware": Hardware("cpu", "fp32", False, threads, {}),
        "seed": 1,
        "should_stop": lambda: False,
        "validate": lambda model: {"validation_loss": checksum(model)},
        "sample": lambda model, step: [{"drawn": checksum(model) + step}],
    }
    return Job(**settings | changes)


def weights(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: weight.detach().clone() for name, weight in model.named_parameters()}


def timeless(out: Path) -> list[dict]:
    """metrics.jsonl without what was read off a clock."""
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [{name: line[name] for name in TIMELESS if name in line} for line in lines]


def trained(out: Path, after_update=lambda: None, **changes) -> int:
    """Train to the end and write OUT/weights.safetensors; the exit code that the command line would give.

    ``after_update`` is called after the first one. SIGTERM asks for an end in good order.
    """
    from safetensors.torch import save_file

    stopped, updates = [], []

    def should_stop() -> bool:
        updates.append(1)
        if len(updates) == 1:
            after_update()
        return bool(stopped)

    signal.signal(signal.SIGTERM, lambda *_: stopped.append(1))
    job = make_job(out, should_stop=should_stop, **changes)
    prepare(job.hardware)
    try:
        train(job)
    except GroundupError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    save_file(weights(job.model), out / "weights.safetensors")
    return 0


def killed(out: Path, kills: int, seed: int, steps: int, longest: float = 0.25) -> dict:
    """Train in children that die at random moments, ``longest`` seconds after their first update at the latest.

    A training that is through before all kills are done is followed by another, in a directory of its own. Forking
    spares the imports: this process starts no thread and computes nothing.
    """
    generator = random.Random(seed)
    found = {"kills": 0, "while_writing": 0, "while_removing": 0, "lives": 0, "runs": [str(out)]}
    while True:
        run = Path(found["runs"][-1])
        ready, told = os.pipe()
        found["lives"] += 1
        child = os.fork()
        if not child:
            os.close(ready)
            os.dup2(os.open(out.parent / "stderr", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), 2)
            os._exit(trained(run, after_update=partial(os.close, told), **HEAVY, steps=steps))
        os.close(told)
        os.read(ready, 1)  # returns when the child's first update is done, or it is dead
        os.close(ready)
        last = found["kills"] == kills
        if not last:
            time.sleep(generator.uniform(0, longest))
            os.kill(child, signal.SIGKILL)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if last or code not in (0, -signal.SIGKILL):
            return {**found, "code": code}
        if code == 0:
            found["runs"].append(f"{out}-{len(found['runs'])}")
            continue
        found["kills"] += 1
        root = run / "checkpoints"
        found["while_writing"] += any(root.glob(".step-*.partial"))
        found["while_removing"] += any(not (path / "manifest.json").exists() for path in root.glob("step-*"))


def main(arguments: list[str]) -> int:
    command, out, *rest = arguments
    if command == "kill":
        print(json.dumps(killed(Path(out), *map(int, rest))))
        return 0
    changes = {key: json.loads(value) for key, value in (item.split("=") for item in rest)}
    if (most := changes.pop("largest_file", None)) is not None:
        make_job(Path(out))  # its shards are no part of what is to fail
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
    return trained(Path(out), **changes)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
