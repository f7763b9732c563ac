"""``[corpus.filters]``: which documents are refused, rule by rule; each filter is on where its table is present.

A rule is switched off by a threshold that nothing can break: 0 for a least value, 1 for a largest share.
"""

from __future__ import annotations

from typing import Self

from pydantic import Field, field_validator, model_validator

from groundup.recipe.base import Section
from groundup.recipe.classifier import ClassifierSection
from groundup.recipe.language import LanguageSection

_WORDS = "Unit: words (punctuation not counted)."


def _share(default: float, description: str) -> float:
    """A field that holds a share of a whole."""
    field: float = Field(default=default, ge=0, le=1, description=description)
    return field


class _Limits(Section):
    """A section with fields min_… and max_… of the same thing: the first is not above the second."""

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        for name in type(self).model_fields:
            least, most = getattr(self, name), getattr(self, name.replace("min_", "max_", 1), None)
            if name.startswith("min_") and most is not None and least > most:
                raise ValueError(
                    f"{name} = {least} is above {name.replace('min_', 'max_', 1)} = {most}: nothing would be kept"
                )
        return self


class LengthSection(_Limits):
    """Documents too short or too long are refused; limits that are absent do not apply."""

    min_characters: int = Field(default=0, ge=0, description="Least length. Unit: characters.")
    max_characters: int | None = Field(default=None, ge=1, description="Greatest length. Unit: characters.")
    min_words: int = Field(default=0, ge=0, description=f"Least number of words. {_WORDS}")
    max_words: int | None = Field(default=None, ge=1, description=f"Greatest number of words. {_WORDS}")
    min_lines: int = Field(default=0, ge=0, description="Least number of lines that are not blank.")
    max_lines: int | None = Field(default=None, ge=1, description="Greatest number of lines that are not blank.")
    max_line_characters: int | None = Field(
        default=None,
        ge=1,
        description="Greatest length of the longest line (data in code, minified code). Unit: characters.",
    )
    max_mean_line_characters: float | None = Field(
        default=None, gt=0, description="Greatest mean length of the lines that are not blank. Unit: characters."
    )


class SymbolsSection(Section):
    """Documents of too many figures, capitals, symbols or addresses are refused.

    The thresholds are our own: of 1,500 passages of novels and of Wikipedia's better articles 99.9 % stay below 60 % of
    each. MADLAD-400 (Kudugunta et al. 2023) has rules of the same kind.
    """

    max_digits: float = _share(0.2, "Greatest share of digits among the characters that are not white space.")
    max_capitals: float = _share(0.4, "Greatest share of capital letters among letters.")
    max_symbols: float = _share(
        0.25,
        "Greatest share of punctuation marks and symbols among the characters that are not white space.",
    )
    max_addresses: float = _share(
        0.2, "Greatest share of web addresses (`https://…`, `www.…`) among the characters that are not white space."
    )


class GopherRepetitionSection(Section):
    """Documents that repeat themselves are refused: table A1 of the Gopher paper (Rae et al. 2021).

    Lines are what stands between line ends, paragraphs what stands between empty lines; a duplicate is one that stood
    in the same document before. Of runs of words the most frequent counts each time it occurs (2 to 4 words); of longer
    ones (5 to 10) every run that occurred before counts, no word twice. Each character of Chinese and Japanese is a
    word, and every three letters of Thai, Lao, Burmese and Khmer.
    """

    max_duplicate_paragraphs: float = _share(0.3, "Greatest share of duplicates among the paragraphs.")
    max_duplicate_paragraph_characters: float = _share(
        0.2, "Greatest share of a document's characters in duplicate paragraphs."
    )
    max_duplicate_lines: float = _share(0.3, "Greatest share of duplicates among the lines that are not empty.")
    max_duplicate_line_characters: float = _share(0.2, "Greatest share of a document's characters in duplicate lines.")
    max_top_2gram: float = _share(0.2, "Greatest share of its characters in the most frequent pair of words.")
    max_top_3gram: float = _share(0.18, "The same for three words.")
    max_top_4gram: float = _share(0.16, "The same for four words.")
    max_duplicate_5gram: float = _share(
        0.15, "Greatest share of its characters in runs of five words that occurred before."
    )
    max_duplicate_6gram: float = _share(0.14, "The same for six words.")
    max_duplicate_7gram: float = _share(0.13, "The same for seven words.")
    max_duplicate_8gram: float = _share(0.12, "The same for eight words.")
    max_duplicate_9gram: float = _share(0.11, "The same for nine words.")
    max_duplicate_10gram: float = _share(0.1, "The same for ten words.")


