"""Learning rates of the ladder, by sweeps at two sizes.

    groundup build ladder --out runs/ladder --until tokenizer
    python benchmarks/learning_rates.py runs/ladder --json

What is measured and how to read it stands in benchmarks/README.md.
"""

from __future__ import annotations

import hashlib
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from common import Report, arguments, bench_folder, say

UPDATES, QUICK_UPDATES = 300, 60
ROWS, LENGTH = 16, 256
SIZES = {48: 2, 96: 3}  # widths of the ladder to layers, heads of 32 or 24
# In turn, each with the best of the others so far; the first value is what it begins with.
GRIDS = {
    "muon_lr": (0.02, 0.01, 0.04),
    "embedding_lr": (0.03, 0.01, 0.1, 0.3),
    "adamw_lr": (0.01, 0.003, 0.03, 0.1),
}


def trained(run: Path, width: int, rates: dict[str, float], updates: int, threads: int) -> float:
    """Bits per byte of validation texts after so many updates; the same rows in the same order for all rates."""
    from groundup.hardware import resolve
    from groundup.model import Architecture, fresh_model
    from groundup.recipe import ModelSection, PretrainSection
    from groundup.tokenizer import Loader, PackedRows, Tokenizer, TokenShards
    from groundup.training import Job, NextToken, prepare, validator
    from groundup.training.budget import Plan
    from groundup.training.loop import Trainer

    tokenizer = Tokenizer.load(run / "tokenizer")
    hardware = resolve(device="cpu", precision="bf16", compile=False, threads=threads)
    prepare(hardware)
    section = PretrainSection.model_validate(
        {"steps": updates, "tokens_per_update": ROWS * LENGTH, "sequence_length": LENGTH, "optimizer": rates}
    )
    shape = {"layers": SIZES[width], "hidden_size": width, "heads": 2 if width == 48 else 3, "context_length": LENGTH}
    arch = Architecture.from_section(
        ModelSection.model_validate(shape | {"kv_heads": shape["heads"]}), tokenizer.vocabulary_size
    )
    model = fresh_model(arch, 1)
    loader = Loader(PackedRows(TokenShards(run / "tokenizer" / "shards" / "train"), LENGTH, 1), ROWS)
    measure = validator(run / "tokenizer" / "shards" / "validation", tokenizer, LENGTH, "cpu")
    assert measure is not None
    with tempfile.TemporaryDirectory() as folder:
        plan = Plan("", updates, ROWS, ROWS, LENGTH)
        job = Job(
            "bench", "pretrain", Path(folder), "", model, NextToken(), loader, section, plan, hardware, 1, lambda: False
        )
        trainer = Trainer(job)
        for number in range(updates):
            trainer.update(loader.update(number))
    return measure(model.eval())["bits_per_byte"]


def kept(path: Path, run: Path, width: int, rates: dict[str, float], updates: int, threads: int) -> float:
    """The same, from the file of results where it is there; a run that was stopped goes on where it was."""
    key = json.dumps([width, sorted(rates.items()), updates])
    if path.exists():
        for line in path.read_text().splitlines():
            record = json.loads(line)
            if record["key"] == key:
                return float(record["bits_per_byte"])
    found = trained(run, width, rates, updates, threads)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        file.write(json.dumps({"key": key, "bits_per_byte": found}) + "\n")
    return found


def sweep(report: Report, path: Path, run: Path, width: int, updates: int, threads: int) -> dict[str, float]:
    """The best rates of one size, one rate after the other."""
    best = {name: values[0] for name, values in GRIDS.items()}
    for name, values in GRIDS.items():
        losses = {}
        for value in values:
            rates = best | {name: value}
            losses[value] = kept(path, run, width, rates, updates, threads)
            say(f"learning_rates: width {width}: {name} = {value}: {losses[value]:.4f} bits per byte")
            row: dict[str, Any] = {"part": f"width {width}", "rate": name, "value": value}
            report.rows.append(row | {"bits_per_byte": round(losses[value], 4), "others": dict(best)})
        best[name] = min(losses, key=lambda value: losses[value])
    return best


def main() -> int:
    parser = arguments(__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="a run directory with a tokenizer stage")
    parser.add_argument("--threads", type=int, help="default: physical cores")
    given = parser.parse_args()
    if not (given.run / "tokenizer" / "shards").is_dir():
        parser.error(f"{given.run}: no tokenizer stage; build one: groundup build ladder --out RUN --until tokenizer")
    from groundup.hardware import physical_cores

    report, updates = Report("learning_rates"), QUICK_UPDATES if given.quick else UPDATES
    data = hashlib.sha256((given.run / "tokenizer" / "manifest.json").read_bytes()).hexdigest()[:12]
    path = bench_folder() / "learning_rates" / f"{data}.jsonl"
    for width in SIZES:
        best = sweep(report, path, given.run, width, updates, given.threads or physical_cores())
        report.rows.append({"part": f"width {width}", "best": best})
        print(f"width {width}: " + ", ".join(f"{name} = {value}" for name, value in best.items()))
    if given.json:
        content = {"name": report.name, "machine": report.machine, "rows": report.rows, "ratios": report.ratios}
        print(json.dumps(content | {"left_out": report.left_out, "failed": report.failed}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
