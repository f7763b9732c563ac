"""``[corpus.dedup]`` and ``[corpus.decontaminate]``: what is removed because it stands elsewhere already."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from groundup.recipe.base import Section


class NearSection(Section):
    """Near-duplicates by MinHash and locality-sensitive hashing (Broder 1997; Leskovec et al., ch. 3).

    Two documents whose word n-grams have Jaccard similarity s share a band with probability
    1 − (1 − s^rows)^bands. A pair that does is compared by its whole signature before it counts, and a document is
    removed only for one that stays and that it was found near to.
    """

    bands: int = Field(default=18, ge=1, le=200, description="Bands of the signature.")
    rows: int = Field(default=6, ge=1, le=50, description="Hashes in a band.")
    hashes: int = Field(
        default=256,
        ge=1,
        le=10_000,
        description="Hashes in a signature, of which the first bands · rows make the bands (so many at least are "
        "taken) and all are compared: the estimated similarity s has a standard error of √(s(1 − s)/hashes).",
    )
    ngram: int = Field(default=5, ge=1, le=20, description="Words in a shingle.")
    threshold: float = Field(
        default=0.7,
        ge=0,
        le=1,
        description="Jaccard similarity, estimated by the share of equal hashes, from which two documents "
        "are near-duplicates.",
    )
    keep: Literal["longest", "best", "first"] = Field(
        default="longest",
        description="Which of a group stays: the one with most text, the one of the highest quality score (where a "
        "classifier gives one, else the longest), or the first read. Equal ones: the first read.",
    )

    @property
    def signature(self) -> int:
        """Hashes that are computed for each document."""
        return max(self.hashes, self.bands * self.rows)


class LinesSection(Section):
    """Lines that occur in many documents are removed from all but the first that has them (after CCNet, 2020).

    Lines are equal that have the same letters, digits and symbols but for case, white space, punctuation and which
    digits they are.
    """

    min_characters: int = Field(
        default=30,
        ge=1,
        description="Lines of fewer letters are never removed; digits, white space and signs don't count. "
        "Unit: characters.",
    )
    max_documents: int = Field(
        default=1, ge=1, description="A line may stand in this many documents; in later ones it is removed."
    )
    unit: Literal["line", "paragraph"] = Field(
        default="line", description="What is compared: lines, or paragraphs between blank lines."
    )


class BoilerplateSection(Section):
    """Lines that a site repeats on its pages (menus, notices) are removed from all of them.

    A site is the host of a page's address. Lines are equal as in `corpus.dedup.lines`; those without a letter stay.
    """

    min_pages: int = Field(
        default=5,
        ge=2,
        description="A line on fewer pages isn't boilerplate, so smaller sites are left as they are.",
    )
    max_share: float = Field(
        default=0.3, gt=0, le=1, description="A line on more than this share of a site's pages is boilerplate."
    )


class DedupSection(Section):
    """Exact duplicates are removed by default; the rest where it is named."""

    exact: bool = Field(
        default=True, description="Remove documents that equal an earlier one but for case and white space."
    )
    lines: LinesSection | None = Field(default=None, description="Lines or paragraphs repeated across documents.")
    boilerplate: BoilerplateSection | None = Field(default=None, description="Lines repeated across a site's pages.")
    near: NearSection | None = Field(default=None, description="Documents nearly equal to another.")
    against: tuple[str, ...] = Field(
        default=(),
        description="Runs whose finished corpora count as read before: documents that they hold are not kept again "
        "(a corpus cut into passages holds passages). Paths.",
    )


class DecontaminateSection(Section):
    """Documents that share a run of words with a test (Brown et al. 2020, appendix C: 13-grams)."""

    tasks: bool = Field(default=True, description="Look for the tests that the recipe's evaluate stage uses.")
    files: tuple[str, ...] = Field(
        default=(), description="Further tests: text files, or JSONL, of whose records every string counts. Paths."
    )
    ngram: int = Field(
        default=13, ge=5, le=50, description="Words in a row that must be equal, but for case and punctuation."
    )
    remove: Literal["document", "span", "nothing"] = Field(
        default="document",
        description="What is removed: the whole document, the shared words, or nothing (they are reported).",
    )
