"""Which language a document is in: CLD2, with py3langid where CLD2 is unsure, and in its place where it is absent.

CLD2 (Sites 2013) scores runs of four letters against tables and knows 150 languages; py3langid (Lui and Baldwin
2012) is a naive Bayes classifier on bytes, ten times slower, and stronger on single sentences and on text with
names in another script. On samples of some length CLD2's word is final where it is sure. Else both are asked and
their evidence multiplied:

    score(l) = (p(l) + 10⁻⁴) · (share(l) + 0.1)

with p the posterior of py3langid at temperature √bytes / 2, and share(l) the share of the sample that CLD2 gives
to l. The two constants were set on every eighth of half of 74,000 sentences in 74 languages; the other half is what
the tests measure. Neither tells Bosnian from Croatian (37 and 47 % of Bosnian sentences), so Bosnian is reported as
Croatian.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from groundup.corpus.columns import as_numpy, numbers, strings
from groundup.corpus.documents import Batch, Outcome
from groundup.recipe.language import LANGUAGES, UNKNOWN, LanguageSection

# Codes that one of the detectors writes in its own way, and varieties that go by their language's code.
_CODES = {
    "arz": "ar", "ary": "ar", "bh": "hi", "bs": "hr", "grc": "el", "gug": "gn", "hbo": "he", "iw": "he", "jw": "jv",
    "no": "nb", "sdh": "ku", "sr-ME": "sr", "srl": "sr", "uzs": "uz", "wuu": "zh", "yue": "zh", "zh-Hant": "zh",
}  # fmt: skip
_LONG = 500  # characters from which CLD2 alone is as good as both
_SURE = 0.8  # the share of one language from which CLD2 is believed alone
_CLOSE = frozenset({"nb", "nn"})  # what CLD2 confuses at any length
_FLOOR, _BASE = 1e-4, 0.1  # of the formula above
_LEAST = 0.3  # of the confidence; below it nothing was found
# CLD2 refuses controls and Unicode's "not a character" code points, the last two of each plane among them.
_REFUSED = re.compile(
    "[\x00-\x08\x0b\x0e-\x1f\x7f-\x9f\ufdd0-\ufdef"
    + "".join(chr(plane + last) for plane in range(0, 0x110000, 0x10000) for last in (0xFFFE, 0xFFFF))
    + "]"
)
_LETTER = re.compile(r"[^\W\d_]")


def detect_languages(texts: pa.LargeStringArray, sample_characters: int = 1000) -> tuple[pa.StringArray, np.ndarray]:
    """The language of each text, found on the middle `sample_characters` characters; never raises.

    Args:
        texts: large_string [n], no nulls.

    Returns:
        Codes of `groundup.recipe.language.LANGUAGES`, "und" where no language was found, string [n]; and
        confidences in [0, 1], float64 [n]: for a long sample the share of it that is in that language, for a short
        or doubtful one the normalised score of the module's formula.
    """
    found = [detect_language(sample) for sample in _samples(texts, sample_characters)]
    return strings([code for code, _ in found]), np.array([sure for _, sure in found], np.float64)


def detect_language(sample: str) -> tuple[str, float]:
    """(code, confidence) of one sample; ("und", 0.0) where it has no letters or tells nothing."""
    reliable, shares = _cld2_shares(sample)
    best = max(shares, key=shares.__getitem__, default=UNKNOWN)
    sure = reliable and shares.get(best, 0.0) >= _SURE and best not in _CLOSE
    if sure and (len(sample) >= _LONG or best not in _langid_codes()):
        return best, shares[best]
    if not _LETTER.search(sample):
        return UNKNOWN, 0.0
    posterior = _langid_posterior(sample)
    if best not in posterior and reliable and shares.get(best, 0.0) >= 0.5:
        return best, shares[best]  # a language that only CLD2 knows
    scores = {code: (p + _FLOOR) * (shares.get(code, 0.0) + _BASE) for code, p in posterior.items()}
    best = max(scores, key=scores.__getitem__)
    confidence = scores[best] / sum(scores.values())
    if len(sample) >= _LONG:  # naive Bayes is sure of any long text, of a mixed one too; CLD2 measures shares
        confidence = min(confidence, shares.get(best, 1.0))
    return (best, confidence) if confidence >= _LEAST else (UNKNOWN, 0.0)


class LanguageFilter:
    """Refuses documents in languages the section does not keep ("language") or too doubtful ("language_confidence").

    Both values are the confidence, which is not asked of documents without a language where `und` is kept. Batches
    that `with_languages` has not seen are given its columns' contents here.
    """

    name = "language"
    rules: tuple[str, ...] = ("language", "language_confidence")

    def __init__(self, section: LanguageSection) -> None:
        self.section = section

    def __call__(self, batch: Batch) -> Outcome:
        if "language_confidence" not in batch.columns:
            batch = with_languages(batch, self.section.sample_characters)
        confidence = as_numpy(batch.columns["language_confidence"]).astype(np.float64)
        failed = np.full(len(batch), -1, np.int16)
        failed[confidence < self.section.min_confidence] = 1
        if self.section.keep:
            kept = pc.is_in(batch.columns["language"], value_set=strings(self.section.keep))
            failed[~as_numpy(kept)] = 0
            if UNKNOWN in self.section.keep:
                failed[as_numpy(pc.equal(batch.columns["language"], UNKNOWN))] = -1
        return Outcome(failed, np.where(failed >= 0, confidence, np.nan))


def with_languages(batch: Batch, sample_characters: int = 1000) -> Batch:
    """The batch with columns `language` (string) and `language_confidence` (float64) as found in its texts.

    A language that the documents brought along is replaced: it is the claim of whoever wrote the file.
    """
    codes, confidence = detect_languages(batch.texts, sample_characters)
    return batch.with_columns(language=codes, language_confidence=numbers(confidence))


def _samples(texts: pa.LargeStringArray, characters: int) -> Iterator[str]:
    """The middle `characters` characters of each text, from the middle 4 bytes apiece, so long texts cost no more."""
    _, offsets, data = texts.buffers()
    bounds = np.frombuffer(offsets, np.int64)[texts.offset : texts.offset + len(texts) + 1].tolist() if offsets else []
    view = memoryview(data) if data is not None else memoryview(b"")
    for start, stop in pairwise(bounds):
        spare = max(0, stop - start - 4 * characters)
        window = str(view[start + spare // 2 : stop - (spare - spare // 2)], "utf-8", "ignore")
        first = (len(window) - characters) // 2
        yield window[first : first + characters] if first > 0 else window


def _cld2_shares(sample: str) -> tuple[bool, dict[str, float]]:
    """(CLD2 calls its finding reliable, share in [0, 1] of each language found); (False, {}) where it is absent."""
    cld2 = _cld2()
    if cld2 is None:
        return False, {}
    try:
        reliable, _, details = cld2.detect(sample, isPlainText=True, bestEffort=True)
    except cld2.error:
        reliable, _, details = cld2.detect(_REFUSED.sub(" ", sample), isPlainText=True, bestEffort=True)
    shares: dict[str, float] = {}
    for _, code, percent, _ in details:
        code = _CODES.get(code, code)
        if code in LANGUAGES:
            shares[code] = shares.get(code, 0.0) + percent / 100
    return reliable, shares


def _langid_posterior(sample: str) -> dict[str, float]:
    """Probability of each language py3langid knows, its varieties merged; they sum to 1."""
    ranked = [(_CODES.get(code, code), score) for code, score in _langid()(sample)]
    top = ranked[0][1]
    warmth = 2 / math.sqrt(max(1, len(sample.encode())))
    merged: dict[str, float] = {}
    for code, score in ranked:
        if code in LANGUAGES:
            merged[code] = merged.get(code, 0.0) + math.exp((score - top) * warmth)
    total = sum(merged.values())
    return {code: weight / total for code, weight in merged.items()}


@cache
def _cld2() -> Any:
    """The module pycld2, or None where it can't be installed (Linux on arm64, new Pythons)."""
    try:
        import pycld2
    except ImportError:
        return None
    return pycld2


@cache
def _langid() -> Callable[[str], list[tuple[str, float]]]:
    """py3langid's ranking: (its code, log-probability up to a constant), the likeliest first."""
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    rank: Callable[[str], list[tuple[str, float]]] = LanguageIdentifier.from_model_file(MODEL_FILE).rank
    return rank


@cache
def _langid_codes() -> frozenset[str]:
    return frozenset(_langid_posterior(""))
