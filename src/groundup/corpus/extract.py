"""Pages to text: character set, main text, and a plain layout that keeps paragraphs, lists, tables and programs.

Two extractors are used. Resiliparse (Bevendorff et al. 2018, "Elastic ChatNoir") is fast; trafilatura (Barbaresi 2021,
"Trafilatura: A Web Scraping Library and Command-Line Tool for Text Discovery and Extraction") finds the main text
better and takes some seven times as long. Both leave out menus, comments and forms. A page can cost more time than its
size lets expect (thousands of nested or unclosed tags, one tag with ten thousand attributes), so what a page may hold
is bounded by the constants below; a page beyond them is refused.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Iterator
from functools import cache
from itertools import islice
from typing import Any, Literal

import numpy as np
from resiliparse.extract.html2text import extract_plain_text
from resiliparse.parse.encoding import detect_mime

from groundup.corpus.documents import Raw, Refused
from groundup.corpus.text import Decoded, codec_of, decode, is_wide

LARGEST_PAGE = 32 * 2**20  # bytes; crawls cut pages at 1 to 5 MiB
LARGEST_FOR_TRAFILATURA = 4 * 2**20  # characters; each million costs it half a second and 30 MB
MOST_TAGS = 1_000_000
DEEPEST = 4_000  # elements open at once; the time is as the square of the depth, here a quarter of a second
MOST_REOPENED = 1_000_000  # unclosed formatting × tags: each is opened again in every block, of 400 bytes each
LONGEST_TAG = 2**16  # bytes up to ">" …
MOST_ATTRIBUTES = 5_000  # … in which so many attributes may stand: each is compared with each
_SUSPECT_TAGS, _SUSPECT_UNCLOSED = 20_000, 1_000  # pages with no more are not read tag by tag

_HALF = 0.5  # trafilatura has missed the main text where it finds less than this share of what Resiliparse does
# Lines that are links for the most part are a menu from so many links of so few characters on average.
_MENU_SHARE, _MENU_LINKS, _MENU_CHARACTERS = 0.7, 3, 60

_CHARSET = re.compile(
    rb"""<meta[^>]{0,300}?charset\s*=\s*["']?\s*([\w.:-]{2,40})|<\?xml[^>]{0,99}?encoding\s*=\s*["']([\w.:-]{2,40})""",
    re.I,
)
_MARKUP = re.compile(
    r"<(?:!doctype\s+html|html|head|body|p|div|br|h[1-6]|a|b|i|span|table|[uo]l|pre|font|center|article|main)[\s/>]",
    re.I,
)
_OTHER_XML = re.compile(r"\s*(?:<[?!][^>]*>\s*)*<(?:rss|feed|urlset|sitemapindex|rdf:RDF|svg|opml)[\s>]", re.I)
_BINARY = ("image/", "audio/", "video/", "application/pdf", "application/zip", "application/gzip")


def _numbers(names: str) -> list[int]:
    """Names of elements as numbers, of eight letters each; what is no element ("<!--", "< ") has the number 0."""
    return [int.from_bytes(name.encode()[:8], "little") for name in names.split()]


_NEVER_NESTED = _numbers(
    "area base br col embed hr img input link meta param source track wbr a p li dt dd tr td th thead tbody tfoot "
    "option optgroup html head body path rect circle line polygon polyline ellipse use stop"
) + [0]
_FORMATTING = _numbers("b big code em font i nobr s small strike strong tt u")

_PLAIN_PAGE = 50  # a page with fewer <div> is a plain one; those of newspapers have a hundred and more
_DIVISION = re.compile("<div")
_ADDRESS = re.compile(r"<a [^>]*>")
_LINK = re.compile(r"<a>([^<]*)")
_ELEMENT = re.compile(r"</?(?:a|p|h[1-6]|[uo]l|li|pre|br)\b[^>\n]*>")
_PROGRAM = re.compile(r"(<pre>.*?</pre>)", re.S)
_BLANK_LINES = re.compile(r"\n(?:[^\S\n]*\n){2,}")
_LIST = re.compile(r"</?[uo]l>")
Line = tuple[str, str]  # of minimal HTML, and the same without its elements
_BREAK = "\v"  # a line break that shows, among white space that does not


