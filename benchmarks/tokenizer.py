"""The tokenizer room against Hugging Face's tokenizers and tiktoken: learning, encoding, writing token shards.

    python benchmarks/tokenizer.py --quick --json
    python benchmarks/tokenizer.py --memory

What is measured and how to read it stands in benchmarks/README.md.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from common import HERE, ROOT, FailedError, Report, arguments, bench_folder, measure, quality_row, real_data, say

PARTS = ("train", "encode", "shards")
TARGETS = {
    "train_vs_tokenizers": 2.0,
    "encode_vs_tiktoken": 1.3,
    "encode_vs_tiktoken_core": 0.95,
    "encode_vs_tokenizers": 3.0,
    "shards_vs_encoding": 0.8,
}
ROW_GROUP = 4 * 2**20  # bytes of text, as the corpus stage writes them
SCHEMA = pa.schema(
    [("id", pa.string()), ("text", pa.large_string()), ("mixture", pa.string()), ("messages", pa.string())]
)


def articles(copies: int) -> Iterator[tuple[str, str]]:
    """(id, text) of featured Wikipedia articles, some 100 MB a copy; each further copy has its letters permuted."""
    paths = sorted((real_data() / "wikipedia").glob("train-*.jsonl.gz"))
    for copy in range(copies):
        letters = list("abcdefghijklmnopqrstuvwxyz")
        random.Random(copy).shuffle(letters)
        table = str.maketrans("abcdefghijklmnopqrstuvwxyz", "".join(letters)) if copy else {}
        for path in paths:
            with gzip.open(path, "rt", encoding="utf-8") as lines:
                for line in lines:
                    record = json.loads(line)
                    text = record["text"].translate(table)
                    yield hashlib.sha256(text.encode()).hexdigest()[:32], text


def corpus(copies: int) -> Path:
    """A corpus directory of so many copies of the articles, made on first use."""
    folder = bench_folder() / "corpora" / f"articles-{copies}x-1"
    if (folder / "funnel.json").exists():
        return folder
    say(f"making {folder} (once)")
    (folder / "documents").mkdir(parents=True, exist_ok=True)
    count = size = held = 0
    rows: list[tuple[str, str, str, None]] = []
    with pq.ParquetWriter(folder / "documents" / "train-00000.parquet", SCHEMA, compression="zstd") as writer:
        for number, text in articles(copies):
            rows.append((number, text, "wikipedia", None))
            count, size, held = count + 1, size + len(text.encode()), held + len(text)
            if held >= ROW_GROUP:
                writer.write_table(pa.table(list(map(list, zip(*rows, strict=True))), schema=SCHEMA))
                rows, held = [], 0
        if rows:
            writer.write_table(pa.table(list(map(list, zip(*rows, strict=True))), schema=SCHEMA))
    empty = pa.table([[] for _ in SCHEMA], schema=SCHEMA)
    pq.write_table(empty, folder / "documents" / "validation-00000.parquet")
    steps = {"train": {"documents": count, "bytes": size}, "validation": {"documents": 0, "bytes": 0}}
    sources = [{"name": "wikipedia", "weight": 1.0, "epochs": None}]
    (folder / "funnel.json").write_text(json.dumps({"total": {"steps": steps}, "sources": sources}))
    return folder


class Bench:
    """The parts of the benchmark; rates are of the median of the rounds, sides taken in turn."""

    def __init__(self, report: Report, rounds: int) -> None:
        self.report, self.rounds = report, rounds
        self.corpus = corpus(1)
        self.tokenizer = bench_folder() / "tokenizer-32k.json"

    def rates(self, jobs: list[str], part: str) -> dict[str, dict[str, float]]:
        """{"wall", "cpu"} in MB/s of each job; all rows go to the report."""
        runs: dict[str, list[dict[str, Any]]] = {job: [] for job in jobs}
        for _ in range(self.rounds):
            for job in jobs:
                runs[job].append(self._run(job))
        counts = {run["tokens"] for found in runs.values() for run in found}
        if part == "encode" and len(counts) != 1:
            raise FailedError(f"the sides give {sorted(counts)} tokens: they don't do the same work")
        rates: dict[str, dict[str, float]] = {}
        for job, found in runs.items():
            size = found[0]["bytes"] / 1e6
            wall = median(run["wall"] for run in found)
            cpu = median(run["cpu"] for run in found) if found[0]["cpu"] is not None else None
            rates[job] = {"wall": size / wall, "cpu": size / cpu if cpu else 0.0}
            self.report.rows.append(
                quality_row(
                    part,
                    "MB/s",
                    size / wall,
                    side=job,
                    n=found[0]["tokens"],
                    wall_seconds=round(wall, 3),
                    cpu_seconds_timed=None if cpu is None else round(cpu, 3),
                    mb_per_core_second=round(size / cpu, 2) if cpu else None,
                    wall_each=[round(run["wall"], 3) for run in found],
                )
            )
            say(f"  {job}: {size / wall:.1f} MB/s" + (f", {size / cpu:.1f} a core" if cpu else ""))
        return rates

    def train(self) -> None:
        found = self.rates(["train-ours", "train-tokenizers"], "train")
        self._ratio("train_vs_tokenizers", found["train-ours"]["wall"], found["train-tokenizers"]["wall"])

    def encode(self) -> None:
        if not self.tokenizer.exists():
            self._run("train-ours")
        jobs = ["encode-processes", "encode-ours", "encode-tiktoken", "encode-ours-core", "encode-tiktoken-core"]
        found = self.rates([*jobs, "encode-tokenizers-core"], "encode")
        self._ratio("encode_vs_tiktoken", found["encode-processes"]["wall"], found["encode-tiktoken"]["wall"])
        core = found["encode-ours-core"]["cpu"]
        self._ratio("encode_vs_tiktoken_core", core, found["encode-tiktoken-core"]["cpu"])
        self._ratio("encode_vs_tokenizers", core, found["encode-tokenizers-core"]["cpu"])

    def shards(self) -> None:
        if not self.tokenizer.exists():
            self._run("train-ours")
        found = self.rates(["read-encode", "shards"], "shards")
        self._ratio("shards_vs_encoding", found["shards"]["wall"], found["read-encode"]["wall"])

    def memory(self, copies: list[int]) -> None:
        """Peak memory of the whole stage, learning included, by the size of the corpus."""
        for count in copies:
            folder = corpus(count)
            program = (
                "from pathlib import Path; from groundup.tokenizer import build_tokenizer; "
                "from groundup.recipe import TokenizerSection; import sys, tempfile\n"
                "if __name__ == '__main__':\n"
                "    with tempfile.TemporaryDirectory(dir=sys.argv[2]) as out:\n"
                "        section = TokenizerSection(vocabulary_size=32768, sample_bytes=100 * 10**6)\n"
                "        build_tokenizer(section, Path(sys.argv[1]), Path(out) / 'tokenizer', workers=2)\n"
            )
            script = bench_folder() / "tokenizer_stage.py"
            script.write_text(program)
            cost = measure([sys.executable, script, folder, bench_folder()], env={"PYTHONPATH": str(ROOT / "src")})
            size = sum(path.stat().st_size for path in (folder / "documents").iterdir()) / 1e6
            peak = None if cost.peak is None else cost.peak / 1e6
            row = quality_row(
                "memory", "peak MB", peak, side=f"{count} × 100 MB", n=count, wall_seconds=round(cost.wall, 1)
            )
            self.report.rows.append(row | {"parquet_mb": round(size, 1), "cpu_seconds_timed": round(cost.cpu, 1)})
            say(f"  {count} × 100 MB: {peak:.0f} MB at the peak, {cost.wall:.0f} s")

    def _run(self, job: str) -> dict[str, Any]:
        command = [sys.executable, str(HERE / "peers" / "tokenizer_job.py"), job, str(self.corpus), str(self.tokenizer)]
        done = subprocess.run(command, capture_output=True, text=True, errors="replace")
        if done.returncode:
            raise FailedError(f"{job}\n{done.stderr[-3000:]}")
        found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return found

    def _ratio(self, key: str, ours: float, theirs: float) -> None:
        self.report.ratios[key] = round(ours / theirs, 2)
        say(f"  {key}: {ours / theirs:.2f} (asked: {TARGETS[key]})")


def main() -> int:
    parser = arguments("The tokenizer room against tokenizers and tiktoken.")
    parser.add_argument("--parts", default=",".join(PARTS), help=f"of {','.join(PARTS)}; separated by commas")
    parser.add_argument("--memory", action="store_true", help="add peak memory at 100 MB and 1 GB of text")
    options = parser.parse_args()
    parts = [part for part in options.parts.split(",") if part]
    if unknown := set(parts) - set(PARTS):
        parser.error(f"no part {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    report = Report("tokenizer")
    made: list[Bench] = []
    report.run("data", lambda: made.append(Bench(report, 2 if options.quick else 5)))
    for part in parts if made else []:
        report.run(part, getattr(made[0], part))
    if options.memory and made:
        report.run("memory", lambda: made[0].memory([1, 10]))
    return report.show(options.json)


if __name__ == "__main__":
    sys.exit(main())
