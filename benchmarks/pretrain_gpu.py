"""Training tokens a second, utilisation and memory on a GPU, against nanoGPT and nanochat.

    PEERS=~/peers python benchmarks/pretrain_gpu.py --json
    PEERS=~/peers python benchmarks/pretrain_gpu.py --quick --sizes 124m --json
    python benchmarks/pretrain_gpu.py --device cpu --sizes tiny --sides ours       # the whole way, on any machine

What is measured and how to read it stands in benchmarks/README.md.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from common import TAIL, FailedError, Report, UnavailableError, arguments, bench_folder, checkout, say
from turns import Side, TooLargeError, begin, log_of, made_tokens, side_command

FORMAT = 1  # of the data that are kept
ROUNDS, QUICK_ROUNDS = 4, 2
QUICK = 0.5  # of a timed span's seconds
SPANS = 3  # timed in each round
PEERS = ("nanogpt", "nanochat")  # whom ours is to be faster than; those in FP8 are reported beside them
MEAN_DOCUMENT = 1000  # tokens, about
HOPPER = [9, 0]  # compute capability from which on nanochat has FP8


@dataclass(frozen=True)
class Size:
    """A shape that all sides share.

    inner: the width of our gated feed-forward layer, whose three matrices have as many parameters, or half a per cent
        more, as the two of the others, which are 4 · width wide.
    micro: rows in one pass that are tried first; a power of two.
    tokens: that the data have; they are read again and again.
    seconds: of a timed span, about.
    """

    layers: int
    width: int
    heads: int
    inner: int
    vocabulary: int
    length: int
    rows: int
    micro: int
    tokens: int = 2**24
    seconds: float = 8.0
    compile: bool = True

    @property
    def matrices(self) -> int:
        """Parameters of matrix products that the shape has on all sides: 12 · width² a layer, and the head."""
        return 12 * self.layers * self.width**2 + self.vocabulary * self.width

    @property
    def causal(self) -> float:
        """Training FLOPs of a token: 6 a parameter, and the lower triangle of attention's scores."""
        return 6.0 * self.matrices + 6.0 * self.layers * self.width * self.length

    @property
    def palm(self) -> float:
        """The same by the convention of PaLM (Chowdhery et al. 2022, appendix B): the whole square of the scores."""
        return 6.0 * self.matrices + 12.0 * self.layers * self.width * self.length


SIZES = {
    "124m": Size(12, 768, 12, 2048, 50_304, 1024, rows=512, micro=64),
    "1b": Size(18, 2048, 16, 5504, 50_304, 1024, rows=512, micro=32),
    "tiny": Size(2, 64, 2, 192, 512, 64, rows=8, micro=4, tokens=2**16, seconds=0.3, compile=False),
}


@dataclass
class Found:
    """What was measured of one side at one size; ``rates`` has tokens a second of each round."""

    micro: int
    rates: list[float] = field(default_factory=list)
    started: list[float] = field(default_factory=list)
    side: Side | None = None


def sides() -> dict[str, tuple[str, Callable[[dict[str, Any]], dict[str, Any]]]]:
    """Name of each side to its script and what tells its options from what is known of the device."""

    def fp8(device: dict[str, Any], settings: dict[str, Any]) -> dict[str, Any]:
        if device.get("capability", [0, 0]) < HOPPER:
            raise UnavailableError("FP8 is compared on GPUs of Hopper's generation or later")
        return settings

    return {
        "ours": ("pretrain_groundup", lambda device: {"precision": "auto"}),
        "nanogpt": ("pretrain_nanogpt", lambda device: {"checkout": checkout("nanoGPT")}),
        "nanochat": ("pretrain_nanochat", lambda device: {"checkout": checkout("nanochat")}),
        "ours_fp8": ("pretrain_groundup", lambda device: fp8(device, {"precision": "fp8"})),
        "nanochat_fp8": (
            "pretrain_nanochat",
            lambda device: fp8(device, {"checkout": checkout("nanochat"), "fp8": True}),
        ),
    }