def extract(raw: Raw, extractor: Literal["auto", "resiliparse", "trafilatura"]) -> Raw | Refused:
    """The same document with the main text of its page; one that has text already comes back as it is.

    "auto" takes Resiliparse for the pages of a crawl and trafilatura for others; where the one finds nothing (or
    trafilatura very little), the other's text is taken. Never raises: what gives no text is refused as
    "page_too_large", "page_too_complex", "not_html", "extraction_failed" or "no_main_text".
    """
    if raw.html is None:
        return raw
    if len(raw.html) > LARGEST_PAGE:
        return _refused(raw, "page_too_large")
    if detect_mime(raw.html).startswith(_BINARY):
        return _refused(raw, "not_html")
    page, encoding = decode_page(raw.html, raw.charset)
    if not _MARKUP.search(page) or _OTHER_XML.match(page):
        return _refused(raw, "not_html")
    if is_too_complex(page.encode("utf-8", "replace") if encoding.startswith(("utf-16", "utf-32")) else raw.html):
        return _refused(raw, "page_too_complex")
    fast = raw.crawled if extractor == "auto" else extractor == "resiliparse"
    if not fast:
        _trafilatura()  # where it isn't installed, that is no fault of the page
    try:
        text = fast_text(page) or thorough_text(page) if fast else best_text(page)
    except Exception as error:  # noqa: BLE001  # whatever a library makes of one page must not end the run
        return _refused(raw, "extraction_failed", f"{type(error).__name__}: {error}")
    return raw.with_text(text, encoding) if text else _refused(raw, "no_main_text")


def _refused(raw: Raw, reason: str, excerpt: str = "") -> Refused:
    start = (raw.html or b"")[:200].decode("utf-8", "replace")
    return Refused(reason, raw.file, raw.record, excerpt or start)


def decode_page(data: bytes, declared: str | None) -> Decoded:
    """The text of a page and its encoding; never raises.

    A byte order mark counts first, then well-formed UTF-8 (whatever is declared), the server's declaration, the
    page's own, and what the bytes look like. A server's Latin-1 is mostly its factory setting, so a page that
    declares another set is believed.
    """
    head = data[:4096]
    zeros = head.count(0)
    if zeros * 16 > len(head) and not is_wide(head):  # UTF-16 without a mark: half the bytes of each tag are zeros
        codec = "utf-16-be" if head[::2].count(0) > zeros // 2 else "utf-16-le"
        return Decoded(data.decode(codec, "replace"), codec)
    if codec_of(declared) in (None, "cp1252"):
        own = _CHARSET.search(head)
        name = (own[1] or own[2]).decode("ascii", "replace") if own else None
        declared = name if codec_of(name) else declared
    return decode(data, declared)


def is_too_complex(data: bytes) -> bool:
    """True for a page that would cost a parser far more time or memory than its size lets expect.

    All tags are counted; only where they are many, or many more open than close, are they read one by one.
    """
    characters = np.frombuffer(data, np.uint8)
    begins = characters[:-1] == ord("<")
    tags = np.count_nonzero(begins)
    if tags > MOST_TAGS:
        return True
    unclosed = tags  # at most; fewer where some close
    if tags > _SUSPECT_UNCLOSED:
        unclosed -= 2 * np.count_nonzero(begins & (characters[1:] == ord("/")))
    many = tags > _SUSPECT_TAGS or unclosed > _SUSPECT_UNCLOSED
    if not many and not _has_gap(data):
        return False
    opened = np.flatnonzero(begins)
    closing = characters[opened + 1] == ord("/")
    if many and _is_nested(np.frombuffer(data + bytes(16), np.uint8), opened, closing):
        return True
    for start in opened[np.diff(opened, append=len(data)) > LONGEST_TAG].tolist():
        end = data.find(b">", start)
        tag = data[start : end if end >= 0 else len(data)]
        if len(tag) > LONGEST_TAG and tag[1:2].isalpha() and len(tag.split()) > MOST_ATTRIBUTES:
            return True
    return False


def _has_gap(data: bytes) -> bool:
    """Whether `LONGEST_TAG` bytes may stand between one "<" and the next; False is certain."""
    place = 0
    while place + LONGEST_TAG < len(data):
        following = data.rfind(b"<", place + 1, place + LONGEST_TAG)
        if following < 0:
            return True
        place = following
    return False


