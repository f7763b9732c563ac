"""Formats by name: which of them a file has, and which files can be read in stretches."""

from __future__ import annotations

import posixpath
import re
from urllib.parse import urlsplit

from groundup.corpus.readers.unpack import COMPRESSIONS

# Suffix and format, as in the recipe; each suffix may be followed by one of `COMPRESSIONS`.
FORMATS = {
    ".txt": "text", ".text": "text", ".md": "text", ".rst": "text",
    ".html": "html", ".htm": "html", ".xhtml": "html",
    ".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "jsonl",
    ".csv": "csv", ".tsv": "csv",
    ".parquet": "parquet",
    ".warc": "warc", ".wet": "wet", ".arc": "arc",
    ".xml": "mediawiki",
}  # fmt: skip
_DUMP_PAGES = re.compile(r"(?<=\.xml)-p\d+p\d+$")  # "enwiki-20240301-pages-articles1.xml-p1p41242.bz2"


def format_of(name: str) -> str | None:
    """The format of a file or URL by its name; None for one that isn't read, as a .wat file (links, no text)."""
    return FORMATS.get(_suffixes(name)[0])


def is_splittable(name: str) -> bool:
    """Whether the lines of such a file can be read in stretches of bytes: plain .jsonl and .ndjson."""
    return _suffixes(name) in ((".jsonl", ""), (".ndjson", ""))


def is_json_file(name: str) -> bool:
    """Whether it is a .json file, of any layout, and not one of an object a line."""
    return _suffixes(name)[0] == ".json"


def is_wat_file(name: str) -> bool:
    """Whether the name is of metadata of a crawl (Web Archive Transformation)."""
    return _suffixes(name)[0] == ".wat"


def delimiter_of(name: str) -> str:
    """What separates the fields of a table by its name: a tab for .tsv, else a comma."""
    return "\t" if _suffixes(name)[0] == ".tsv" else ","


def _suffixes(name: str) -> tuple[str, str]:
    """(suffix that tells the format, suffix that tells the compression), in lower case, "" where there is none."""
    if name.startswith(("http://", "https://")):
        name = urlsplit(name).path  # without "?download=true"
    root, last = posixpath.splitext(name.lower())
    packed = last if last in COMPRESSIONS else ""
    if packed:
        name = root
    return posixpath.splitext(_DUMP_PAGES.sub("", name.lower()))[1], packed
