"""Which documents are refused: filters over batches of documents, each a set of rules with thresholds of the recipe."""

from __future__ import annotations

from groundup.corpus.filters.bad_words import BadWordsFilter
from groundup.corpus.filters.c4 import C4Filter
from groundup.corpus.filters.fineweb import FineWebFilter
from groundup.corpus.filters.gopher_quality import GopherQualityFilter
from groundup.corpus.filters.gopher_repetition import GopherRepetitionFilter
from groundup.corpus.filters.length import LengthFilter
from groundup.corpus.filters.symbols import SymbolsFilter
from groundup.corpus.filters.verdict import Filter, Verdict
from groundup.corpus.language import LanguageFilter
from groundup.recipe.filters import FiltersSection

__all__ = ["Filter", "Verdict", "build_filters"]


def build_filters(section: FiltersSection) -> list[Filter]:
    """The filters that the section names, in the order in which they work.

    Raises UserError where a file that it names cannot be read.
    """
    kinds = {
        "language": LanguageFilter,
        "c4": C4Filter,
        "length": LengthFilter,
        "symbols": SymbolsFilter,
        "gopher_repetition": GopherRepetitionFilter,
        "gopher_quality": GopherQualityFilter,
        "fineweb": FineWebFilter,
        "bad_words": BadWordsFilter,
    }
    named = ((kind, getattr(section, name)) for name, kind in kinds.items())
    return [kind(table) for kind, table in named if table is not None]
