"""Files to raw documents: texts, pages, JSON, tables, Parquet, archives of crawls and dumps of wikis.

A reader yields what can be read and says of everything else why not, with its place: documents and refusals together
are the records of the file. No bad byte, broken record or damaged archive stops it, and none costs more than itself
where the format allows. Memory is bounded by a few blocks and the longest record allowed (`common.LONGEST`), not by the
file; a compressed file ends at `ReaderOptions.unpacked_limit`. A reader is a pure function of the file's bytes.
"""

from __future__ import annotations

from groundup.corpus.documents import Found, Part, ReaderOptions
from groundup.corpus.readers.common import refused
from groundup.corpus.readers.crawls import read_archive
from groundup.corpus.readers.formats import FORMATS, format_of, is_splittable
from groundup.corpus.readers.mediawiki import read_mediawiki
from groundup.corpus.readers.parquet import parquet_row_groups, read_parquet
from groundup.corpus.readers.records import read_json
from groundup.corpus.readers.streams import UnreadableError, open_stream
from groundup.corpus.readers.tables import read_csv
from groundup.corpus.readers.texts import read_html, read_text

__all__ = ["FORMATS", "format_of", "is_splittable", "open_stream", "parquet_row_groups", "read_part"]

_READERS = {
    "text": read_text,
    "code": read_text,
    "html": read_html,
    "jsonl": read_json,
    "csv": read_csv,
    "parquet": read_parquet,
    "warc": read_archive,
    "wet": read_archive,
    "arc": read_archive,
    "mediawiki": read_mediawiki,
}


def read_part(part: Part, options: ReaderOptions) -> Found:
    """All that a file, or a stretch of one, holds, in its order: documents, and what is none.

    A file that cannot be opened or that breaks off gives a refusal with the record number 0, after what was read.

    Raises UserError where a package is missing that opens the kind of URL, KeyError for a format of no reader.
    """
    try:
        yield from _READERS[part.format](part, options)
    except UnreadableError as error:
        yield refused(error.reason, part.path, 0, str(error))
