"""A small finished corpus made by hand, without the stage: for tests of what is shown of one."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from groundup.corpus.funnel import SourceFunnel, funnel_json
from groundup.corpus.store import SCHEMA, TableWriter, write_rejections
from groundup.recipe import parse_recipe
from groundup.recipe.load import dump_toml
from groundup.run import write_json

RECIPE = """
[run]
name = "made"
[corpus]
sources = ["texts", "web"]
passage_characters = 5000
[corpus.filters.gopher_quality]
min_words = 40
[corpus.filters.language]
keep = ["en", "de"]
[corpus.personal_data]
[corpus.dedup.near]
[corpus.dedup.lines]
"""
STEPS = ["read", "extracted", "cleaned", "language", "gopher_quality", "personal_data", "exact_duplicates", "lines",
         "near_duplicates", "kept", "train", "validation"]  # fmt: skip


def rows(name: str, count: int, words: int, **more: Any) -> list[dict[str, Any]]:
    """Documents of one source; document k has words · (k + 1) words of four letters."""
    return [
        {
            "id": f"{number:032x}",
            "text": " ".join([f"w{number:03d}"] * (words * (number + 1))),
            "source": f"{name}/{number // 5}.txt",
            "record": number + 1,
            "mixture": name,
            **more,
        }  # fmt: skip
        for number in range(count)
    ]


def write_split(directory: Path, split: str, number: int, documents: Sequence[dict[str, Any]]) -> None:
    """One file of documents, as the stage writes them."""
    directory.mkdir(parents=True, exist_ok=True)
    columns = {name: [row.get(name) for row in documents] for name in SCHEMA.names}
    with TableWriter(directory / f"{split}-{number:05d}.parquet", SCHEMA) as writer:
        writer.add(columns, [len(row["text"].encode()) for row in documents])


def funnels() -> list[SourceFunnel]:
    """A folder of texts and a crawl of pages, with refusals at most steps. Every count adds up."""
    texts, web = SourceFunnel("texts", files=3), SourceFunnel("web", files=2)
    texts.count("read", 62, 70_000)
    texts.reject("read", "binary_file", file="texts/x.bin", text="\x1b[31mred\x07")
    for number in range(11):
        texts.reject("gopher_quality", "min_words", file="texts/1.txt", record=number, value=7.0 + number,
                     text=f"Too short, number {number}.", size=500, words=10)  # fmt: skip
    web.count("read", 100, 900_000)
    for number in range(30):
        web.reject("language", "language", file="web/a.warc.gz", record=number, value=0.99,
                   text=f"Ceci n'est pas un texte {number}. " * 90, size=1000, words=200)  # fmt: skip
    web.reject("gopher_quality", "min_words", file="web/a.warc.gz", record=77, value=3, text="Home", size=4, words=1)
    web.reject(
        "near_duplicates", "near_duplicate", file="web/b.warc.gz", record=3, text="Twice told.", size=800, words=90
    )
    texts.count("extracted", 61, 70_000)
    web.count("extracted", 100, 120_000)
    left = {"texts": [61, 61, 50, 50, 50, 50, 50], "web": [100, 70, 69, 69, 69, 69, 68]}
    for funnel in (texts, web):
        for step, documents in zip(STEPS[2:9], left[funnel.name], strict=True):
            funnel.count(step, documents, documents * 1000, documents * 150)
        funnel.count("kept", left[funnel.name][-1], left[funnel.name][-1] * 1000, left[funnel.name][-1] * 150)
    texts.count("train", 48, 48_000, 7000)
    texts.count("validation", 2, 2000, 300)
    web.count("train", 70, 68_000, 9000)
    texts.edits.update(
        {"cleaned/encoding": 4, "personal_data/email": 12, "lines/lines removed": 9, "lines/documents shortened": 5}
    )
    return [texts, web]


def make_run(run: Path, recipe: str = RECIPE) -> Path:
    """RUN/recipe.toml and RUN/corpus as a build leaves them, of 118 passages to train on and 2 to validate on."""
    run.mkdir(parents=True, exist_ok=True)
    (run / "recipe.toml").write_text(dump_toml(parse_recipe(recipe)))
    documents = run / "corpus" / "documents"
    write_split(
        documents, "train", 0, rows("texts", 48, 3, language="en", language_confidence=0.98, licence="MIT (LICENSE)")
    )
    write_split(documents, "train", 1, rows("web", 70, 2, language="de", quality=0.31, url="https://example.org/a"))
    write_split(documents, "validation", 0, rows("texts", 2, 100, language="en"))
    made = funnels()
    tests = {"quiz.jsonl": {"texts": 40, "too_short": 6, "found": 2, "documents": 3, "examples": []}}
    content = funnel_json(made, STEPS) | ({"contamination": tests} if "[corpus.decontaminate]" in recipe else {})
    write_json(run / "corpus" / "funnel.json", content)
    examples = [each for funnel in made for key in sorted(funnel.examples) for each in funnel.examples[key]]
    write_rejections(run / "corpus" / "rejected", examples)
    return run
