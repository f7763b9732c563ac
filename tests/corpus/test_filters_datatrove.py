"""The same documents kept and dropped as by datatrove, whose English word splitter is spaCy's."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from groundup.corpus.documents import Batch
from groundup.corpus.filters import build_filters
from groundup.corpus.text import normalise, passages
from groundup.recipe.filters import FiltersSection

# What runs in datatrove's own environment: of every text, which filter drops it and why.
SCRIPT = """
import json, sys
from datatrove.data import Document
import datatrove.pipeline.filters as theirs
filters = {"gopher_repetition": theirs.GopherRepetitionFilter(), "gopher_quality": theirs.GopherQualityFilter(),
           "fineweb": theirs.FineWebQualityFilter(), "c4": theirs.C4QualityFilter()}
texts = json.load(sys.stdin)
kept = {name: [each.filter(Document(text=text, id="0")) is True for text in texts] for name, each in filters.items()}
json.dump(kept, sys.stdout)
"""


@pytest.fixture(scope="module")
def datatrove() -> Path:
    folder = Path(os.environ.get("GROUNDUP_BENCH", Path.home() / ".cache" / "groundup" / "bench")) / "datatrove"
    python = folder / "bin" / "python"
    if not python.exists():
        pytest.skip(f"datatrove is not installed at {folder}; $GROUNDUP_BENCH names another folder")
    return python


@pytest.mark.slow
def test_agreement_with_datatrove(datatrove: Path, real_data: Path) -> None:
    texts = sample(real_data)
    answer = subprocess.run(
        [datatrove, "-c", SCRIPT], input=json.dumps(texts), capture_output=True, text=True, check=True
    )
    theirs = {name: np.array(kept, bool) for name, kept in json.loads(answer.stdout).items()}
    batch = Batch({"text": pa.array(texts, pa.large_string())})
    ours = {}
    for apply in build_filters(FiltersSection.model_validate({name: {} for name in theirs})):
        ours[apply.name] = apply(batch).failed < 0
        assert np.mean(ours[apply.name] == theirs[apply.name]) >= 0.99, apply.name
        assert np.mean(theirs[apply.name]) <= 0.95  # the sample tells something
    used = ("gopher_repetition", "gopher_quality", "fineweb")
    agreement = np.mean(np.all([ours[name] for name in used], 0) == np.all([theirs[name] for name in used], 0))
    assert agreement >= 0.97


def sample(real_data: Path) -> list[str]:
    """About 1,500 passages of a web page's length: articles, novels and technical documents."""
    found: list[str] = []
    for name, count in (("wikipedia/train-0.jsonl.gz", 20), ("wikipedia_random/docs.jsonl.gz", 500)):
        with gzip.open(real_data / name, "rt", encoding="utf-8") as file:
            found += [json.loads(next(file))["text"] for _ in range(count)]
    for path in sorted((real_data / "books").iterdir())[::4]:
        found.append(gzip.decompress(path.read_bytes()).decode("utf-8-sig")[60_000:90_000])
    for path in [each for each in sorted((real_data / "techdocs").rglob("*")) if each.is_file()][::12]:
        data = path.read_bytes()
        found.append((gzip.decompress(data) if path.suffix == ".gz" else data).decode("utf-8", "replace"))
    return [piece for text in found for piece in passages(normalise(text), 4000)]