class GopherQualitySection(_Limits):
    """Documents unlike running text are refused: section A.1.1 of the Gopher paper (Rae et al. 2021)."""

    min_words: int = Field(default=50, ge=0, description=f"Least number of words. {_WORDS}")
    max_words: int = Field(default=100_000, ge=1, description=f"Greatest number of words. {_WORDS}")
    min_mean_word_length: float = Field(
        default=3,
        ge=0,
        description="Least mean length of a word; not asked where most words are letters of a script without spaces. "
        "Unit: characters.",
    )
    max_mean_word_length: float = Field(
        default=10, gt=0, description="Greatest mean length of a word. Unit: characters."
    )
    max_hashes: float = Field(default=0.1, ge=0, description="Most signs `#` for each word or punctuation mark.")
    max_ellipses: float = Field(
        default=0.1, ge=0, description="Most ellipses (`...`, `…`) for each word or punctuation mark."
    )
    max_bullet_lines: float = _share(0.9, "Greatest share of lines that begin with a bullet (`•`, `-`).")
    max_ellipsis_lines: float = _share(0.3, "Greatest share of lines that end with an ellipsis.")
    min_alphabetic_words: float = _share(0.8, "Least share of words with a letter among words and punctuation marks.")
    min_stop_words: int = Field(default=2, ge=0, description="So many of the stop words must occur.")
    stop_words: tuple[str, ...] = Field(
        default=("the", "be", "to", "of", "and", "that", "have", "with"),
        description="Words that running text holds, as they are written in the middle of a sentence.",
    )

    @model_validator(mode="after")
    def _enough_stop_words(self) -> Self:
        if self.min_stop_words > len(set(self.stop_words)):
            raise ValueError(
                f"min_stop_words = {self.min_stop_words}, but stop_words names {len(set(self.stop_words))}: "
                "nothing would be kept"
            )
        return self


class C4Section(Section):
    """Lines that are no sentences are dropped, and documents with few left: C4 (Raffel et al. 2020, section 2.2)."""

    terminal_punctuation: bool = Field(
        default=True,
        description="Keep only lines that end in a full stop, a question or exclamation mark or a quotation mark, and "
        "not in `...`.",
    )
    min_line_words: int = Field(
        default=3, ge=0, description="Keep only lines of this many words. Unit: words between white space."
    )
    max_word_characters: int = Field(
        default=1000, ge=1, description="Drop lines with a longer word. Unit: characters between white space."
    )
    min_sentences: int = Field(default=5, ge=0, description="Refuse documents with fewer sentences left.")
    citations: bool = Field(default=True, description="Remove `[1]`, `[edit]` and `[citation needed]`.")
    lorem_ipsum: bool = Field(default=True, description="Refuse documents with the words `lorem ipsum`.")
    curly_brackets: bool = Field(
        default=True, description="Refuse documents with a curly bracket, which is a sign of code."
    )
    javascript: bool = Field(default=True, description="Drop lines with the word JavaScript.")
    policies: bool = Field(
        default=True, description="Drop lines that speak of cookies, terms of use or privacy policies."
    )


class FineWebSection(Section):
    """Documents made of lists and fragments are refused: FineWeb (Penedo et al. 2024, section 3.6)."""

    min_line_punctuation: float = _share(
        0.12, "Least share of lines that end in a full stop, question or exclamation mark."
    )
    max_short_lines: float = _share(0.67, "Greatest share of short lines.")
    short_line: int = Field(default=30, ge=0, description="Lines up to this long are short. Unit: characters.")
    max_duplicate_line_characters: float = _share(0.01, "Greatest share of characters in lines that stood before.")
    max_lines_per_word: float = Field(
        default=0.3, ge=0, description="Most line ends for each word or punctuation mark."
    )


class BadWordsSection(Section):
    """Documents with a listed word are refused (Raffel et al. 2020 used such lists for C4)."""

    files: tuple[str, ...] = Field(
        min_length=1,
        description="Lists in UTF-8, a word or phrase a line. A file named by a language's code (`en`, `de.txt`) is "
        "for documents found to be in that language and those of which it is not known; any other is for all. Paths.",
    )
    keep_fraction: float = _share(0.0, "Share of the documents with a listed word that are kept all the same.")

    @field_validator("files")
    @classmethod
    def _named(cls, files: tuple[str, ...]) -> tuple[str, ...]:
        if not all(files):
            raise ValueError("files holds an empty path")
        return files


class FiltersSection(Section):
    """Each filter is on where it is named; an empty table takes its thresholds from the papers.

    They work in the order in which they stand here: first the one that edits, so that the others judge what stays.
    """

    language: LanguageSection | None = Field(default=None, description="Which languages are kept.")
    c4: C4Section | None = Field(default=None, description="Lines that are no sentences, and code.")
    length: LengthSection | None = Field(default=None, description="How short and how long documents may be.")
    symbols: SymbolsSection | None = Field(default=None, description="Figures, capitals, symbols and addresses.")
    gopher_repetition: GopherRepetitionSection | None = Field(default=None, description="Text that repeats itself.")
    gopher_quality: GopherQualitySection | None = Field(default=None, description="Text unlike running text.")
    fineweb: FineWebSection | None = Field(default=None, description="Lists and fragments.")
    bad_words: BadWordsSection | None = Field(default=None, description="Words on lists.")
    classifier: ClassifierSection | None = Field(default=None, description="Text unlike good examples.")
