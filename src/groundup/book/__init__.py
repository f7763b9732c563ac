"""The book: a PDF about this very model, its text and figures filled with what the run measured.

In comes a finished run; out go book.pdf and book.json, the data it shows. The room promises:

- every number comes from the run's files or is computed from its weights while the book is made;
- code is shown as it stands in the source, read with ``inspect``, so text and program never drift apart;
- a stage that a run lacks leaves no empty frame: its chapter isn't there;
- text from data and models is passed as data, never as markup; characters without a glyph are shown by their codes;
- no network and no system fonts: equal runs give equal books.

``build.py`` gathers; one module a chapter says what that chapter shows; ``templates/`` holds text and layout.
"""

from groundup.book.build import build_book

__all__ = ["build_book"]
