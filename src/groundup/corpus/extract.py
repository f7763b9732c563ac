"""Pages to text: character set, main text, and a plain layout that keeps paragraphs, lists, tables and programs.

Two extractors are used. Resiliparse (Bevendorff et al. 2018, "Elastic ChatNoir") is fast; trafilatura (Barbaresi 2021,
"Trafilatura: A Web Scraping Library and Command-Line Tool for Text Discovery and Extraction") finds the main text
better and takes some seven times as long. Both leave out menus, comments and forms. What a page may hold is bounded
(here and in `complexity`); a page beyond that is refused.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Iterator
from functools import cache
from typing import Any, Literal

from resiliparse.extract.html2text import extract_plain_text
from resiliparse.parse.encoding import detect_mime

from groundup.corpus.complexity import is_too_complex
from groundup.corpus.documents import Raw, Refused
from groundup.corpus.text import Decoded, codec_of, decode, is_wide

LARGEST_PAGE = 32 * 2**20  # bytes; crawls cut pages at 1 to 5 MiB
LARGEST_FOR_TRAFILATURA = 4 * 2**20  # characters; each million costs it half a second and 30 MB

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

_PLAIN_PAGE = 50  # a page with fewer <div> is a plain one; those of newspapers have a hundred and more
_ADDRESS = re.compile(r"<a [^>]*>")
_LINK = re.compile(r"<a>([^<]*)")
_ELEMENT = re.compile(r"</?(?:a|p|h[1-6]|[uo]l|li|pre|br)\b[^>\n]*>")
_PROGRAM = re.compile(r"(<pre>.*?</pre>)", re.S)
_LIST = re.compile(r"</?[uo]l>")
_ENTITIES = {"&lt;": "<", "&gt;": ">", "&quot;": '"', "&amp;": "&"}
_ENTITY = re.compile("|".join(_ENTITIES))
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


def fast_text(page: str) -> str:
    """Resiliparse's main text, less the menus that it leaves in; "" where there is none.

    It takes a list close beneath the page's body for a menu. That holds for pages of a site's machinery; in a plain
    page the text itself stands there, so it is moved three elements down.
    """
    if _is_plain(page):
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
            parts.append("\n".join(_lay_out(_without_menus(lines), lists)).strip())
    text = _ENTITY.sub(lambda found: _ENTITIES[found[0]], "\n\n".join(part for part in parts if part))
    return text if text.strip() else ""


def _is_plain(page: str) -> bool:
    place = -1
    for _ in range(_PLAIN_PAGE):
        place = page.find("<div", place + 1)
        if place < 0:
            return True
    return False


def _moved_down(page: str) -> str:
    """The page with three elements more around all that stands in its body, where the page says where that begins."""
    for tag in ("<body", "<BODY", "</head", "</HEAD"):
        place = page.find(tag)
        if place >= 0:
            whole = page[place : page.find(">", place) + 1]
            return page.replace(whole, whole + "<div><div><div>", 1) if whole else page
    return page


def _without_menus(lines: Iterable[Line]) -> list[Line]:
    """The lines, less runs of those that hold short links and hardly anything else."""
    kept: list[Line] = []
    begin = links = characters = 0  # of the run that the last lines may be
    for line in lines:
        markup, text = line
        linked = "<a>" in markup
        if linked or (links and text):
            text = text.strip()
            found = _LINK.findall(markup) if linked and "<h" not in markup else []
            if sum([len(link.strip()) for link in found]) > _MENU_SHARE * len(text):
                begin = begin if links else len(kept)
                links += len(found)
                characters += len(text)
            elif text:
                _judge(kept, begin, links, characters)
                links = characters = 0
        kept.append(line)
    _judge(kept, begin, links, characters)
    return kept


def _judge(lines: list[Line], begin: int, links: int, characters: int) -> None:
    """Of the lines from `begin` on leave only where lists begin and end, if they are a menu; in place."""
    if links >= _MENU_LINKS and characters <= links * _MENU_CHARACTERS:
        lines[begin:] = [("".join(_LIST.findall(markup)), "") for markup, _ in lines[begin:]]


def _lay_out(lines: list[Line], lists: list[int]) -> list[str]:
    """Lines as plain text, with marks before the items of lists, and one blank line for several.

    Args:
        lists: of each open list the number of its last item, or −1 where items have none; changed in place.
    """
    laid_out = [""]
    mark = ""
    for markup, text in lines:
        breaks = 0
        if markup != text:
            if "l>" in markup:
                _open_lists(markup, lists)
            if "<li>" in markup:
                mark = _next_mark(lists)
            breaks = markup.count("<br>")
        if text and not text.isspace():
            text = text.strip(" ")
            if "\t\t" in text:
                text = _cells(text)
            if mark:
                text, mark = "  " * (len(lists) - 1) + mark + text, ""
            laid_out.append(text)
            if breaks > 1:
                laid_out.append("")
        elif laid_out[-1]:
            laid_out.append("")
    return laid_out


def _open_lists(markup: str, lists: list[int]) -> None:
    """Note in `lists` which lists a line begins and ends."""
    for tag in _LIST.findall(markup):
        if tag.startswith("</"):
            del lists[-1:]
        else:
            lists.append(0 if tag == "<ol>" else -1)


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
