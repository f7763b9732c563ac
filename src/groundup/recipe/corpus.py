"""``[corpus]``: which texts the model learns from, and what is done to them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from groundup.recipe.base import Section
from groundup.recipe.dedup import DecontaminateSection, DedupSection
from groundup.recipe.filters import FiltersSection
from groundup.recipe.personal import PersonalDataSection
from groundup.recipe.presets import with_preset

Format = Literal[
    "auto", "text", "html", "jsonl", "csv", "parquet", "warc", "wet", "arc", "mediawiki", "code"
]  # fmt: skip


class SourceTable(Section):
    """A corpus source with options; a plain string is a source with none."""

    path: str = Field(
        min_length=1,
        description="A file, folder, glob or URL (`https://`, `s3://`, `gs://`, `hf://`); a crawl, as "
        "`commoncrawl:CC-MAIN-2024-10` (its pages) or `commoncrawl:CC-MAIN-2024-10/wet` (its plain texts); or "
        "`builtin:storyworld`, `builtin:storyworld-chats` (conversations, each learned whole in the chat format) or "
        "`builtin:python-docs`. Relative paths start at the working directory.",
    )
    format: Format = Field(
        default="auto",
        description="How files are read: `auto` goes by their names (.txt .md .rst .html .jsonl .json .csv .tsv "
        ".parquet .warc .wet .arc .xml, each plain or .gz .zst .bz2 .xz). `code` takes the programs of a repository.",
    )
    extensions: tuple[str, ...] = Field(
        default=(),
        description="Take only files that end so, as `.py`; empty takes every file that can be read. With "
        '`format = "code"` they replace the list of programs\' endings.',
    )
    weight: float = Field(
        default=1.0,
        gt=0,
        description="How often the source's documents appear in one pass over the corpus: 2 is twice, "
        "0.5 every second one.",
    )
    epochs: float | None = Field(
        default=None,
        gt=0,
        description="At most this many passes over the source in all of training; absent means no limit.",
    )
    documents: int | None = Field(
        default=None,
        gt=0,
        description="At most this many documents; for the story world how many are written. "
        "Absent means all (for the simulator its default).",
    )
    files: int | None = Field(
        default=None,
        gt=0,
        description="At most this many files; absent means all. A crawl needs a number, and its archives are spread "
        "evenly over it.",
    )
    text_field: str = Field(
        default="text", min_length=1, description="Key or column of the text in JSONL, CSV and Parquet records."
    )
    url_field: str = Field(
        default="url", min_length=1, description="Key or column of the address in such records; may be absent there."
    )


class CorpusSection(Section):
    """Sources become clean, deduplicated documents, split into training and validation."""

    kind: Literal["corpus"] = Field(default="corpus", description="What the stage does.")
    sources: tuple[str | SourceTable, ...] = Field(
        default=("builtin:storyworld",),
        min_length=1,
        description="Where text comes from: strings (paths, folders, globs, URLs, `builtin:` names) or tables.",
    )
    preset: Literal["web", "books", "code"] | None = Field(
        default=None,
        description="A bundle of filters and deduplication for one kind of text; what this section writes itself is "
        "added to it. Absent: extraction, repair and exact deduplication only.",
    )
    extractor: Literal["auto", "resiliparse", "trafilatura"] = Field(
        default="auto",
        description="How a page's main text is found: `resiliparse` is fast, `trafilatura` better and some ten times "
        "slower; `auto` takes the first for crawls and the second for folders of pages.",
    )
    filters: FiltersSection = Field(
        default=FiltersSection(), description="Which documents are refused; none where none is named."
    )
    personal_data: PersonalDataSection | None = Field(
        default=None, description="Replaces personal data with placeholders where present."
    )
    dedup: DedupSection = Field(default=DedupSection(), description="Which repeated texts are removed.")
    decontaminate: DecontaminateSection | None = Field(
        default=None, description="Looks for the texts of tests among the documents where present."
    )
    validation_fraction: float = Field(
        default=0.01,
        gt=0,
        lt=0.5,
        description="Share of documents held out for validation, chosen by each document's hash.",
    )
    passage_characters: Annotated[int, Field(ge=200)] | Literal["auto", "whole"] = Field(
        default="auto",
        description="A document of more characters is cut into passages of at most this many, at blank lines, after "
        "all other steps and before the split: for a few long texts, so that some of each is held out. `whole` cuts "
        "none; `auto` does where there are 100 documents, and else cuts at 8,000. Unit: characters.",
    )
    shard_bytes: int = Field(
        default=32 * 2**20,
        ge=2**16,
        description="Input of about this much is one unit of work and one file of documents. Unit: bytes.",
    )
    unpacked_limit: int = Field(
        default=64 * 2**30,
        ge=2**20,
        description="A compressed file is read up to this size unpacked, so that a hostile one ends. Unit: bytes.",
    )

    @model_validator(mode="before")
    @classmethod
    def _preset(cls, values: Any) -> Any:
        return with_preset(values) if isinstance(values, dict) else values
