"""Wikitext, the markup of MediaWiki, to plain text: paragraphs, headings and lists; no tables, pictures or notes.

One pass over brackets and braces with a stack, then line by line; time is linear in the text, however it is nested or
left open. Templates are not expanded: a few whose arguments are prose are read, the others go.
"""

from __future__ import annotations

import html
import re
from collections.abc import Callable
from dataclasses import dataclass, field

_COMMENT = re.compile(r"<!--.*?(?:-->|\Z)", re.DOTALL)
_TAG = re.compile(r"<(/?)([a-zA-Z][a-zA-Z0-9]*)\b([^<>]*?)(/?)>")
_DROPPED = frozenset(
    ("ref", "gallery", "timeline", "score", "imagemap", "graph", "templatedata", "hiero", "mapframe", "maplink",
     "references", "inputbox", "categorytree", "section", "indicator", "templatestyles", "noinclude")
)  # fmt: skip
_LITERAL = frozenset(("nowiki", "pre", "source", "syntaxhighlight", "math"))
_BREAKS = frozenset(("br", "p", "div", "li", "ul", "ol", "dl", "dd", "dt", "blockquote", "center", "hr", "poem", "tr"))
_TOKEN = re.compile(r"\{\{|\}\}|\[\[|\]\]|^[ \t:]*\{\||^[ \t]*\|\}(?!\})", re.MULTILINE)
_CLOSES = {"}}": "{{", "]]": "[[", "|}": "{|"}
_EXTERNAL = re.compile(r"\[(?:(?:https?:|ftp:)?//|mailto:)[^\s\[\]]+[ \t]*([^\[\]\n]*)\]")
_QUOTES = re.compile(r"'{2,5}")
_MAGIC = re.compile(r"__[A-Z]{3,}__")
_VARIANT = re.compile(r"-\{([^{}]*)\}-")
_LIST = re.compile(r"([*#:;]+)[ \t]*")
_EMPTY_BRACKETS = re.compile(r"[ \t](?:\([\s,;:/–—-]*\)|\[\s*\])")
_TORN_BRACKET = re.compile(r"\([ \t]*[,;][ \t]*")
_SPACES = re.compile(r"[ \t\xa0]+")
_SPACE_BEFORE = re.compile(r" ([,.;:!?)])(?=\s|\Z)")
_INTERLANGUAGE = re.compile(r"[a-z]{2,3}(?:-[a-z]+)*:")
_DEEPEST = 100  # brackets open at a time; MediaWiki allows 40 templates within each other
_SAVED = re.compile("\x01(\\d+)\x02")


def text_of_wikitext(markup: str, hidden: frozenset[str]) -> str:
    """The prose of a page.

    Args:
        markup: wikitext.
        hidden: what links that are not shown as text begin with, in lower case: "file", "category", …
    """
    saved: list[str] = []
    text = _remove_elements(_COMMENT.sub("", markup.replace("\x01", "")), saved)
    text = _resolve(text, hidden)
    text = _EXTERNAL.sub(r"\1", text)
    text = _VARIANT.sub(_first_variant, text)
    text = _MAGIC.sub("", _QUOTES.sub("", text))
    text = _TAG.sub(lambda tag: "\n" if tag.group(2).lower() in _BREAKS else "", text)
    text = "\n".join(_lines(text))
    text = _SAVED.sub(lambda mark: saved[int(mark.group(1))], text)
    return re.sub(r"\n{3,}", "\n\n", text).strip()


def _remove_elements(text: str, saved: list[str]) -> str:
    """The text without elements that hold no prose; what is literal goes to `saved`, a mark in its place."""
    pieces: list[str] = []
    at = 0
    unclosed: set[str] = set()  # names whose end doesn't come any more
    for tag in _TAG.finditer(text):
        name = tag.group(2).lower()
        if tag.start() < at or name not in _DROPPED | _LITERAL or name in unclosed:
            continue
        end = tag.end()
        content = ""
        if not tag.group(1) and not tag.group(4):
            closing = re.compile(rf"</{name}\s*>", re.IGNORECASE).search(text, end)
            if closing is None:
                unclosed.add(name)
                continue
            content, end = text[end : closing.start()], closing.end()
        pieces.append(text[at : tag.start()])
        at = end
        if content and name in _LITERAL:
            saved.append(f"${content.strip()}$" if name == "math" else html.unescape(content))
            pieces.append(f"\x01{len(saved) - 1}\x02")
    return "".join([*pieces, text[at:]])


