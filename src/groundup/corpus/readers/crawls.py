"""Documents in the archives of crawls: pages and texts of successful responses."""

from __future__ import annotations

import re

from groundup.corpus.documents import Found, Part, Raw, ReaderOptions, Refused
from groundup.corpus.readers.archives import DOCUMENTS, Record, find_records
from groundup.corpus.readers.common import refused
from groundup.corpus.readers.cursor import Cursor
from groundup.corpus.readers.formats import is_wat_file
from groundup.corpus.readers.http import BodyTooLongError, parse_response, parse_type
from groundup.corpus.readers.streams import open_stream
from groundup.corpus.text import decode, looks_binary

_PAGES = frozenset(("text/html", "application/xhtml+xml", "application/vnd.wap.xhtml+xml"))
_TEXTS = frozenset(("text/plain", "text/markdown", "text/x-markdown", "text/x-rst"))
_UNTOLD = frozenset(("", "application/octet-stream", "unknown", "no-type", "application/http"))  # the content decides
_PAGE = re.compile(
    rb"\s*(?:<!--.{0,2000}?-->\s*|<\?xml[^>]{0,300}>\s*)*<(?:!doctype\s+html|html|head|body)\b",
    re.IGNORECASE | re.DOTALL,
)


def read_archive(part: Part, options: ReaderOptions) -> Found:
    """The documents of a WARC, WET or ARC file.

    Responses and resources of a page type give pages as they came, with the character set of their HTTP header;
    those of plain text, and conversions (WET), give texts. Redirects, errors and other types are refused. Requests,
    metadata, revisits, a crawler's own notes are no documents and are not counted. Records are numbered from 1 as
    they stand in the file, whatever their kind.
    """
    if is_wat_file(part.path):
        yield refused("wat_file", part.path, 0, "metadata of a crawl: no text")
        return
    with open_stream(part.path, options.unpacked_limit) as file:
        for record in find_records(Cursor(file), arc=part.format == "arc"):
            if record.reason:
                yield refused(record.reason, part.path, record.number, record.block or record.url)
            elif record.kind in DOCUMENTS and not record.url.startswith(b"metadata:"):  # wget's log and arguments
                found = _document(record, part.path)
                if not record.torn or (isinstance(found, Raw) and _has_content(found, record)):
                    yield found  # else the refusal that follows stands for it


def _has_content(torn: Raw, record: Record) -> bool:
    """Whether a document cut off has more than a part of its HTTP header."""
    begun = b"HTTP/".startswith(record.block[:5])
    return bool(torn.html or torn.text) and (not begun or b"\n\r\n" in record.block or b"\n\n" in record.block)


def _document(record: Record, file: str) -> Raw | Refused:
    """The document in a record, or why there is none."""
    body = record.block
    kind, charset = parse_type(record.type)
    url = record.url.decode("utf-8", "replace")
    try:
        response = parse_response(body)
    except BodyTooLongError:
        return refused("page_too_long", file, record.number, url)
    if response is not None:
        if not 200 <= response.status < 300:
            reason = "http_redirect" if 300 <= response.status < 400 else "http_error"
            return refused(reason, file, record.number, f"{response.status} {url}")
        kind, charset, body = response.kind, response.charset, response.body
    elif kind == "application/http" and not _PAGE.match(body):
        return refused("broken_http", file, record.number, record.block)
    if kind in _UNTOLD and _PAGE.match(body):
        kind = "text/html"
    wide = charset is not None and charset.lower().startswith(("utf-16", "utf-32"))
    if kind in _PAGES and (wide or not looks_binary(body) or _PAGE.match(body)):
        return Raw(html=body, file=file, record=record.number, url=url or None, charset=charset, crawled=True)
    if (kind in _TEXTS or record.kind == b"conversion") and (wide or not looks_binary(body)):
        text, encoding = decode(body, charset)
        return Raw(text, file, record.number, url or None, crawled=True, encoding=encoding)
    return refused("not_text", file, record.number, f"{kind} {url}")
