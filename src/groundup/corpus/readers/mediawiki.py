"""Dumps of MediaWiki sites, as Wikipedia publishes them: an article a page, its markup turned into text."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import quote
from xml.etree import ElementTree

from groundup.corpus.documents import Found, Part, Raw, ReaderOptions, Refused
from groundup.corpus.readers.common import LONGEST, refused
from groundup.corpus.readers.cursor import Cursor
from groundup.corpus.readers.streams import Utf8Stream, open_stream
from groundup.corpus.readers.wikitext import text_of_wikitext

_PAGE = re.compile(rb"<page>")
_PAGE_END = re.compile(rb"</page>")
_REACH = len(b"</page>")
_SITE_LIMIT = 2**22  # bytes before the first page
_ROOT = re.compile(rb"\A\s*(?:<\?xml[^>]*>\s*)?(?:<!--.*?-->\s*)*<mediawiki\b([^>]*)>", re.DOTALL)
_LANGUAGE = re.compile(rb"""\bxml:lang\s*=\s*["']([A-Za-z-]+)["']""")
_BASE = re.compile(rb"<base>\s*([^<\s]+)\s*</base>")
_NAMESPACE = re.compile(rb'<namespace key="(6|14)"[^>]*>([^<]+)</namespace>')
_REDIRECT = re.compile(r"\s*#\w+\s*:?\s*\[\[")


@dataclass(frozen=True)
class Site:
    """What the head of a dump says of its pages: language, address of an article but for its title, and what links to
    pictures and categories begin with, in lower case."""

    language: str | None
    base: str | None
    hidden: frozenset[str]

    @classmethod
    def of(cls, head: bytes, root: re.Match[bytes]) -> Site:
        """The site of a dump that begins so."""
        language, base = _LANGUAGE.search(root.group(1)), _BASE.search(head)
        names = {name.decode("utf-8", "replace").strip().lower() for _, name in _NAMESPACE.findall(head)}
        return cls(
            language.group(1).decode() if language else None,
            base.group(1).decode("utf-8", "replace").rpartition("/")[0] + "/" if base else None,
            frozenset(names | {"file", "image", "media", "category"}),
        )


def read_mediawiki(part: Part, options: ReaderOptions) -> Found:
    """The articles of a dump, numbered as its pages are; each begins with its title.

    Pages of other namespaces, redirects, and pages that aren't wikitext are refused. Of several revisions the last
    one counts. Pages are cut out by their tags and parsed one by one, so that a broken one costs no other, and no
    entity can be declared (which a hostile document could multiply).
    """
    with open_stream(part.path, options.unpacked_limit) as file:
        cursor = Cursor(Utf8Stream(file))
        head = cursor.take_until(_PAGE, _SITE_LIMIT, reach=_REACH)
        root = _ROOT.match(cursor.peek(_SITE_LIMIT) if head is None else head)
        if root is None:
            if cursor.damage is None:
                yield refused("not_mediawiki", part.path, 0, cursor.peek(1500) if head is None else head)
        else:
            site = Site.of(head or b"", root)
            yield from _read_pages(cursor, site, part.path)
        if cursor.damage is not None:
            yield refused(cursor.damage.reason, part.path, 0, str(cursor.damage))


def _read_pages(cursor: Cursor, site: Site, file: str) -> Found:
    number = 0
    while True:
        cursor.skip_until(_PAGE, _REACH)
        begin = cursor.peek(1500)
        if not begin:
            return
        number += 1
        page = cursor.take_until(_PAGE_END, LONGEST, reach=_REACH)
        if page is None:
            if len(cursor.peek(LONGEST)) == LONGEST:
                yield refused("record_too_long", file, number, begin)
                cursor.take(1)
                continue
            if cursor.damage is None:
                yield refused("damaged_archive", file, number, "the file ends within the page")
            return
        inner = page.rfind(b"<page>")
        if inner > 0:  # an end is missing
            yield refused("broken_record", file, number, begin)
            number += 1
        yield _article(page[inner:] + b"</page>", site, file, number)


def _article(page: bytes, site: Site, file: str, number: int) -> Raw | Refused:
    """The document of a page, or why there is none."""
    try:
        root = ElementTree.fromstring(page.decode("utf-8", "replace"))
    except ElementTree.ParseError:
        return refused("broken_record", file, number, page)
    title = (root.findtext("title") or "").strip()
    if root.findtext("ns", "0").strip() != "0":
        return refused("other_namespace", file, number, title)
    revisions = root.findall("revision")
    if not revisions:
        return refused("broken_record", file, number, page)
    markup = revisions[-1].findtext("text") or ""
    if root.find("redirect") is not None or _REDIRECT.match(markup):
        return refused("redirect", file, number, title)
    if revisions[-1].findtext("model", "wikitext").strip() != "wikitext":
        return refused("not_text", file, number, title)
    text = text_of_wikitext(markup, site.hidden)
    url = site.base + quote(title.replace(" ", "_"), safe="/:(),!*'~@;$") if site.base and title else None
    return Raw(f"{title}\n\n{text}" if text else "", file, number, url, site.language, encoding="utf-8")
