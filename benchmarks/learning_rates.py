"""Learning rates of a ladder, by sweeps at two of its rungs.

    groundup build ladder --out runs/ladder --until tokenizer
    python benchmarks/learning_rates.py runs/ladder --json

What is measured and how to read it stands in benchmarks/README.md.
"""

from __future__ import annotations

import hashlib
import json
import sys
import tempfile
from itertools import cycle
from pathlib import Path
from typing import Any

from common import Report, arguments, bench_folder, say

QUICK_SHARE = 0.1
"""Of a rung's tokens."""
GRIDS = {
    "muon_lr": (0.02, 0.01, 0.04),
    "embedding_lr": (0.003, 0.01, 0.03, 0.1, 0.3),
    "adamw_lr": (0.003, 0.001, 0.01, 0.03),
}
"""In turn, each with the best of the others so far, until none changes any more; the first value is what it begins
with."""


class Rung:
    """One rung of the recipe that a run directory was made from, trained again and again on the run's own text."""

    def __init__(self, run: Path, name: str, share: float, threads: int | str) -> None:
        from groundup.hardware import resolve
        from groundup.recipe import load_recipe

        self.run, self.name, self.recipe = run, name, load_recipe(run / "recipe.toml")
        assert self.recipe.ladder is not None
        rung = next(rung for rung in self.recipe.ladder.rungs if rung.label == name)
        tokens = share * self.recipe.ladder.tokens_per_parameter
        self.section = self.recipe.ladder.model_copy(update={"rungs": (rung,), "tokens_per_parameter": tokens})
        self.hardware = resolve(device="auto", precision="auto", compile="auto", threads=threads)
        stage = json.loads((run / "tokenizer" / "manifest.json").read_text())["fingerprint"]
        model = self.recipe.model.model_dump(mode="json", exclude_defaults=True)
        varied = {"optimizer": GRIDS.keys()}
        fixed = [
            stage,
            self.recipe.run.seed,
            model,
            self.section.model_dump(mode="json", exclude=varied, exclude_defaults=True),
        ]
        self.identity = hashlib.sha256(json.dumps(fixed, sort_keys=True).encode()).hexdigest()[:16]

    def bits_per_byte(self, rates: dict[str, float]) -> float:
        """Of the validation texts, after the rung's tokens, as the ladder itself trains and measures it."""
        from groundup.planning import Climb

        section = self.section.model_copy(update={"optimizer": self.section.optimizer.model_copy(update=rates)})
        with tempfile.TemporaryDirectory() as folder:
            climb = Climb(
                section, self.recipe.model, self.run, Path(folder), self.recipe.run.seed, self.hardware, "", bool
            )
            return float(climb.train(climb.sizes[0], 0)["bits_per_byte"])

    def kept(self, rates: dict[str, float]) -> float:
        """The same, from the file of results where it is there; a sweep that was stopped goes on where it was."""
        path, key = bench_folder() / "learning_rates" / f"{self.identity}.jsonl", sorted(rates.items())
        if path.exists():
            for line in path.read_text().splitlines():
                record = json.loads(line)
                if record["rates"] == [list(pair) for pair in key]:
                    return float(record["bits_per_byte"])
        found = self.bits_per_byte(rates)
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a") as file:
            file.write(json.dumps({"rates": key, "bits_per_byte": found}) + "\n")
        return found


def sweep(report: Report, rung: Rung) -> dict[str, float]:
    """The best rates of one size, one rate after the other."""
    best = {name: values[0] for name, values in GRIDS.items()}
    settled: set[str] = set()
    for name, values in cycle(GRIDS.items()):
        losses = {}
        for value in values:
            losses[value] = rung.kept(best | {name: value})
            say(f"learning_rates: {rung.name}: {name} = {value}: {losses[value]:.4f} bits per byte")
            row: dict[str, Any] = {"part": rung.name, "rate": name, "value": value}
            report.rows.append(row | {"bits_per_byte": round(losses[value], 4), "others": dict(best)})
        found = min(losses, key=lambda value: losses[value])
        settled = settled | {name} if found == best[name] else {name}
        best[name] = found
        if settled == GRIDS.keys():
            break
    return best


def main() -> int:
    parser = arguments(__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="a run directory of a recipe with [ladder], with its tokenizer stage")
    parser.add_argument("--rungs", nargs="*", help="default: the second, and the last but one")
    parser.add_argument("--threads", type=int, help="default: physical cores")
    given = parser.parse_args()
    if not (given.run / "tokenizer" / "manifest.json").is_file():
        parser.error(f"{given.run}: no tokenizer stage; build one: groundup build ladder --out RUN --until tokenizer")
    from groundup.recipe import load_recipe

    section = load_recipe(given.run / "recipe.toml").ladder
    if section is None:
        parser.error(f"{given.run}: its recipe has no [ladder]")
    known = [rung.label for rung in section.rungs]
    if unknown := sorted(set(given.rungs or ()) - set(known)):
        parser.error(f"--rungs: no {', '.join(unknown)}; there are {', '.join(known)}")
    report = Report("learning_rates")
    for name in given.rungs or (known[1], known[-2]):
        rung = Rung(given.run, name, QUICK_SHARE if given.quick else 1.0, given.threads or "auto")
        best = sweep(report, rung)
        report.rows.append({"part": name, "best": best})
        print(f"{name}: " + ", ".join(f"{rate} = {value}" for rate, value in best.items()))
    return report.end(given.json)


if __name__ == "__main__":
    sys.exit(main())
