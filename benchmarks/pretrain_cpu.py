"""Training tokens a second on a CPU, against nanoGPT, nanochat and the Trainer of transformers.

    python benchmarks/pretrain_cpu.py --quick --json
    PEERS=~/peers python benchmarks/pretrain_cpu.py --json

What is measured and how to read it stands in benchmarks/README.md.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from statistics import median
from typing import Any

import turns
from common import Report, arguments, bench_folder, checkout, peer_python, say
from turns import Side, log_of, made_tokens, ratio, side_command

FORMAT = 1  # of the data that are kept
VOCABULARY = 4096
LENGTH, LAYERS = 256, 6
TOKENS = 4_000_000
WIDTHS = {256: {"heads": 4, "inner": 688, "rows": 16}, 512: {"heads": 8, "inner": 1376, "rows": 64}}
SECONDS = 6.0  # of a side's turn, about
ROUNDS, QUICK_ROUNDS = 8, 4
PRODUCTS = (2048, 3072, 4096)  # squares whose bf16 rate is the peak


def data() -> Path:
    """Token shards of made documents of about 300 tokens, and the same ids in one file; made once."""
    return made_tokens(bench_folder() / "pretrain_cpu" / f"data-{FORMAT}", VOCABULARY, TOKENS, mean=280)


def sides() -> dict[str, tuple[str, Any]]:
    """Name of each side to its script and what tells its Python and options apart, made when it is begun."""
    own = {"precision": "auto", "compile": True}
    return {
        "ours": ("pretrain_groundup", lambda: (sys.executable, own)),
        "nanogpt_eager": (
            "pretrain_nanogpt",
            lambda: (sys.executable, {"checkout": checkout("nanoGPT"), "compile": False}),
        ),
        "nanogpt_compiled": (
            "pretrain_nanogpt",
            lambda: (sys.executable, {"checkout": checkout("nanoGPT"), "compile": True}),
        ),
        "nanochat": (
            "pretrain_nanochat",
            lambda: (sys.executable, {"checkout": checkout("nanochat"), "compile": True}),
        ),
        "hf": ("pretrain_transformers", lambda: (str(peer_python("transformers")), {"tuned": False})),
        "hf_tuned": ("pretrain_transformers", lambda: (str(peer_python("transformers")), {"tuned": True})),
    }


def begin(name: str, width: int, threads: int, folder: Path) -> Side:
    """Start a side and wait for its first step. Raises UnavailableError and FailedError."""
    script, settings = sides()[name]
    python, more = settings()
    given = {
        "layers": LAYERS, "width": width, "vocabulary": VOCABULARY, "length": LENGTH,
        "threads": threads, "data": str(folder / "train.bin"), "shards": str(folder / "shards"),
        **WIDTHS[width], **more,
    }  # fmt: skip
    environment = {"TORCHINDUCTOR_COMPILE_THREADS": "1", "OMP_NUM_THREADS": str(threads)}
    side = turns.begin(name, side_command(python, script, given), log_of("pretrain_cpu", name), environment)
    say(f"pretrain_cpu: width {width}: {name} is ready after {side.started:.0f} s")
    return side


def compare(report: Report, width: int, names: list[str], rounds: int, threads: int) -> dict[str, Side]:
    """All sides by turns, some seconds each. Those that can't be begun are left out."""
    folder, running = data(), {}
    try:
        for name in names:
            report.run(
                f"{name} at width {width}",
                lambda name=name: running.update({name: begin(name, width, threads, folder)}),
            )
        steps = {}
        for name, side in running.items():
            side.take(2)
            steps[name] = max(1, round(SECONDS * 2 / side.take(2)))
        for number in range(rounds):
            order = list(running) if number % 2 else list(reversed(running))
            for name in order:
                seconds = running[name].take(steps[name])
                running[name].rates.append(steps[name] * WIDTHS[width]["rows"] * LENGTH / seconds)
    finally:
        for side in running.values():
            side.stop()
    for name, side in running.items():
        report.rows.append(
            {
                "part": f"width {width}",
                "side": name,
                "tokens_per_second": round(median(side.rates)),
                "each": [round(rate) for rate in side.rates],
                "peak_mb": round(side.peak_mb),
                **side.ready,
            }
        )
    return running


def bf16_peak(threads: int) -> float:
    """FLOP/s of the best square product of bfloat16."""
    code = f"""
import json, time, torch
torch.set_num_threads({threads})
best = 0.0
for size in {PRODUCTS}:
    a, b = torch.randn(size, size).bfloat16(), torch.randn(size, size).bfloat16()
    out = torch.empty_like(a)
    for _ in range(8):
        begin = time.perf_counter(); torch.mm(a, b, out=out)
        best = max(best, 2 * size**3 / (time.perf_counter() - begin))
print(json.dumps(best))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return float(json.loads(done.stdout))


def flops_of_token(width: int) -> float:
    """6 × parameters of matrix products, and those of causal attention: half of 12 × layers × width × length."""
    inner = WIDTHS[width]["inner"]
    matrices = LAYERS * (4 * width * width + 3 * width * inner) + VOCABULARY * width
    return 6 * matrices + 6 * LAYERS * width * LENGTH


def main() -> int:
    parser = arguments(__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, help="default: physical cores")
    parser.add_argument("--sides", nargs="+", help="only these")
    given = parser.parse_args()
    from groundup.hardware import physical_cores

    threads, rounds = given.threads or physical_cores(), QUICK_ROUNDS if given.quick else ROUNDS
    known = sides()
    if unknown := sorted(set(given.sides or ()) - known.keys()):
        parser.error(f"--sides: no {', '.join(unknown)}; there are {', '.join(known)}")
    report = Report("pretrain_cpu")
    names = [name for name in known if name in (given.sides or known)]
    running = compare(report, 256, names, rounds, threads)
    peers = [side for name, side in running.items() if name not in ("ours", "hf_tuned")]
    if "ours" in running:
        for side in running.values():
            if side.name != "ours":
                report.ratios[f"vs_{side.name}"] = round(ratio(running["ours"], side), 3)
        if peers:
            report.ratios["vs_best_peer"] = min(round(ratio(running["ours"], side), 3) for side in peers)
            report.ratios["memory_vs_leanest_peer"] = round(min(s.peak_mb for s in peers) / running["ours"].peak_mb, 3)

    def peak() -> None:
        before = bf16_peak(threads)
        wide = compare(report, 512, ["ours"], rounds, threads)
        best = max(before, bf16_peak(threads))
        if "ours" in wide:
            rate = median(wide["ours"].rates) * flops_of_token(512)
            report.ratios["bf16_peak_fraction"] = round(rate / best, 3)
            report.rows.append(
                {
                    "part": "width 512",
                    "side": "bf16 products",
                    "gflops": round(best / 1e9, 1),
                    "ours_gflops": round(rate / 1e9, 1),
                }
            )

    if "ours" in names:
        report.run("bf16 peak", peak)
    show(report)
    return report.end(given.json)


def show(report: Report) -> None:
    """The rows and the ratios, for people."""
    for row in report.rows:
        if "tokens_per_second" in row:
            print(
                f"{row['part']:10} {row['side']:17} {row['tokens_per_second']:>8,} tokens/s  {row['peak_mb']:>6,} MB  "
                f"first step after {row['first_seconds']:.0f} s, {row['precision']}, {row['parameters']:,} parameters"
            )
    for name, value in report.ratios.items():
        print(f"{name}: {value}")


if __name__ == "__main__":
    sys.exit(main())
