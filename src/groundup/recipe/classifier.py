"""``[corpus.filters.classifier]``: a quality classifier trained on texts the recipe names."""

from __future__ import annotations

from pydantic import Field, field_validator

from groundup.recipe.base import Section


class ClassifierSection(Section):
    """Documents unlike the good examples are refused: logistic regression on hashed n-grams of words.

    After fastText (Joulin et al. 2017) as DCLM (Li et al. 2024) uses it to choose web pages.
    """

    positive: tuple[str, ...] = Field(
        min_length=1,
        description="Texts worth learning from: files (.txt, a document each; .jsonl, one a line, by its `text`; "
        "all other forms of sources), folders, globs, or runs whose finished corpora count. Paths.",
    )
    negative: tuple[str, ...] = Field(min_length=1, description="Texts that are not, in the same forms. Paths.")
    threshold: float = Field(
        default=0.5,
        ge=0,
        le=1,
        description="The least probability of being a good text; documents below it are refused.",
    )
    ngrams: int = Field(
        default=2, ge=1, le=3, description="Longest run of words that counts as a feature. Unit: words."
    )
    buckets: int = Field(
        default=2**20, ge=2**10, le=2**24, description="Weights that the features share by their hash; a power of two."
    )
    epochs: int = Field(default=3, ge=1, le=100, description="Passes over the examples.")
    learning_rate: float = Field(default=0.02, gt=0, le=10, description="Step size of Adagrad.")
    l2: float = Field(
        default=1e-6,
        ge=0,
        description="Pull of the weights towards 0: half this times their squared length is added to the mean loss.",
    )
    example_words: int = Field(
        default=512, ge=1, le=2048, description="How much of the beginning of an example is learnt from. Unit: words."
    )
    max_documents: int = Field(
        default=25_000, ge=10, description="At most this many examples of each class, the first ones read."
    )

    @field_validator("buckets")
    @classmethod
    def _power_of_two(cls, buckets: int) -> int:
        if buckets & (buckets - 1):
            raise ValueError(f"buckets = {buckets} must be a power of two, as {2 ** (buckets.bit_length() - 1)}")
        return buckets
