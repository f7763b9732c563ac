"""How well a translator translates what it never saw: exact match, words in place, BLEU, and what no model gets."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from groundup.inference import Translation, Translator
from groundup.run import Interval, bootstrap_ratio, progress, wilson
from groundup.training.sentence_pairs import TextPair

TASK = "translation"
ORDER = 4
"""BLEU counts sequences of one to so many words."""
RESAMPLES = 1000
DICTIONARY_PAIRS = 5000
"""Training pairs that the word-for-word baseline learns from."""

Results = dict[str, dict[str, dict[str, dict[str, Any]]]]
"""{model: {task: {split: {value, low, high, n, metric}}}}"""


def units(text: str, unit: str) -> list[str]:
    """What a text is counted in: words, or characters."""
    return text.split() if unit == "words" else list(text)


def translate_tests(
    translator: Translator, tests: Mapping[str, Sequence[TextPair]], beam: int, alpha: float
) -> dict[str, list[Translation]]:
    """The best translation of every test sentence, by split. One longer than the context has none: an empty text."""
    longest = translator.model.arch.context_length
    nothing = Translation("", float("-inf"), float("-inf"), False)
    found: dict[str, list[Translation]] = {}
    with progress("translating the tests", total=sum(map(len, tests.values())), unit="sentence") as bar:
        for split, pairs in tests.items():
            fits = [len(translator.encode_source(pair.source)) <= longest for pair in pairs]
            texts = [pair.source for pair, good in zip(pairs, fits, strict=True) if good]
            best = iter(translator.translate(texts, beam=beam, alpha=alpha, on_done=bar.advance))
            found[split] = [next(best)[0] if good else nothing for good in fits]
    return found


def score_translations(
    name: str, texts: Mapping[str, Sequence[str]], tests: Mapping[str, Sequence[TextPair]], unit: str, seed: int
) -> Results:
    """The results of a model's ``texts`` by split: exact match, words in their places, and BLEU, with intervals."""
    tasks: dict[str, dict[str, dict[str, Any]]] = {TASK: {}, f"{TASK}_token_accuracy": {}, f"{TASK}_bleu": {}}
    for split, pairs in tests.items():
        said = [units(text, unit) for text in texts[split]]
        wanted = [units(pair.target, unit) for pair in pairs]
        right = sum(one == other for one, other in zip(said, wanted, strict=True))
        tasks[TASK][split] = _leaf(wilson(right, len(pairs)), "exact_match")
        tasks[f"{TASK}_token_accuracy"][split] = _leaf(token_accuracy(said, wanted, seed), "token_accuracy")
        tasks[f"{TASK}_bleu"][split] = _leaf(bleu(said, wanted, seed), "bleu")
    return {name: tasks}


def baseline_results(
    training: Sequence[TextPair], tests: Mapping[str, Sequence[TextPair]], unit: str, seed: int
) -> Results:
    """What can be had without order, and without a model.

    - ``baseline_bag_of_words``: a bound, not a translator: no function of the words of a source, whatever their order,
      gets more of these items right, since it gives sentences of the same words the same translation.
    - ``baseline_word_for_word``: for each source word its most faithful companion in the training data, in the order
      of the source.
    """
    bounds = {}
    for split, pairs in tests.items():
        by_bag: dict[tuple[str, ...], Counter[str]] = defaultdict(Counter)
        for pair in pairs:
            by_bag[tuple(sorted(units(pair.source, unit)))][pair.target] += 1
        best = sum(max(targets.values()) for targets in by_bag.values())
        bounds[split] = _leaf(wilson(best, len(pairs)), "exact_match")
    known = dictionary(training[:DICTIONARY_PAIRS], unit)
    joint = " " if unit == "words" else ""
    literal = {
        split: [joint.join(known.get(word, word) for word in units(pair.source, unit)) for pair in pairs]
        for split, pairs in tests.items()
    }
    return {"baseline_bag_of_words": {TASK: bounds}} | score_translations(
        "baseline_word_for_word", literal, tests, unit, seed
    )


def dictionary(pairs: Sequence[TextPair], unit: str) -> dict[str, str]:
    """For each source word the target word with which it shares the most sentences, by Dice's coefficient."""
    alone: Counter[str] = Counter()
    companions: Counter[str] = Counter()
    together: dict[str, Counter[str]] = defaultdict(Counter)
    for pair in pairs:
        source, target = set(units(pair.source, unit)), set(units(pair.target, unit))
        alone.update(source)
        companions.update(target)
        for word in source:
            together[word].update(target)
    return {
        word: max(counts, key=lambda other: (2 * counts[other] / (alone[word] + companions[other]), other))
        for word, counts in together.items()
    }


def token_accuracy(said: Sequence[Sequence[str]], wanted: Sequence[Sequence[str]], seed: int) -> Interval:
    """The share of the references' words that stand in their very places; interval by bootstrap over sentences."""
    right = [sum(a == b for a, b in zip(one, other, strict=False)) for one, other in zip(said, wanted, strict=True)]
    return bootstrap_ratio(right, [len(other) for other in wanted], seed=seed)


def bleu(said: Sequence[Sequence[str]], wanted: Sequence[Sequence[str]], seed: int) -> Interval:
    """Corpus BLEU from 0 to 1 (Papineni et al. 2002, section 2.3), one reference each, no smoothing.

    The interval is a bootstrap over sentences. Texts are compared as they are: no tokenizer but white space.
    """
    counts = np.array([_overlaps(one, other) for one, other in zip(said, wanted, strict=True)], np.float64)
    generator = np.random.default_rng(seed)
    drawn = [float(_bleu(counts[generator.integers(len(counts), size=len(counts))].sum(0))) for _ in range(RESAMPLES)]
    low, high = np.percentile(drawn, [2.5, 97.5])
    return Interval(_bleu(counts.sum(0)), float(low), float(high), len(counts))


def _overlaps(said: Sequence[str], wanted: Sequence[str]) -> list[int]:
    """Lengths of both, then for each order the sequences shared and those said."""
    row = [len(said), len(wanted)]
    for order in range(1, ORDER + 1):
        ours, theirs = (
            Counter(tuple(words[at : at + order]) for at in range(len(words) - order + 1)) for words in (said, wanted)
        )
        row += [(ours & theirs).total(), ours.total()]
    return row


def _bleu(sums: Any) -> float:
    said, wanted, shared, whole = sums[0], sums[1], sums[2::2], sums[3::2]
    used = whole > 0  # in texts of few words there may be no sequence of four
    if not said or not used.any() or not shared[used].all():
        return 0.0
    brevity = min(0.0, 1 - wanted / said)
    return float(np.exp(brevity + np.log(shared[used] / whole[used]).mean()))


def _leaf(interval: Interval, metric: str) -> dict[str, Any]:
    """A score as results.json holds it."""
    return {"value": interval.value, "low": interval.low, "high": interval.high, "n": interval.n, "metric": metric}