def look(device: str, threads: int) -> dict[str, Any]:
    """What the device is and its peak, asked in a process that leaves none of the GPU's memory in use.

    Raises UnavailableError where there is no such device, FailedError where it can't be asked.
    """
    code = f"""
import json, torch
from groundup.hardware import find_peak
device, found = {device!r}, {{"torch": torch.__version__}}
if device == "cuda" and not torch.cuda.is_available():
    print(json.dumps(None))
else:
    if device == "cuda":
        known = torch.cuda.get_device_properties(0)
        found |= {{"gpu": known.name, "gpu_memory_gb": round(known.total_memory / 1e9, 1), "cuda": torch.version.cuda}}
        found["capability"] = [known.major, known.minor]
    peak = find_peak(device, "bf16" if device == "cuda" else "fp32", threads={threads})
    print(json.dumps(found | {{"peak": peak and peak.as_dict()}}))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    if done.returncode:
        raise FailedError(done.stderr[-TAIL:].strip())
    found: dict[str, Any] | None = json.loads(done.stdout)
    if found is None:
        raise UnavailableError("PyTorch sees no CUDA device here; --device cpu runs the size `tiny` on the CPU")
    return found


class Bench:
    """One size on one device: which sides there are, and what they did."""

    def __init__(self, report: Report, name: str, device: dict[str, Any], kind: str, threads: int, cache: Path) -> None:
        self.report, self.name, self.size = report, name, SIZES[name]
        self.device, self.kind, self.threads, self.cache = device, kind, threads, cache
        self.found: dict[str, Found] = {}

    def command(self, side: str, micro: int) -> tuple[list[str], dict[str, str]]:
        """A side's command and what is set in its environment. Raises UnavailableError."""
        script, options = sides()[side]
        size = self.size
        folder = bench_folder() / "pretrain_gpu" / f"data-{FORMAT}-{size.vocabulary}-{size.tokens}"
        made_tokens(folder, size.vocabulary, size.tokens, MEAN_DOCUMENT)
        given = {
            "device": self.kind, "layers": size.layers, "width": size.width, "heads": size.heads, "inner": size.inner,
            "vocabulary": size.vocabulary, "length": size.length, "rows": size.rows, "micro": micro,
            "threads": self.threads, "data": str(folder / "train.bin"), "shards": str(folder / "shards"),
            "compile": size.compile, **options(self.device),
        }  # fmt: skip
        # What is compiled is kept for this run alone: a side compiles in its first round and finds it in the others.
        environment = {"TORCHINDUCTOR_CACHE_DIR": str(self.cache / side), "OMP_NUM_THREADS": str(self.threads)}
        if not size.compile:
            environment["TORCHDYNAMO_DISABLE"] = "1"  # nanochat's optimizer is compiled wherever it runs
        if script == "pretrain_nanochat":
            environment["PYTORCH_ALLOC_CONF"] = "expandable_segments:True"  # as its base_train.py sets it
        return side_command(sys.executable, script, given), environment

    def visit(self, name: str, command: Sequence[str], environment: dict[str, str], seconds: float) -> None:
        """Start a side, time it, and end it. Raises FailedError, TooLargeError where memory was not enough."""
        found, tokens = self.found[name], self.size.rows * self.size.length
        side = begin(name, command, log_of("pretrain_gpu", f"{name}-{self.name}"), environment)
        try:
            side.take(1)  # the optimizer's state is there only after a step
            steps = max(1, round(seconds / side.take(1)))
            rates = [steps * tokens / side.take(steps) for _ in range(SPANS)]
            if not all(abs(loss) < float("inf") for loss in side.losses):
                raise FailedError(f"{name}: its loss is no number")
        finally:
            side.stop()
        found.rates.append(median(rates))
        found.started.append(side.started)
        found.side = side
        say(
            f"pretrain_gpu: {self.name}: {name}: {found.rates[-1]:,.0f} tokens/s with {found.micro} rows in a pass, "
            f"first step after {side.started:.0f} s"
        )

    def measure(self, name: str, seconds: float) -> None:
        """A round of one side; where memory is not enough, the micro-batch is halved, for this round and all later."""
        found = self.found[name]
        while True:
            try:
                return self.visit(name, *self.command(name, found.micro), seconds)
            except TooLargeError as error:
                if found.micro == 1:
                    raise FailedError(f"{name}: one row is too large: {error}") from error
                found.micro //= 2
                found.rates.clear()  # of another micro-batch
                found.started.clear()
                say(f"pretrain_gpu: {self.name}: {name}: out of memory; {found.micro} rows in a pass")

    def compare(self, names: Sequence[str], rounds: int, seconds: float, micro: int | None) -> None:
        """All sides in turn, each a process that lives alone, forwards and backwards; then rows and ratios."""
        report = self.report
        self.found = {name: Found(min(micro or self.size.micro, self.size.rows)) for name in names}
        for number in range(rounds):
            order = list(self.found) if number % 2 == 0 else list(reversed(self.found))
            for name in order:
                part = f"{name} at {self.name}"
                report.run(part, lambda name=name: self.measure(name, seconds))
                if part in report.left_out or part in report.failed:
                    del self.found[name]
        report.rows += [self.row(name) for name in self.found]
        self.ratios()

    def row(self, name: str) -> dict[str, Any]:
        """The line of one side."""
        found, peak = self.found[name], self.device["peak"]
        assert found.side is not None
        rate, ready = median(found.rates), {**found.side.ready}
        del ready["first_seconds"], ready["loss"]  # of a clock that leaves imports out; of the first step
        return {
            "part": self.name,
            "side": name,
            "tokens_per_second": round(rate),
            "each": [round(rate) for rate in found.rates],
            "mfu_palm": peak and digits(self.size.palm * rate / 1e9 / peak["gflops"]),
            "mfu_causal": peak and digits(self.size.causal * rate / 1e9 / peak["gflops"]),
            "peak_gpu_mb": found.side.peak_gpu_mb and round(found.side.peak_gpu_mb),
            "peak_mb": round(found.side.peak_mb),
            "micro_rows": found.micro,
            "tokens_per_update": self.size.rows * self.size.length,
            "first_seconds": round(found.started[0], 1),
            "first_seconds_again": round(median(found.started[1:]), 1) if found.started[1:] else None,
            **ready,
        }

    def ratios(self) -> None:
        """Ours to each of the others, like to like, and our utilisation."""
        given, size = self.report.ratios, self.name
        if "ours" in self.found and (utilisation := self.row("ours")["mfu_palm"]) is not None:
            given[f"mfu_palm_{size}"] = utilisation
        bars = []
        for peer in PEERS:
            if (found := self.ratio("ours", peer)) is not None:
                bars.append(found)
                given[f"vs_{peer}_{size}"] = found
        if bars:
            given[f"vs_best_peer_{size}"] = min(bars)
        if (found := self.ratio("ours_fp8", "nanochat_fp8")) is not None:
            given[f"fp8_vs_nanochat_{size}"] = found

    def ratio(self, ours: str, theirs: str) -> float | None:
        """The median over the rounds of ours to theirs in tokens a second; None where a side is missing.

        Rounds count from the last one back: the first are missing where a micro-batch turned out too large later on.
        """
        if ours not in self.found or theirs not in self.found:
            return None
        pairs = zip(reversed(self.found[ours].rates), reversed(self.found[theirs].rates), strict=False)
        return round(median(a / b for a, b in pairs), 3)


