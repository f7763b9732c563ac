"""A quality classifier trained on texts that the recipe names: logistic regression on hashed runs of words.

The features of a text are its words and its runs of up to `ngrams` words, told apart by a hash of some bits
(Weinberger et al. 2009). Of N features with the weights w the score is

    z = bias + N^(−1/2) · Σ w,    probability = 1 / (1 + exp(−(slope · z + intercept)))

so that evidence grows as the root of the length: between the sum of naive Bayes, which is sure of any long text, and
the mean of fastText (Joulin et al. 2017). Weights are learnt by Adagrad (Duchi et al. 2011) from the first words of
each example, so that length alone teaches little. Slope and intercept are set on a tenth of the examples that the
weights have not seen (Platt 1999), and what the classifier is worth is measured on another tenth. The classes count
alike however many examples they have: the probability is that of a text that was as likely to be of the one as of the
other.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Protocol

import numpy as np

from groundup.corpus import listing
from groundup.corpus.columns import as_numpy, numbers
from groundup.corpus.documents import Batch, Outcome, Part, Raw, ReaderOptions
from groundup.corpus.extract import extract
from groundup.corpus.readers import format_of, read_part
from groundup.corpus.sizes import as_texts
from groundup.corpus.store import read_documents
from groundup.corpus.text import normalise
from groundup.corpus.words import find_words
from groundup.recipe.classifier import ClassifierSection
from groundup.run import UserError

FILE = "classifier.safetensors"
READ_WORDS = 2048  # words of a text that are looked at

_KEY = "classifier"  # the one entry of the file's metadata: with more their order would change from file to file
_LEAST = 10  # examples of each class
_TENTHS = 10
_STEP = 64  # examples in a step of Adagrad
_AT_ONCE = 256  # examples whose words are found together
_MIX = np.uint64(0x9E3779B97F4A7C15)  # odd numbers without pattern in their bits, to multiply hashes with
_NEXT = np.uint64(0xD1342543DE82EF95)


class WordsLike(Protocol):
    """What scoring needs of words: `hashes`, uint64 [w], and `offsets`, int64 [n + 1], where each text's begin."""

    @property
    def hashes(self) -> np.ndarray: ...

    @property
    def offsets(self) -> np.ndarray: ...


@dataclass(frozen=True)
class Classifier:
    """Args:
    weights: float32 [2^bits].
    ngrams: the longest run of words that is a feature.
    bias, slope, intercept: as in the module's formula.
    report: examples, and on the tenth held out: "accuracy" and "auc" (area under the ROC curve), "log_loss" (nats) and
        "calibration_error" (mean absolute difference of probability and frequency in ten bins, weighted by size).
    """

    weights: np.ndarray
    ngrams: int
    bias: float
    slope: float
    intercept: float
    report: dict[str, float]

    def scores(self, words: WordsLike) -> np.ndarray:
        """float64 [n]: the probability that each text is of the good ones; it depends on that text alone."""
        hashes, offsets = _heads(words.hashes, words.offsets, READ_WORDS)
        margins = _margins(self.weights, self.bias, *_features(hashes, offsets, self.ngrams, len(self.weights)))
        return _sigmoid(self.slope * margins + self.intercept)

    def save(self, folder: Path) -> None:
        """Write FOLDER/classifier.safetensors; equal classifiers give equal bytes."""
        from safetensors.numpy import save_file

        about = {name: getattr(self, name) for name in ("ngrams", "bias", "slope", "intercept", "report")}
        save_file({"weights": self.weights}, Path(folder) / FILE, {_KEY: json.dumps(about, sort_keys=True)})

    @classmethod
    def load(cls, folder: Path) -> Classifier:
        """What `save` wrote. Raises UserError where it is missing or no classifier."""
        from safetensors import SafetensorError, safe_open

        path = Path(folder) / FILE
        try:
            with safe_open(path, "np") as file:
                about = json.loads(file.metadata()[_KEY])
                return cls(file.get_tensor("weights"), **about)
        except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
            raise UserError(f"can't read the classifier {str(path)!r}: {error}", mend="train it again") from error


class ClassifierFilter:
    """Refuses documents whose probability of being good is below the threshold; `value` is the probability."""

    name = "classifier"
    rules: tuple[str, ...] = ("classifier",)

    def __init__(self, section: ClassifierSection, classifier: Classifier) -> None:
        self.section, self.classifier = section, classifier

    def with_quality(self, batch: Batch) -> Batch:
        """The batch with a column `quality`, float64: the probability of each document."""
        return batch.with_columns(quality=numbers(self.classifier.scores(batch.words)))

    def __call__(self, batch: Batch) -> Outcome:
        if "quality" not in batch.columns:
            batch = self.with_quality(batch)
        quality = as_numpy(batch.columns["quality"]).astype(np.float64)
        refused = quality < self.section.threshold
        return Outcome(np.where(refused, 0, -1).astype(np.int16), np.where(refused, quality, np.nan))