@dataclass(slots=True)
class _Open:
    """A bracket still open, and what came after it."""

    mark: str
    pieces: list[str] = field(default_factory=list)


def _resolve(text: str, hidden: frozenset[str]) -> str:
    """Replace links by what they show, templates by what can be read of them, tables by nothing.

    What is never closed is taken as text; brackets that close across each other close what is between them.
    """
    stack = [_Open("")]
    depth = dict.fromkeys(_CLOSES.values(), 0)
    at = 0
    for token in _TOKEN.finditer(text):
        stack[-1].pieces.append(text[at : token.start()])
        at = token.end()
        mark = token.group().lstrip(" \t:")
        opening = _CLOSES.get(mark)
        if opening is None:
            if len(stack) <= _DEEPEST:
                stack.append(_Open(mark))
                depth[mark] += 1
        elif depth[opening]:
            while stack[-1].mark != opening:
                depth[stack[-1].mark] -= 1
                _give_up(stack)
            depth[opening] -= 1
            inner = "".join(stack.pop().pieces)
            if opening == "[[":
                stack[-1].pieces.append(_link(inner, hidden))
            elif opening == "{{":
                stack[-1].pieces.append(_template(inner))
    stack[-1].pieces.append(text[at:])
    while len(stack) > 1:
        _give_up(stack)
    return "".join(stack[0].pieces)


def _give_up(stack: list[_Open]) -> None:
    """Take what comes after an open bracket as text; of a table or template, the lines that are none of its own."""
    opened = stack.pop()
    text = "".join(opened.pieces)
    if opened.mark != "[[":
        text = "\n".join(["", *(line for line in text.split("\n")[1:] if line.lstrip()[:1] not in ("|", "!"))])
    stack[-1].pieces.append(text)


def _link(inner: str, hidden: frozenset[str]) -> str:
    target, bar, label = inner.partition("|")
    target = target.strip()
    if not target.startswith(":"):
        prefix = target.partition(":")[0].strip().lower().replace("_", " ")
        if ":" in target and prefix in hidden:
            return ""
        if not bar and _INTERLANGUAGE.match(target):
            return ""
    return label.strip(" \t") if bar and label.strip() else target.lstrip(":")


def _first_variant(found: re.Match[str]) -> str:
    """Of Chinese and Serbian texts in several scripts, "zh-hans:…; zh-hant:…", the first."""
    rules = found.group(1).rpartition("|")[2]
    first = rules.partition(";")[0]
    return first.partition(":")[2] if ":" in first else first


def _first(arguments: list[str]) -> str:
    return arguments[0] if arguments else ""


def _second(arguments: list[str]) -> str:
    return arguments[1] if len(arguments) > 1 else ""


def _last(arguments: list[str]) -> str:
    return arguments[-1] if arguments else ""


def _measure(arguments: list[str]) -> str:
    """{{convert|5|km|mi}}, {{convert|5|to|7|km|mi}}"""
    if len(arguments) >= 4 and arguments[1] in ("-", "–", "to", "and", "or", "x", "by"):
        return f"{arguments[0]} {arguments[1]} {arguments[2]} {arguments[3]}"
    return " ".join(arguments[:2])


def _japanese(arguments: list[str]) -> str:
    """{{nihongo|Tokyo Tower|東京タワー|Tōkyō tawā}}"""
    english, *others = [*arguments, ""]
    others = [each for each in others[:2] if each]
    return f"{english} ({', '.join(others)})" if english and others else english or _first(others)


def _texts(value: str) -> Callable[[list[str]], str]:
    return lambda arguments: value