def digits(value: float) -> float:
    """Four significant ones."""
    return float(f"{value:.4g}")


def main() -> int:
    parser = arguments(__doc__.splitlines()[0])
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--sizes", nargs="+", choices=tuple(SIZES), help="default: 124m 1b, on a CPU tiny")
    parser.add_argument("--sides", nargs="+", choices=tuple(sides()), help="only these")
    parser.add_argument("--rounds", type=int, help=f"default: {ROUNDS}, with --quick {QUICK_ROUNDS}")
    parser.add_argument("--micro", type=int, help="rows in a pass that are tried first; a power of two")
    parser.add_argument("--threads", type=int, help="default: physical cores")
    given = parser.parse_args()
    if given.micro is not None and (given.micro < 1 or given.micro & (given.micro - 1)):
        parser.error(f"--micro {given.micro}: a power of two")
    if given.rounds is not None and given.rounds < 1:
        parser.error(f"--rounds {given.rounds}: at least 1")
    from groundup.hardware import physical_cores

    report, threads = Report("pretrain_gpu"), given.threads or physical_cores()
    names = [name for name in sides() if name in (given.sides or sides())]
    rounds = given.rounds or (QUICK_ROUNDS if given.quick else ROUNDS)
    device: dict[str, Any] = {}
    report.run(given.device, lambda: device.update(look(given.device, threads)))
    if device:
        report.machine |= device
        with tempfile.TemporaryDirectory() as cache:
            for name in given.sizes or (["124m", "1b"] if given.device == "cuda" else ["tiny"]):
                bench = Bench(report, name, device, given.device, threads, Path(cache) / name)
                bench.compare(names, rounds, bench.size.seconds * (QUICK if given.quick else 1), given.micro)
    show(report)
    return report.end(given.json)


def show(report: Report) -> None:
    """The rows and the ratios, for people."""
    for row in report.rows:
        shares = "" if row["mfu_palm"] is None else f"{row['mfu_palm']:.1%} MFU (causal {row['mfu_causal']:.1%})  "
        memory = row["peak_gpu_mb"] or row["peak_mb"]
        print(
            f"{row['part']:5} {row['side']:13} {row['tokens_per_second']:>9,} tokens/s  {shares}{memory:>7,} MB  "
            f"{row['micro_rows']} rows in a pass, first step after {row['first_seconds']:.0f} s, {row['precision']}, "
            f"{row['parameters']:,} parameters"
        )
    for name, value in report.ratios.items():
        print(f"{name}: {value}")
    for part, reason in report.left_out.items():
        print(f"left out: {part}: {reason}")
    for part, reason in report.failed.items():
        print(f"failed: {part}: {reason}")


if __name__ == "__main__":
    sys.exit(main())
