"""datatrove's side of benchmarks/corpus.py, run by datatrove's own Python: python datatrove_corpus.py JOB.json

The job: {"part", "inputs": folder, "out": folder, "scratch": folder, "tasks", "workers", "clusters": bool}. Each part
is put together as datatrove's own examples do it, with its default settings, one task an input file, and in the form
that costs it least: where filters and MinHash follow each other, signatures are taken in the pipeline that filters, so
that nothing is read twice but for the last step, and what lies between is Parquet rather than gzipped JSONL.
"""

import json
import os
import sys
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

from datatrove.executor import LocalPipelineExecutor  # noqa: E402
from datatrove.pipeline.dedup import (  # noqa: E402
    MinhashDedupBuckets,
    MinhashDedupCluster,
    MinhashDedupFilter,
    MinhashDedupSignature,
)
from datatrove.pipeline.dedup.minhash import MinhashConfig  # noqa: E402
from datatrove.pipeline.extractors import Trafilatura  # noqa: E402
from datatrove.pipeline.filters import (  # noqa: E402
    FineWebQualityFilter,
    GopherQualityFilter,
    GopherRepetitionFilter,
)
from datatrove.pipeline.formatters import PIIFormatter  # noqa: E402
from datatrove.pipeline.readers import JsonlReader, ParquetReader, WarcReader  # noqa: E402
from datatrove.pipeline.writers import ParquetWriter  # noqa: E402

MINHASH = MinhashConfig(n_grams=5, num_buckets=14, hashes_per_bucket=8)  # these are the defaults too


class Job:
    """One run; `part` names its method."""

    def __init__(self, job):
        self.inputs, self.out, self.scratch = job["inputs"], job["out"], Path(job["scratch"])
        self.tasks, self.workers = job["tasks"], job["workers"]

    def run(self, name, steps, tasks=None):
        logs = self.scratch / "logs" / name
        LocalPipelineExecutor(steps, tasks=tasks or self.tasks, workers=self.workers, logging_dir=str(logs)).run()

    def folder(self, name):
        return str(self.scratch / name)

    def filters(self):
        self.run("filters", [JsonlReader(self.inputs), *quality_filters(), ParquetWriter(self.out)])

    def minhash(self):
        self.run("signatures", [JsonlReader(self.inputs), MinhashDedupSignature(self.folder("signatures"), MINHASH)])
        self.find_duplicates()
        self.run("keep", [JsonlReader(self.inputs), MinhashDedupFilter(self.folder("remove")), ParquetWriter(self.out)])

    def end_to_end(self):
        between = self.folder("filtered")
        signatures = MinhashDedupSignature(self.folder("signatures"), MINHASH)
        steps = [JsonlReader(self.inputs), *quality_filters(), PIIFormatter(), ParquetWriter(between), signatures]
        self.run("filters", steps)
        self.find_duplicates()
        self.run("keep", [ParquetReader(between), MinhashDedupFilter(self.folder("remove")), ParquetWriter(self.out)])

    def warc(self):
        self.run("extract", [WarcReader(self.inputs), Trafilatura(), ParquetWriter(self.out)])

    def find_duplicates(self):
        """Stages 2 and 3: pairs by bucket, then their clusters in one task."""
        buckets = MinhashDedupBuckets(self.folder("signatures"), self.folder("pairs"), config=MINHASH)
        self.run("buckets", [buckets], tasks=MINHASH.num_buckets)
        cluster = MinhashDedupCluster(self.folder("pairs"), self.folder("remove"), config=MINHASH)
        self.run("cluster", [cluster], tasks=1)


def quality_filters():
    return [GopherRepetitionFilter(), GopherQualityFilter(), FineWebQualityFilter()]


if __name__ == "__main__":
    content = json.loads(Path(sys.argv[1]).read_text())
    getattr(Job(content), content["part"])()
