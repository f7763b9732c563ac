"""The corpus room against datatrove: CPU time of the whole process tree on the same documents by the same rules.

    python benchmarks/corpus.py --quick --json
    python benchmarks/corpus.py --memory [--full]

See benchmarks/README.md for what the keys mean.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import corpora
import numpy as np
import pyarrow.parquet as pq
import scores
from common import (
    HERE,
    ROOT,
    Cost,
    FailedError,
    Report,
    UnavailableError,
    alternate,
    arguments,
    bench_folder,
    cost_row,
    free_space,
    mean_cpu,
    measure,
    peer_python,
    quality_row,
    say,
)

FILTERS: dict[str, Any] = {"gopher_repetition": {}, "gopher_quality": {}, "fineweb": {}}
NEAR = {"bands": 14, "rows": 8, "hashes": 112, "ngram": 5}
# The recipe's [corpus] of each part but for the sources. datatrove has no exact deduplication beside MinHash, and
# knows e-mail and IP addresses only.
SECTIONS: dict[str, dict[str, Any]] = {
    "filters": {"filters": FILTERS, "dedup": {"exact": False}},
    "minhash": {"dedup": {"exact": False, "near": NEAR}},
    "end_to_end": {
        "filters": FILTERS,
        "personal_data": {"kinds": ["email", "ip"]},
        "dedup": {"exact": False, "near": NEAR},
    },
    "warc": {"dedup": {"exact": False}},
    "memory": {"preset": "web"},
}
SECTIONS["neardup"] = SECTIONS["minhash"]
WHOLE = 10**9  # characters: no document is cut into passages
UNPACKED = 3  # what the corpus room takes a byte of .gz for
TARGETS = {"end_to_end": 12, "minhash": 30, "filters": 10, "warc": 10}
PARTS = ("filters", "minhash", "end_to_end", "warc", "neardup")
MEMORY_LIMIT_MB, FLAT = 1500, 1.2


@dataclass(frozen=True)
class Setting:
    """How large and how often. `documents` in megabytes of text, `copies` of the web pages."""

    documents: int
    files: int
    copies: int
    rounds: int
    workers: int


class Bench:
    """Runs the parts, in `folder`, and fills the report."""

    def __init__(self, report: Report, setting: Setting, folder: Path, keep: bool) -> None:
        self.report, self.setting, self.folder, self.keep = report, setting, folder, keep

    def part(self, name: str) -> None:
        """One part, if there is something to compare with."""
        peer_python("datatrove")
        if name == "warc":
            self._warc()
        elif name == "neardup":
            self._neardup()
        else:
            self._documents(name)

    def _documents(self, part: str) -> None:
        """One of the parts that read documents."""
        inputs, done = corpora.documents(self.setting.documents, self.setting.files)
        kept = self._compare(part, inputs, done["bytes"], done["documents"])
        if part == "minhash":
            self._deduplication(part, kept, inputs, done["planted"])
        else:
            equal, kappa = scores.agreement(kept["ours"], kept["theirs"])
            target = {"target": 0.97} if part == "filters" else {}
            self._quality(part, "agreement", equal, n=len(kept["ours"]), **target)
            self._quality(part, "kappa", kappa, n=len(kept["ours"]))
        if self.keep:
            differing = np.flatnonzero(kept["ours"] != kept["theirs"])
            lines = [json.dumps({"id": int(i), "ours": bool(kept["ours"][i])}) + "\n" for i in differing]
            (self.folder / f"{part}-differing.jsonl").write_text("".join(lines))

    def _neardup(self) -> None:
        """News articles with known pairs: quality, and a cost too small to make a ratio of."""
        inputs, done = corpora.articles()
        kept = self._compare("neardup", inputs, done["bytes"], done["documents"])
        self._deduplication("neardup", kept, inputs, done["planted"])

    def _compare(self, part: str, inputs: Path, size: int, count: int) -> dict[str, np.ndarray]:
        """Run both sides on `documents`; returns which of the `count` documents each kept, bool [count]."""
        costs = self._alternate(part, inputs)
        firsts = corpora.first_numbers(inputs)
        kept = {"ours": np.zeros(count, dtype=bool), "theirs": np.zeros(count, dtype=bool)}
        for path in (self.folder / f"{part}-ours").rglob("documents/*.parquet"):
            table = pq.read_table(path, columns=["source", "record"]).to_pydict()
            for source, record in zip(table["source"], table["record"], strict=True):
                kept["ours"][firsts[Path(source).name] + record - 1] = True
        for path in (self.folder / f"{part}-theirs").rglob("*.parquet"):
            kept["theirs"][[int(each) for each in pq.read_table(path, columns=["id"])["id"].to_pylist()]] = True
        for side, runs in costs.items():
            if not kept[side].any():
                raise FailedError(f"{side}: none of {count} documents was kept")
            self.report.rows.append(cost_row(part, side, runs, size / 1e6, documents=count, kept=int(kept[side].sum())))
        self._finish(part, costs)
        return kept

    def _alternate(self, part: str, inputs: Path) -> dict[str, list[Cost]]:
        return alternate(self.setting.rounds, lambda: self.ours(part, inputs), lambda: self.theirs(part, inputs))

    def _finish(self, part: str, costs: dict[str, list[Cost]]) -> None:
        if part in TARGETS:
            self.report.ratios[part] = round(mean_cpu(costs["theirs"]) / mean_cpu(costs["ours"]), 2)
        for side in costs if not self.keep else ():
            shutil.rmtree(self.folder / f"{part}-{side}")

    def ours(self, part: str, inputs: Path) -> Cost:
        """One run of the corpus stage."""
        fixed: dict[str, Any] = {"sources": [str(inputs)], "passage_characters": WHOLE}
        if part != "memory":  # a file is a unit of work, as it is a task of theirs, so that both workers have some
            fixed["shard_bytes"] = UNPACKED * max(path.stat().st_size for path in inputs.iterdir())
        job = {"section": SECTIONS[part] | fixed, "workers": self.setting.workers}
        program = [sys.executable, HERE / "peers" / "groundup_corpus.py"]
        return self._run(f"{part}-ours", program, job, {"PYTHONPATH": str(ROOT / "src")})

    def theirs(self, part: str, inputs: Path) -> Cost:
        """One run of datatrove."""
        job = {"part": "minhash" if part == "neardup" else part, "inputs": str(inputs), "workers": self.setting.workers}
        job["tasks"] = len(list(inputs.glob("*.gz")))
        program = [peer_python("datatrove"), HERE / "peers" / "datatrove_corpus.py"]
        return self._run(f"{part}-theirs", program, job, {"PYTHONPATH": ""})

    def _run(self, name: str, program: list[Any], job: dict[str, Any], env: dict[str, str]) -> Cost:
        folder = self.folder / name
        shutil.rmtree(folder, ignore_errors=True)
        (folder / "scratch").mkdir(parents=True)
        path = folder / "job.json"
        path.write_text(json.dumps(job | {"out": str(folder / "out"), "scratch": str(folder / "scratch")}))
        cost = measure([*program, path], env=env)
        shutil.rmtree(folder / "scratch")
        say(f"  {name}: {cost.cpu:.1f} CPU seconds, {cost.wall:.1f} on the clock")
        return cost

    def _deduplication(self, part: str, kept: dict[str, np.ndarray], inputs: Path, planted: list[Any]) -> None:
        """Recall on planted pairs by kind and similarity and on all pairs there are; precision of what was removed."""
        pairs = _neighbours(inputs)
        first, second, kinds, similarity = (np.array(column) for column in zip(*planted, strict=True))
        alone = np.bincount(np.concatenate([pairs.first, pairs.second]), minlength=len(kept["ours"])) <= 1
        alone = alone[first] & alone[second]  # nothing else is like the two, so a removed one was found for the other
        strict = scores.Neighbours(first[alone], second[alone], similarity[alone])
        for side, decisions in kept.items():
            for measure_name, wanted in (("recall_planted", strict), ("recall_all", pairs)):
                value, n = scores.recall(wanted, decisions, 0.8)
                self._quality(part, f"{measure_name}_0.8", value, side=side, n=n, target=0.99)
            for lowest in (0.5, 0.7):
                value, n = scores.precision(pairs, decisions, lowest)
                target = {"target": 0.99} if lowest == 0.5 else {}
                self._quality(part, f"precision_{lowest}", value, side=side, n=n, **target)
            for kind in dict.fromkeys(each[2] for each in planted) if part == "minhash" else ():
                of_kind = alone & (kinds == kind)
                chosen = scores.Neighbours(first[of_kind], second[of_kind], similarity[of_kind])
                value, n = scores.recall(chosen, decisions, 0)
                mean = round(float(chosen.similarity.mean()), 3) if n else None
                self._quality(part, f"recall {kind}", value, side=side, n=n, jaccard=mean)

    def _warc(self) -> None:
        """Pages to text, each side with its own extractor for crawls."""
        inputs, done = corpora.pages(self.setting.copies, self.setting.files)
        costs = self._alternate("warc", inputs)
        texts: dict[str, dict[str, str]] = {"ours": {}, "theirs": {}}
        for path in (self.folder / "warc-ours").rglob("documents/*.parquet"):
            table = pq.read_table(path, columns=["url", "text"]).to_pydict()
            texts["ours"].update(zip(table["url"], table["text"], strict=True))
        for path in (self.folder / "warc-theirs").rglob("*.parquet"):
            table = pq.read_table(path, columns=["metadata", "text"]).to_pydict()
            texts["theirs"].update((meta["url"], text) for meta, text in zip(*table.values(), strict=True))
        for side, runs in costs.items():
            row = cost_row("warc", side, runs, done["bytes"] / 1e6, documents=done["pages"], kept=len(texts[side]))
            self.report.rows.append(row)
            if 2 * len(texts[side]) < done["pages"]:
                raise FailedError(f"{side}: text of {len(texts[side])} of {done['pages']} pages only")
            f1 = [scores.text_f1(texts[side].get(url, ""), gold) for url, gold in done["gold"].items()]
            self._quality("warc", "text_f1", float(np.mean(f1)), side=side, n=len(f1))
        self._finish("warc", costs)

    def memory(self, sizes: list[int]) -> None:
        """The whole web pipeline on growing collections: our peak memory, and how flat it stays."""
        peaks = []
        for megabytes in sizes:
            free_space(self.folder, megabytes * 3 * 10**6)
            inputs, done = corpora.grown(megabytes)
            name = f"memory {megabytes} MB"
            cost = self.ours("memory", inputs)
            outputs = (self.folder / "memory-ours").rglob("documents/*.parquet")
            kept = sum(pq.ParquetFile(path).metadata.num_rows for path in outputs)
            row = cost_row(name, "ours", [cost], done["bytes"] / 1e6, documents=done["documents"], kept=kept)
            self.report.rows.append(row)
            shutil.rmtree(self.folder / "memory-ours")
            if cost.peak is None:
                raise UnavailableError("memory can be measured on Linux only")
            peaks.append(cost.peak / 1e6)
        self._quality("memory", "peak_mb", max(peaks), side="ours", target=MEMORY_LIMIT_MB)
        self._quality("memory", "largest_over_smallest", max(peaks) / min(peaks), side="ours", target=FLAT)

    def _quality(self, part: str, name: str, value: float | None, **more: Any) -> None:
        self.report.rows.append(quality_row(part, name, value, **more))


@cache
def _neighbours(inputs: Path) -> scores.Neighbours:
    return scores.neighbours(corpora.read_texts(inputs))


def main() -> int:
    parser = arguments("The corpus room against datatrove.")
    parser.add_argument("--parts", default=",".join(PARTS), help=f"of {','.join(PARTS)}; separated by commas")
    parser.add_argument("--memory", action="store_true", help="add the memory curve at 100 MB and 1 GB of text")
    parser.add_argument("--full", action="store_true", help="with --memory: 5 GB too (some 10 GB of disk)")
    parser.add_argument("--megabytes", type=int, help="of text, in place of 48 (quick) or 140")
    parser.add_argument("--workers", type=int, default=2, help="processes of either side")
    parser.add_argument("--keep", type=Path, help="a folder in which the last outputs of both sides stay")
    options = parser.parse_args()
    parts = [part for part in options.parts.split(",") if part]
    if unknown := set(parts) - set(PARTS):
        parser.error(f"no part {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    size, files, copies, rounds = (48, 4, 6, 1) if options.quick else (140, 8, 20, 2)
    setting = Setting(options.megabytes or size, files, copies, rounds, options.workers)
    report = Report("corpus")
    folder = (options.keep or bench_folder() / "runs").resolve()
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        bench = Bench(report, setting, folder if options.keep else Path(temporary), options.keep is not None)
        for part in parts:
            report.run(part, _bound(bench.part, part))
        if options.memory:
            sizes = [100, 1000, *([5000] if options.full else [])]
            report.run("memory", _bound(bench.memory, sizes))
    return report.show(options.json)


def _bound(function: Callable[[Any], None], argument: Any) -> Callable[[], None]:
    return lambda: function(argument)


if __name__ == "__main__":
    sys.exit(main())