def train_classifier(section: ClassifierSection, seed: int) -> Classifier:
    """Read the examples that the section names, and train on them.

    Raises UserError for a path that isn't there, and where a class has fewer than ten examples.
    """
    positive, negative = (
        _read_examples(paths, f"corpus.filters.classifier.{side}")
        for side, paths in (("positive", section.positive), ("negative", section.negative))
    )
    return train_on(positive, negative, section, seed)


def train_on(positive: Iterable[str], negative: Iterable[str], section: ClassifierSection, seed: int) -> Classifier:
    """A classifier that tells `positive` from `negative`; equal arguments give an equal one, bit for bit.

    At most `section.max_documents` of each are read, and of these held in memory the hashes of `READ_WORDS` words.

    Raises UserError where either has fewer than ten texts.
    """
    classes = [
        _hash_examples(islice(texts, section.max_documents), side)
        for side, texts in (("positive", positive), ("negative", negative))
    ]
    examples = classes[0] + classes[1]
    labels = np.repeat([1, 0], [len(classes[0]), len(classes[1])])
    random = np.random.default_rng(seed)
    tenths = np.concatenate([_deal(len(each), random) for each in classes])
    importance = np.where(labels == 1, 0.5 / labels.mean(), 0.5 / (1 - labels.mean()))

    learnt = np.flatnonzero(tenths > 1)
    weights, bias = _learn([examples[i] for i in learnt], labels[learnt], importance[learnt], section, random)
    margins = np.zeros(len(examples))
    held = np.flatnonzero(tenths <= 1)
    for rows in np.array_split(held, -(-len(held) // _AT_ONCE)):
        hashes, offsets = _joined([examples[i] for i in rows], READ_WORDS)
        margins[rows] = _margins(weights, bias, *_features(hashes, offsets, section.ngrams, section.buckets))
    slope, intercept = _calibrate(margins[tenths == 0], labels[tenths == 0], importance[tenths == 0])
    tested = tenths == 1
    report = {
        "positive_examples": len(classes[0]),
        "negative_examples": len(classes[1]),
        **measure(labels[tested], _sigmoid(slope * margins[tested] + intercept)),
    }
    return Classifier(weights, section.ngrams, bias, slope, intercept, report)


def measure(labels: np.ndarray, probabilities: np.ndarray) -> dict[str, float]:
    """Accuracy at 0.5, area under the ROC curve, log loss and calibration error (see `Classifier`).

    Args:
        labels: 0 or 1 [n]; both occur.
        probabilities: float64 [n].
    """
    chosen = np.where(labels == 1, probabilities, 1 - probabilities)
    bins = np.minimum((probabilities * 10).astype(np.int64), 9)
    gaps = np.bincount(bins, probabilities - labels, 10)
    return {
        "accuracy": float(np.mean((probabilities >= 0.5) == (labels == 1))),
        "auc": area_under_curve(labels, probabilities),
        "log_loss": float(-np.mean(np.log(np.maximum(chosen, 1e-12)))),
        "calibration_error": float(np.abs(gaps).sum() / len(labels)),
    }


def area_under_curve(labels: np.ndarray, scores: np.ndarray) -> float:
    """The share of pairs of a 1 and a 0 in which the 1 has the higher score, ties counting half (Mann & Whitney).

    Args:
        labels: 0 or 1 [n]; both occur.
        scores: float [n].
    """
    _, place, count = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(count) - (count - 1) / 2)[place]
    ones = int(labels.sum())
    return float((ranks[labels == 1].sum() - ones * (ones + 1) / 2) / (ones * (len(labels) - ones)))


def _read_examples(paths: Sequence[str], where: str) -> Iterator[str]:
    """The texts of files, globs and runs, in the order of the paths; what is no document is passed over."""
    for number, path in enumerate(paths):
        corpus = Path(path).expanduser() / "corpus"
        if (corpus / "manifest.json").is_file():
            yield from (document.text for document in read_documents(corpus, "train"))
            continue
        for file in listing.list_files(path, f"{where}[{number}]").files:
            for found in read_part(Part(file.path, format_of(file.path) or "text", file.bytes), ReaderOptions()):
                document = extract(found, "auto") if isinstance(found, Raw) and found.html is not None else found
                text = normalise(document.text) if isinstance(document, Raw) else ""
                if text:
                    yield text


def _hash_examples(texts: Iterable[str], side: str) -> list[np.ndarray]:
    """uint32 hashes of the first words of each text. Raises UserError where there are too few."""
    examples: list[np.ndarray] = []
    texts = iter(texts)
    while batch := list(islice(texts, _AT_ONCE)):
        words = find_words(as_texts(batch))
        hashes, offsets = _heads(words.hashes, words.offsets, READ_WORDS)
        examples += np.split(hashes, offsets[1:-1])
    if len(examples) < _LEAST:
        raise UserError(
            f"the quality classifier has {len(examples)} {side} examples",
            where=f"corpus.filters.classifier.{side}",
            expected=f"at least {_LEAST}, better thousands",
        )
    return examples


def _deal(count: int, random: np.random.Generator) -> np.ndarray:
    """A number from 0 to 9 for each of `count` examples: each once among every ten, in random order."""
    rounds = random.permuted(np.tile(np.arange(_TENTHS), (-(-count // _TENTHS), 1)), axis=1)
    return rounds.ravel()[:count]


def _heads(hashes: np.ndarray, offsets: np.ndarray, most: int) -> tuple[np.ndarray, np.ndarray]:
    """The upper halves of the hashes of each text's first `most` words, uint32, and where each text's begin."""
    counts = np.minimum(np.diff(offsets), most)
    begins = np.concatenate(([0], np.cumsum(counts)))
    upper = (hashes >> np.uint64(32)).astype(np.uint32)
    if begins[-1] == len(hashes):
        return upper, begins
    places = np.arange(begins[-1]) + np.repeat(offsets[:-1] - begins[:-1], counts)
    return upper[places], begins


def _joined(examples: Sequence[np.ndarray], most: int) -> tuple[np.ndarray, np.ndarray]:
    """The first `most` hashes of each example after one another, and where each example's begin."""
    heads = [example[:most] for example in examples]
    return np.concatenate(heads), np.concatenate(([0], np.cumsum([len(head) for head in heads])))


def _features(
    hashes: np.ndarray, offsets: np.ndarray, ngrams: int, buckets: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(bucket of each feature, number of the text it belongs to, number of features of each text)."""
    texts = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    shift = np.uint64(65 - buckets.bit_length())
    run = hashes.astype(np.uint64)
    found, owners = [run * _MIX >> shift], [texts]
    for length in range(2, ngrams + 1):
        run = run[:-1] * _NEXT + hashes[length - 1 :]
        whole = texts[: len(run)] == texts[length - 1 :]
        found.append(run[whole] * _MIX >> shift)
        owners.append(texts[: len(run)][whole])
    owner = np.concatenate(owners)
    return np.concatenate(found).astype(np.int64), owner, np.bincount(owner, minlength=len(offsets) - 1)


def _margins(
    weights: np.ndarray, bias: float, buckets: np.ndarray, owner: np.ndarray, counts: np.ndarray
) -> np.ndarray:
    """float64 [n]: the z of the module's formula. A text's sum runs in its own order, whatever stands beside it."""
    sums = np.bincount(owner, weights[buckets], len(counts))
    return np.asarray(bias + sums / np.sqrt(np.maximum(counts, 1)))


def _sigmoid(values: np.ndarray) -> np.ndarray:
    return 0.5 * (1 + np.tanh(0.5 * values))


def _learn(
    examples: Sequence[np.ndarray],
    labels: np.ndarray,
    importance: np.ndarray,
    section: ClassifierSection,
    random: np.random.Generator,
) -> tuple[np.ndarray, float]:
    """(weights float32, bias) after `epochs` passes of Adagrad; `l2` draws only on the weights that a step touches."""
    weights, squares = np.zeros(section.buckets), np.full(section.buckets, 1e-8)
    bias, bias_squares = 0.0, 1e-8
    for _ in range(section.epochs):
        order = random.permutation(len(examples))
        for rows in np.array_split(order, -(-len(order) // _STEP)):
            hashes, offsets = _joined([examples[i] for i in rows], section.example_words)
            buckets, owner, counts = _features(hashes, offsets, section.ngrams, section.buckets)
            margins = _margins(weights, bias, buckets, owner, counts)
            pull = (_sigmoid(margins) - labels[rows]) * importance[rows] / len(rows)
            touched, place = np.unique(buckets, return_inverse=True)
            slope = np.bincount(place, (pull / np.sqrt(np.maximum(counts, 1)))[owner], len(touched))
            slope += section.l2 * weights[touched]
            squares[touched] += slope**2
            weights[touched] -= section.learning_rate * slope / np.sqrt(squares[touched])
            bias_squares += float(pull.sum()) ** 2
            bias -= section.learning_rate * float(pull.sum()) / bias_squares**0.5
    return weights.astype(np.float32), bias


def _calibrate(margins: np.ndarray, labels: np.ndarray, importance: np.ndarray) -> tuple[float, float]:
    """(slope, intercept) of least log loss, with Platt's targets a little inside 0 and 1; by Newton's method."""
    ones = float(labels.sum())
    targets = np.where(labels == 1, (ones + 1) / (ones + 2), 1 / (len(labels) - ones + 2))
    inputs = np.stack((margins, np.ones_like(margins)))
    found = np.array([1.0, 0.0])
    for _ in range(100):
        guess = _sigmoid(found @ inputs)
        gradient = inputs @ ((guess - targets) * importance)
        curvature = (inputs * (guess * (1 - guess) * importance)) @ inputs.T + 1e-9 * np.eye(2)
        step = np.linalg.solve(curvature, gradient)
        found -= np.clip(step, -2.0, 2.0)
        if np.abs(step).max() < 1e-9:
            break
    return float(found[0]), float(found[1])
