"""Seconds to nanoGPT's loss on Shakespeare's characters, on a CPU.

    PEERS=~/peers python benchmarks/time_to_loss.py --quick --json
    python benchmarks/time_to_loss.py --stretch --json             # ours alone: how low twenty minutes go

What is measured and how to read it stands in benchmarks/README.md.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from statistics import median
from typing import Any

from common import HERE, FailedError, Report, arguments, checkout, real_data, say

PAIRS, QUICK_PAIRS = 5, 2
NANOGPT_ON_GPU = 1.4697  # nats a character: 6 layers of width 384 after 5,000 iterations, its best, by its README
STRETCH_SECONDS = 1200


def side(script: str, given: dict[str, Any], threads: int) -> dict[str, float]:
    """Train once. Raises FailedError with the end of its output."""
    command = [sys.executable, str(HERE / "peers" / f"{script}.py"), json.dumps(given | {"threads": threads})]
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        raise FailedError(f"{script} ended with {done.returncode}\n{done.stderr[-3000:]}")
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def row(part: str, name: str, found: dict[str, float], **more: Any) -> dict[str, Any]:
    say(f"time_to_loss: {part}: {name}: {found['seconds']:.1f} s, {found['loss']:.4f} nats a character")
    return {"part": part, "side": name, **{key: round(value, 4) for key, value in found.items()}, **more}


def pairs(report: Report, text: Path, count: int, threads: int) -> None:
    """Both sides by turns, a seed a pair; a pair in which ours ends above nanoGPT's loss counts 0."""
    nanogpt, ratios = checkout("nanoGPT"), []
    for seed in range(1, count + 1):
        part, order = f"seed {seed}", ("ours", "nanogpt") if seed % 2 else ("nanogpt", "ours")
        found = {}
        for name in order:
            if name == "ours":
                found[name] = side("loss_groundup", {"text": str(text), "setting": "short", "seed": seed}, threads)
            else:
                found[name] = side("loss_nanogpt", {"checkout": nanogpt, "text": str(text), "seed": seed}, threads)
            report.rows.append(row(part, name, found[name]))
        reached = found["ours"]["loss"] <= found["nanogpt"]["loss"]
        ratios.append(found["nanogpt"]["seconds"] / found["ours"]["seconds"] if reached else 0.0)
    report.rows.append({"part": "all", "each": [round(ratio, 2) for ratio in ratios]})
    report.ratios["vs_nanogpt"] = round(median(ratios), 3)


def stretch(report: Report, text: Path, threads: int) -> None:
    """Ours alone, for as long as the stretch may take, beside what nanoGPT's README reports of a GPU."""
    found = side("loss_groundup", {"text": str(text), "setting": "stretch", "seed": 1}, threads)
    report.rows.append(row("stretch", "ours", found, nanogpt_on_gpu=NANOGPT_ON_GPU, limit_seconds=STRETCH_SECONDS))
    report.ratios["stretch"] = round(NANOGPT_ON_GPU / found["loss"], 4)


def main() -> int:
    parser = arguments(__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, help=f"default: {PAIRS}, and {QUICK_PAIRS} with --quick")
    parser.add_argument("--stretch", action="store_true", help="ours alone: how low twenty minutes on two cores go")
    parser.add_argument("--threads", type=int, help="default: physical cores")
    given = parser.parse_args()
    from groundup.hardware import physical_cores

    threads, report = given.threads or physical_cores(), Report("time_to_loss")

    def everything() -> None:
        text = real_data() / "small" / "tinyshakespeare.txt"
        if given.stretch:
            stretch(report, text, threads)
        else:
            pairs(report, text, given.pairs or (QUICK_PAIRS if given.quick else PAIRS), threads)

    report.run("stretch" if given.stretch else "pairs", everything)
    for line in report.rows:
        if "loss" in line:
            print(f"{line['part']:8} {line['side']:8} {line['seconds']:8.1f} s   {line['loss']:.4f} nats a character")
    for name, value in report.ratios.items():
        print(f"{name}: {value}")
    return report.end(given.json)


if __name__ == "__main__":
    sys.exit(main())