_TEMPLATES: dict[str, Callable[[list[str]], str]] = {
    **dict.fromkeys(
        ("nowrap", "nobr", "small", "smaller", "big", "larger", "nobold", "noitalic", "abbr", "tooltip", "sic", "em",
         "strong", "visible anchor", "vanchor", "quote", "blockquote", "cquote", "quotation", "poemquote", "bquote",
         "ill", "interlanguage link", "math", "mvar", "var", "sub", "sup", "code", "val", "gaps", "not a typo", "shy",
         "linktext", "kbd", "samp", "smallcaps", "sc", "script", "center", "formatnum", "lc", "uc", "ucfirst"), _first),
    **dict.fromkeys(("lang", "langx", "transl", "transliteration", "color", "font color", "as written"), _second),
    **dict.fromkeys(("rtl-lang", "nq"), _last),
    **dict.fromkeys(("convert", "cvt"), _measure),
    **dict.fromkeys(("nihongo", "nihongo2"), _japanese),
    **dict.fromkeys(("snd", "spnd", "spaced ndash", "spaced en dash", "–", "ndash", "en dash"), _texts(" – ")),
    **dict.fromkeys(("mdash", "em dash", "—", "spaced mdash"), _texts("—")),
    **dict.fromkeys(("nbsp", "spaces", "space", "thinsp", "zwsp", "clear"), _texts(" ")),
    **dict.fromkeys(("·", "•", "dot", "bullet"), _texts(" · ")),
    **dict.fromkeys(("'", "apostrophe"), _texts("'")),
    "'s": _texts("'s"), "!": _texts("|"), "=": _texts("="), "\"'": _texts("\"'"), "'\"": _texts("'\""),
    **dict.fromkeys(("circa", "c."), lambda arguments: " ".join(["c.", *arguments[:1]])),
    "frac": lambda arguments: "/".join(arguments[:2]), "as of": lambda arguments: " ".join(["As of", *arguments[:1]]),
    "us$": lambda arguments: "US$" + _first(arguments), "chem2": lambda arguments: "".join(arguments),
}  # fmt: skip


def _template(inner: str) -> str:
    """What a template shows, for the few whose arguments are prose."""
    name, *rest = inner.split("|")
    name = " ".join(name.replace("_", " ").split()).lower()
    function, colon, value = name.partition(":")
    if colon and function in ("formatnum", "lc", "uc", "ucfirst"):
        return inner.partition("|")[0].partition(":")[2].strip()
    shown = _TEMPLATES.get(name) or (_first if name.startswith("lang-") else None)
    if shown is None:
        return ""
    named = {key.strip(): each.strip() for key, equals, each in (one.partition("=") for one in rest) if equals}
    arguments = [each.strip() for each in rest if not re.match(r"\s*[\w-]+\s*=", each)]
    if not arguments:
        arguments = [named[key] for key in ("1", "2", "3", "text", "quote") if key in named]
    return shown(arguments)


def _lines(text: str) -> list[str]:
    """Lines as they are shown; headings stand alone, and one with nothing under it is left out."""
    lines: list[str] = []
    headings: list[tuple[int, str]] = []  # level and text of those that wait for something under them
    for raw in text.split("\n"):
        level, title = _heading(raw.strip())
        if level:
            while headings and headings[-1][0] >= level:
                headings.pop()
            headings.append((level, _tidy(title)))
            continue
        line = _shown(raw)
        if line and headings:
            for _, title in headings:
                lines += ["", title, ""]
            headings.clear()
        lines.append(line)
    return lines


def _heading(line: str) -> tuple[int, str]:
    """Level from 1 and text of a heading; 0 for another line."""
    level = min(len(line) - len(line.lstrip("=")), len(line) - len(line.rstrip("=")), 6)
    title = line[level : len(line) - level].strip() if level else ""
    return (level, title) if title.strip("=") else (0, "")


def _shown(line: str) -> str:
    if line.startswith("----"):
        line = line.lstrip("-")
    item = _LIST.match(line)
    if item is None:
        return _tidy(line)
    text = _tidy(line[item.end() :])
    return f"- {text}" if text and item.group(1)[-1] in "*#" else text


def _tidy(line: str) -> str:
    """Entities resolved, and what templates left behind mended: "( ; 1900)", "word ,"."""
    line = _SPACES.sub(" ", html.unescape(line))
    line = _TORN_BRACKET.sub("(", _EMPTY_BRACKETS.sub("", line))
    return _SPACE_BEFORE.sub(r"\1", line).strip()