def _is_nested(characters: np.ndarray, opened: np.ndarray, closing: np.ndarray) -> bool:
    """Whether more elements than `DEEPEST` are open at once, or formatting runs on through too many tags.

    Args:
        characters: uint8 [n + 16], the page and zeros.
        opened: int64 [t], where each "<" stands; closing: bool [t], whether "/" follows it.
    """
    starts = opened + 1 + closing
    letters = np.lib.stride_tricks.sliding_window_view(characters, 8)[starts]
    small = letters | 0x20
    in_name = (small >= ord("a")) & (small <= ord("z")) | (letters >= ord("0")) & (letters <= ord("9"))
    in_name = np.logical_and.accumulate(in_name, axis=1)
    names = np.where(in_name, small, 0).view("<u8").ravel()  # the first eight letters, in lower case
    nested = ~np.isin(names, _NEVER_NESTED)
    reopened = 0
    # Of formatting without attributes a parser opens only three of a kind again.
    has_attributes = np.isin(characters[starts + in_name.sum(axis=1)], list(b" \t\n\f\r/"))
    for name in _FORMATTING:
        found = (names == name) & (closing | has_attributes)
        reopened += _most_open(closing[found])
    return _most_open(closing[nested]) > DEEPEST or reopened * len(opened) > MOST_REOPENED


def _most_open(closing: np.ndarray) -> int:
    """The greatest number of elements open at once, of tags that open or close one; bool [t]."""
    level = np.cumsum(np.where(closing, -1, 1))
    return int((level - np.minimum.accumulate(np.minimum(level, 0))).max(initial=0))


def fast_text(page: str) -> str:
    """Resiliparse's main text, less the menus that it leaves in; "" where there is none.

    It takes a list close beneath the page's body for a menu. That holds for pages of a site's machinery; in a plain
    page the text itself stands there, so it is moved three elements down.
    """
    if sum(1 for _ in islice(_DIVISION.finditer(page), _PLAIN_PAGE)) < _PLAIN_PAGE:
        page = _moved_down(page)
    markup = extract_plain_text(
        page,
        preserve_formatting="minimal_html",  # tells links from text, and lists and programs from the rest
        main_content=True,
        alt_texts=False,
        links=True,
        form_fields=False,
        noscript=False,
        comments=False,
        post_meta=False,
    )
    lists: list[int] = []
    parts = []
    for number, part in enumerate(_PROGRAM.split(_ADDRESS.sub("<a>", markup))):
        plain = _ELEMENT.sub("", part)
        if number % 2:
            parts.append(plain.strip("\n"))
        else:
            lines = zip(part.split("\n"), plain.split("\n"), strict=True)
            laid_out = "\n".join(_lay_out(_without_menus(lines), lists))
            parts.append(_BLANK_LINES.sub("\n\n", laid_out).strip())
    text = "\n\n".join(part for part in parts if part)
    for entity, character in (("&lt;", "<"), ("&gt;", ">"), ("&quot;", '"'), ("&amp;", "&")):
        text = text.replace(entity, character)
    return text


def _moved_down(page: str) -> str:
    """The page with three elements more around all that stands in its body, where the page says where that begins."""
    for tag in ("<body", "<BODY", "</head", "</HEAD"):
        place = page.find(tag)
        if place >= 0:
            whole = page[place : page.find(">", place) + 1]
            return page.replace(whole, whole + "<div><div><div>", 1) if whole else page
    return page


def _without_menus(lines: Iterable[Line]) -> Iterator[Line]:
    """The lines, less runs of those that hold short links and hardly anything else."""
    doubtful: list[Line] = []
    links = characters = 0
    for line in lines:
        markup, text = line
        linked = "<a>" in markup
        if linked or (links and text):
            text = text.strip()
            found = [link.strip() for link in _LINK.findall(markup)] if linked and "<h" not in markup else []
            if found and sum(map(len, found)) > _MENU_SHARE * len(text):
                links += len(found)
                characters += len(text)
            elif text:
                yield from _judged(doubtful, links, characters)
                doubtful, links, characters = [], 0, 0
        if links:
            doubtful.append(line)
        else:
            yield line
    yield from _judged(doubtful, links, characters)


def _judged(lines: list[Line], links: int, characters: int) -> Iterator[Line]:
    """The lines, or of a menu only where lists begin and end."""
    is_menu = links >= _MENU_LINKS and characters <= links * _MENU_CHARACTERS
    return (("".join(_LIST.findall(markup)), "") for markup, _ in lines) if is_menu else iter(lines)


