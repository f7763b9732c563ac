"""Project Gutenberg's headers and licences taken off its books, as its own terms ask of whoever changes a book.

A file of Project Gutenberg is a header, a line that marks the start, credits of those who made it, the book, a line
that marks its end, and a licence. Books from before 2004 have another licence, "THE SMALL PRINT!", mostly before the
book. Nothing is removed but what such lines mark, and only where it is about Project Gutenberg, so a book that tells
of it stays whole, and so does a part of a file without such a line.
"""

from __future__ import annotations

import re

_MARK = re.compile(
    r"""^[ \t]*(?:
        (?P<start> \*{3}[ ]?START[ ]OF[ ](?:THE|THIS)[ ]PROJECT[ ]GUTENBERG\b (?:[^*\n]*(?:\n[^*\n]+){0,2}\*{3}|.*) .*
                 | \*END[ *]{1,2}THE[ ]SMALL[ ]PRINT! .* )
      | (?P<end> \*{3}[ ]?END[ ]OF[ ](?:THE|THIS)[ ]PROJECT[ ]GUTENBERG\b .*
               | (?-i:End)[ ]of[ ](?:the[ ]|this[ ])?Project[ ]Gutenberg\b .*
               | \*{3}[ ]?START:[ ]FULL[ ]LICENSE .*
               | THE[ ]FULL[ ]PROJECT[ ]GUTENBERG(?:-tm|™)?[ ]LICENSE[ \t]* )
    )$""",
    re.VERBOSE | re.MULTILINE | re.IGNORECASE,
)
_CREDIT = re.compile(
    r"""(?: \[?(?:e-?text|e-?book|file|html[ ]version)?[ ]?(?:was[ ])?
            (?:produced|prepared|transcribed|scanned|proofread|digiti[sz]ed|typed|converted)[ ]
            (?:and[ ]\w+[ ])?(?:by|from|for)\b
          | this[ ](?:project[ ]gutenberg[ ])?(?:e-?text|e-?book|file)[ ](?:of[ ].{1,80}[ ])?was[ ]
            (?:first[ ])?(?:produced|prepared|created|transcribed|scanned|converted|typed|made)\b
          | \[?transcriber[’']?s?[’']?[ ]notes?\b )""",
    re.VERBOSE | re.IGNORECASE,
)
_PARAGRAPH = re.compile(r"\n[ \t]*\n\s*")
_LONGEST = 40_000  # characters; the licence has some 19,000, the longest headers as many again
_ROOM = 1_000  # characters that may stand at such a line without a word of Project Gutenberg …
_DENSITY = 1_000  # … and in longer stretches one mention in so many
_CREDITS, _CREDIT_CHARACTERS = 4, 800


def strip_gutenberg(text: str) -> str:
    """The text without the headers, credits and licences of Project Gutenberg; idempotent.

    The text may be a book, the first or last part of one, or several books. Where a marked stretch isn't
    Project Gutenberg's by its length and its words, the text comes back as it is.
    """
    marks = list(_MARK.finditer(text))
    if not marks:
        return text
    kept = []
    after_start = False
    place = 0
    for mark in [*marks, None]:
        stretch = text[place : mark.start() if mark else len(text)]
        ends_here = mark is None or mark["end"] is not None
        if ends_here and (after_start or place == 0):
            kept.append(_without_credits(stretch) if after_start else stretch)
        elif not _is_about_gutenberg(stretch):
            return text
        if mark:
            after_start, place = mark["start"] is not None, mark.end()
    return "\n\n".join(part for part in (part.strip() for part in kept) if part)


def _is_about_gutenberg(stretch: str) -> bool:
    """Whether a stretch outside the marks is a header or licence."""
    length = len(stretch)
    return length <= _ROOM or (length <= _LONGEST and stretch.lower().count("gutenberg") * _DENSITY >= length)


def _without_credits(book: str) -> str:
    """A book less the paragraphs at its start that name who made the file; of a long one, its first line."""
    book = book.strip()
    for _ in range(_CREDITS):
        if not _CREDIT.match(book):
            break
        border = _PARAGRAPH.search(book)
        paragraph, following = (border.start(), border.end()) if border else (len(book), len(book))
        if paragraph > _CREDIT_CHARACTERS:
            paragraph = following = book.find("\n", 0, _CREDIT_CHARACTERS) + 1
        book = book[following:].lstrip()
        if not paragraph:
            break
    return book