def _lay_out(lines: Iterator[Line], lists: list[int]) -> Iterator[str]:
    """Lines as plain text, with marks before the items of lists.

    Args:
        lists: of each open list the number of its last item, or −1 where items have none; changed in place.
    """
    mark = ""
    for markup, text in lines:
        breaks = 0
        if markup != text:
            for tag in _LIST.findall(markup) if "l>" in markup else ():
                if tag.startswith("</"):
                    del lists[-1:]
                else:
                    lists.append(0 if tag == "<ol>" else -1)
            if "<li>" in markup:
                mark = _next_mark(lists)
            breaks = markup.count("<br>")
        if text:
            text = "" if text.isspace() else text.strip(" ")
            if "\t\t" in text:
                text = _cells(text)
            if text and mark:
                text, mark = "  " * (len(lists) - 1) + mark + text, ""
        yield text
        if breaks > 1:
            yield ""


def _cells(text: str) -> str:
    """A table's row with one tab between cells, of which each was followed by two."""
    loose = " \t" in text or "\t " in text or "\t\t\t" in text or not text.isascii()
    return "\t".join([cell.strip() for cell in text.split("\t\t")]) if loose else text.replace("\t\t", "\t")


def _next_mark(lists: list[int]) -> str:
    """What stands before the next item of the innermost list."""
    if not lists or lists[-1] < 0:
        return "- "
    lists[-1] += 1
    return f"{lists[-1]}. "


def best_text(page: str) -> str:
    """trafilatura's main text; Resiliparse's where that is more than twice as long."""
    fast = fast_text(page)
    thorough = thorough_text(page)
    return thorough if len(thorough) >= _HALF * len(fast) else fast


def thorough_text(page: str) -> str:
    """trafilatura's main text; "" where it finds none or fails, or the page is too large for it."""
    if len(page) > LARGEST_FOR_TRAFILATURA:
        return ""
    trafilatura = _trafilatura()
    try:
        found = trafilatura.bare_extraction(page, fast=True, include_comments=False, with_metadata=False)
        return "" if found is None else "\n\n".join(_blocks(found.body)).strip()
    except Exception:  # noqa: BLE001  # it is Python from end to end, and pages are of any kind
        return ""


@cache
def _trafilatura() -> Any:
    """The module, imported where first needed (half a second), and silent about pages without text."""
    import trafilatura

    for name in ("trafilatura", "htmldate", "courlan"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    return trafilatura


def _blocks(element: Any) -> Iterator[str]:
    """The blocks of text in an element of trafilatura's tree (named after TEI's): paragraphs, lists, programs, …"""
    inline = [element.text or ""]
    for child in element:
        block = _block(child)
        if block is None:
            inline.append(_characters(child))
        else:
            yield from _paragraph(inline)
            yield from [block] if block.strip() else []
            inline = []
        inline.append(child.tail or "")
    yield from _paragraph(inline)


def _block(element: Any) -> str | None:
    """An element that stands on lines of its own, as text; None for one that stands in a line."""
    if element.tag == "code":
        program = _characters(element).replace(_BREAK, "\n")
        return program.strip("\n") if "\n" in program.strip() else None
    if element.tag in ("p", "head", "quote"):
        return "\n\n".join(_blocks(element))
    if element.tag == "list":
        marks = (f"{n}. " if element.get("rend") == "ol" else "- " for n in range(1, len(element) + 1))
        items = ("\n".join(_blocks(item)).replace("\n", "\n  ") for item in element)
        return "\n".join(mark + item for mark, item in zip(marks, items, strict=True) if item)
    if element.tag == "table":
        return "\n".join("\t".join(" ".join(_blocks(cell)) for cell in row) for row in element)
    return None


def _paragraph(inline: list[str]) -> Iterator[str]:
    """The text of one paragraph, if it has any, with white space as a browser shows it."""
    lines = (" ".join(line.split()) for line in "".join(inline).split(_BREAK))
    text = "\n".join(lines).strip()
    if text:
        yield text


def _characters(element: Any) -> str:
    """The characters of an element and of all that stands in it."""
    if element.tag == "lb":
        return _BREAK
    parts = [element.text or ""]
    for child in element:
        parts += _characters(child), child.tail or ""
    return "".join(parts)
