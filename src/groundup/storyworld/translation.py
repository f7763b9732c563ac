"""Sentence pairs of an English-like language and an invented one, to learn translation from.

The same words in another order mean another thing, and are translated otherwise: *the dog sees the old cat*, *the old
cat sees the dog*. So nothing that sees only which words a sentence has can translate it. What changes on the way:

- the order of the clause: S O V in a plain one, V S O in a denied one, V O S in a question, S V O in a reason;
- a reason follows *because*; its translation comes first, and the main clause after a comma;
- a denial wraps its clause (``ne … pa``), as in French; a question ends with ``ko``; the place comes first, or last;
- a noun has one of three classes. Its adjectives follow it, the last first, then its determiner; adjectives, the
  pronoun of a relative clause, and the verb of which it is the subject, end as its class and number demand;
- relative clauses have orders of their own: object before verb, and verb before subject.

Every sentence has one translation. Item ``i`` of a stream depends on (seed, stream, i) alone. What a sentence is for
(training, validation, tests) is fixed by the words in it, whatever their order: no rearrangement of a test sentence is
ever trained on or validated with.
"""

from __future__ import annotations

import copy
import random
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

TRANSLATION_SPLITS = ("iid", "unseen_combinations", "longer")
LONGEST = 24
"""Words in a training sentence, end mark included; those of the split ``longer`` have more, up to MOST."""
MOST = 40
HELD_OUT, VALIDATED = 10, 4
"""One set of words in so many is held out, and one in so many of these is for validation."""
ARRANGEMENTS = 4
"""How many sentences of the same words a test split has at most."""

NOUNS = (
    ("dog", "bano"), ("cat", "miru"), ("bird", "piva"), ("horse", "karo"), ("child", "tesu"), ("king", "rogal"),
    ("queen", "selva"), ("farmer", "dimor"), ("baker", "fonel"), ("sailor", "navek"), ("wolf", "zulo"),
    ("fox", "lisha"), ("bear", "medvo"), ("duck", "kwesi"), ("goat", "jabu"), ("friend", "amiko"), ("teacher", "shola"),
    ("giant", "gorun"), ("doctor", "vekar"), ("lion", "raja"),
)  # fmt: skip
"""Nouns of both languages; the class of number ``i`` is ``i % 3``."""
ADJECTIVES = (
    ("old", "tel"), ("young", "nuv"), ("red", "ros"), ("small", "pik"), ("big", "dol"), ("happy", "fel"),
    ("tired", "mor"), ("clever", "sab"), ("quiet", "hush"), ("brave", "kor"), ("hungry", "yam"), ("kind", "bel"),
)  # fmt: skip
TRANSITIVE = (
    ("see", "vid"), ("chase", "kur"), ("follow", "seg"), ("help", "ajut"), ("love", "lub"), ("push", "pus"),
    ("call", "vok"), ("greet", "salut"), ("watch", "gar"), ("thank", "dank"),
)  # fmt: skip
INTRANSITIVE = (
    ("jump", "hop"),
    ("laugh", "rid"),
    ("wait", "sper"),
    ("dance", "bal"),
    ("work", "lab"),
    ("wander", "vag"),
)
PLACES = (
    ("in the garden", "hortolo"), ("near the river", "rivalo"), ("on the hill", "montolo"), ("at the market", "bazalo"),
    ("in the forest", "silvalo"), ("by the sea", "maralo"),
)  # fmt: skip
DETERMINERS = {
    False: (("the", "ta"), ("this", "sha"), ("every", "om"), ("one", "un")),
    True: (("the", "tari"), ("these", "shari"), ("some", "ulki"), ("many", "mul")),
}
ENDINGS = (("a", "an"), ("e", "esh"), ("o", "oru"))
"""Endings of agreement: class, then singular and plural."""
PAST, NOT, NOT_ENDS, ASKS, BECAUSE, RELATIVE = "zu", "ne", "pa", "ko", "mur", "kel"
RELATIVES, PLACED, REASONS, DENIED, ASKED, SECOND = 0.25, 0.2, 0.2, 0.25, 0.2, 0.25
"""How often there is: a relative clause, a place, a reason, a denial, a question, a second adjective beside one."""


@dataclass(frozen=True)
class SentencePair:
    """A sentence and its translation; sentences of a split with one ``group`` have the same words."""

    source: str
    target: str
    group: str


@dataclass
class Phrase:
    """A noun with what belongs to it. Words are numbers in their tables."""

    determiner: int
    plural: bool
    noun: int
    adjectives: list[int]
    relative: Relative | None = None


@dataclass
class Relative:
    """*that waits*, *that sees the cat* (``of_object`` false), *that the cat sees* (true)."""

    verb: tuple[str, str]
    past: bool
    other: Phrase | None
    of_object: bool


@dataclass
class Clause:
    """Who does what to whom, where."""

    subject: Phrase
    verb: tuple[str, str]
    object: Phrase | None
    past: bool
    denied: bool
    place: int | None


@dataclass
class Sentence:
    """A clause or a question, and maybe its reason."""

    main: Clause
    asked: bool
    reason: Clause | None


def is_unseen_pairing(adjective: int, noun: int) -> bool:
    """True for the one pair of an adjective and its noun in seven that only ``unseen_combinations`` has."""
    return (3 * adjective + 2 * noun) % 7 == 0


# The English-like side.


def _third(verb: str) -> str:
    return verb + ("es" if verb.endswith(("sh", "ch")) else "s")


def _past(verb: str) -> str:
    return "saw" if verb == "see" else verb + ("d" if verb.endswith("e") else "ed")


def _finite(verb: str, past: bool, plural: bool) -> str:
    return _past(verb) if past else verb if plural else _third(verb)


def english_phrase(phrase: Phrase) -> str:
    """Determiner, adjectives, noun, relative clause."""
    adjectives = [ADJECTIVES[number][0] for number in phrase.adjectives]
    noun = NOUNS[phrase.noun][0]
    plural = {"child": "children", "wolf": "wolves", "fox": "foxes"}.get(noun, noun + "s")
    words = [DETERMINERS[phrase.plural][phrase.determiner][0], *adjectives, plural if phrase.plural else noun]
    relative = phrase.relative
    if relative is not None:
        words.append("that")
        by = phrase if relative.other is None or not relative.of_object else relative.other
        verb = _finite(relative.verb[0], relative.past, by.plural)
        other = [] if relative.other is None else [english_phrase(relative.other)]
        words += [*other, verb] if relative.of_object else [verb, *other]
    return " ".join(words)


def _english_clause(clause: Clause, asked: bool) -> str:
    subject, plural = english_phrase(clause.subject), clause.subject.plural
    verb = clause.verb[0]
    helper = "did" if clause.past else "do" if plural else "does"
    if asked:
        words = [helper, subject, *(["not"] if clause.denied else []), verb]
    elif clause.denied:
        words = [subject, helper, "not", verb]
    else:
        words = [subject, _finite(verb, clause.past, plural)]
    words += [english_phrase(clause.object)] if clause.object is not None else []
    words += [PLACES[clause.place][0]] if clause.place is not None else []
    return " ".join(words)


def english(sentence: Sentence) -> str:
    """The sentence in the English-like language, words and marks parted by spaces."""
    reason = f" because {_english_clause(sentence.reason, False)}" if sentence.reason is not None else ""
    return f"{_english_clause(sentence.main, sentence.asked)}{reason} {'?' if sentence.asked else '.'}"


# The invented side.


def _agreeing(root: str, noun: Phrase) -> str:
    return root + ENDINGS[noun.noun % 3][noun.plural]


def _verb(root: str, past: bool, subject: Phrase) -> list[str]:
    return [*([PAST] if past else []), _agreeing(root, subject)]


def invented_phrase(phrase: Phrase) -> list[str]:
    """Noun, adjectives from the last to the first, determiner, relative clause."""
    noun = NOUNS[phrase.noun][1] + ("ri" if phrase.plural else "")
    adjectives = [_agreeing(ADJECTIVES[number][1], phrase) for number in reversed(phrase.adjectives)]
    words = [noun, *adjectives, DETERMINERS[phrase.plural][phrase.determiner][1]]
    relative = phrase.relative
    if relative is not None:
        other = relative.other
        words.append(_agreeing(RELATIVE, phrase))
        if other is None:
            words += _verb(relative.verb[1], relative.past, phrase)
        elif relative.of_object:
            words += [*_verb(relative.verb[1], relative.past, other), *invented_phrase(other)]
        else:
            words += [*invented_phrase(other), *_verb(relative.verb[1], relative.past, phrase)]
    return words


def _invented_clause(clause: Clause, order: str) -> list[str]:
    """``order``: S, V and O as they follow each other, and P for the place."""
    parts = {
        "S": invented_phrase(clause.subject),
        "V": _verb(clause.verb[1], clause.past, clause.subject),
        "O": invented_phrase(clause.object) if clause.object is not None else [],
        "P": [PLACES[clause.place][1]] if clause.place is not None else [],
    }
    words = [word for letter in order for word in parts[letter]]
    return [NOT, *words, NOT_ENDS] if clause.denied else words


def invented(sentence: Sentence) -> str:
    """The sentence in the invented language, words and marks parted by spaces."""
    order = "VOSP" if sentence.asked else "VSOP" if sentence.main.denied else "PSOV"
    words = [*_invented_clause(sentence.main, order), *([ASKS] if sentence.asked else [])]
    if sentence.reason is not None:
        words = [BECAUSE, *_invented_clause(sentence.reason, "SVOP"), ",", *words]
    return " ".join([*words, "."])


# Drawing sentences.


class _Drawer:
    """Draws the parts of one sentence; no noun and no adjective comes twice."""

    def __init__(self, rng: random.Random, depth: int) -> None:
        self.rng, self.depth = rng, depth
        self.nouns = rng.sample(range(len(NOUNS)), len(NOUNS))
        self.adjectives = rng.sample(range(len(ADJECTIVES)), len(ADJECTIVES))

    def phrase(self, depth: int) -> Phrase:
        """A phrase; relative clauses within each other down to ``depth``."""
        rng = self.rng
        plural, determiner = rng.random() < 0.4, rng.randrange(4)
        count = 0 if rng.random() < 0.5 else 2 if rng.random() < SECOND else 1
        adjectives = [self.adjectives.pop() for _ in range(min(count, len(self.adjectives)))]
        phrase = Phrase(determiner, plural, self.nouns.pop(), adjectives)
        if depth and rng.random() < RELATIVES:
            past, kind = rng.random() < 0.5, rng.randrange(3)
            verb = rng.choice(TRANSITIVE if kind else INTRANSITIVE)
            phrase.relative = Relative(verb, past, self.phrase(depth - 1) if kind else None, kind == 2)
        return phrase

    def clause(self) -> Clause:
        rng = self.rng
        transitive = rng.random() < 0.8
        return Clause(
            subject=self.phrase(self.depth),
            verb=rng.choice(TRANSITIVE if transitive else INTRANSITIVE),
            object=self.phrase(self.depth) if transitive else None,
            past=rng.random() < 0.5,
            denied=rng.random() < DENIED,
            place=rng.randrange(len(PLACES)) if rng.random() < PLACED else None,
        )

    def sentence(self) -> Sentence:
        main, asked = self.clause(), self.rng.random() < ASKED
        return Sentence(main, asked, self.clause() if self.rng.random() < REASONS else None)


def phrases(sentence: Sentence) -> list[Phrase]:
    """Every phrase of a sentence, in the order of the English-like side."""
    found: list[Phrase] = []

    def add(phrase: Phrase | None) -> None:
        if phrase is not None:
            found.append(phrase)
            add(phrase.relative.other if phrase.relative is not None else None)

    for clause in (sentence.main, sentence.reason):
        if clause is not None:
            add(clause.subject)
            add(clause.object)
    return found


def rearranged(rng: random.Random, sentence: Sentence) -> Sentence:
    """The same words in other places: nouns change places with nouns of their number, adjectives with adjectives."""
    moved = copy.deepcopy(sentence)
    every = phrases(moved)
    for plural in (False, True):
        alike = [phrase for phrase in every if phrase.plural is plural]
        nouns = [phrase.noun for phrase in alike]
        rng.shuffle(nouns)
        for phrase, noun in zip(alike, nouns, strict=True):
            phrase.noun = noun
    adjectives = [number for phrase in every for number in phrase.adjectives]
    rng.shuffle(adjectives)
    for phrase in every:
        phrase.adjectives = [adjectives.pop() for _ in phrase.adjectives]
    return moved


def bag_of_words(source: str) -> str:
    """The words of a sentence in alphabetical order: what is left of it where order counts for nothing."""
    return " ".join(sorted(source.split()))


def purpose(source: str) -> str:
    """What a sentence as in training, and with it every other of the same words, is for: `train`, `validation` or the
    test split `iid`."""
    share, rest = divmod(zlib.crc32(bag_of_words(source).encode()), HELD_OUT)
    if rest:
        return "train"
    return "iid" if share % VALIDATED else "validation"


def has_unseen_pairing(sentence: Sentence) -> bool:
    """Whether an adjective stands with a noun that it never stands with in training."""
    return any(is_unseen_pairing(number, each.noun) for each in phrases(sentence) for number in each.adjectives)


def _belongs(split: str, sentence: Sentence) -> bool:
    """Whether a sentence is one of ``train``, ``validation`` or a test split; no sentence belongs to two."""
    source = english(sentence)
    length = len(source.split())
    if split == "longer":
        return LONGEST < length <= MOST and not has_unseen_pairing(sentence)
    if length > LONGEST:
        return False
    if split == "unseen_combinations":
        return has_unseen_pairing(sentence)
    return not has_unseen_pairing(sentence) and purpose(source) == split


def _drawn(rng: random.Random, good: Callable[[Sentence], bool], depth: int) -> Sentence:
    while True:
        sentence = _Drawer(rng, depth).sentence()
        if good(sentence):
            return sentence


def make_translation(seed: int, index: int) -> SentencePair:
    """Training pair number ``index``."""
    rng = random.Random(f"{seed}/translation/{index}")
    sentence = _drawn(rng, lambda drawn: _belongs("train", drawn), 1)
    source = english(sentence)
    return SentencePair(source, invented(sentence), bag_of_words(source))


def translations(seed: int, count: int) -> Iterator[SentencePair]:
    """``count`` training pairs; few come twice."""
    for index in range(count):
        yield make_translation(seed, index)


def translation_tests(seed: int, split: str, count: int) -> list[SentencePair]:
    """``count`` different test pairs of a split, sentences of the same words next to each other.

    Of each set of words there are up to ``ARRANGEMENTS`` sentences, whose translations all differ.

    - ``iid``: drawn as for training, of words that training and validation have in no order;
    - ``unseen_combinations``: an adjective with a noun that it never stands with in training;
    - ``longer``: longer than any sentence of training, with relative clauses inside relative clauses.

    Raises:
        ValueError: no such split.
    """
    if split not in TRANSLATION_SPLITS:
        raise ValueError(f"no split {split!r} among {', '.join(TRANSLATION_SPLITS)}")
    return _different(f"{seed}/translation/test/{split}", split, count)


def translation_validation(seed: int, count: int) -> list[SentencePair]:
    """``count`` different pairs to measure with while training and to choose settings by: as the test split ``iid``, of
    other words."""
    return _different(f"{seed}/translation/validation", "validation", count)


def _different(stream: str, split: str, count: int) -> list[SentencePair]:
    found: dict[str, SentencePair] = {}
    number = 0
    while len(found) < count:
        rng = random.Random(f"{stream}/{number}")
        number += 1
        first = _drawn(rng, lambda drawn: _belongs(split, drawn), 2 if split == "longer" else 1)
        for sentence in [first, *(rearranged(rng, first) for _ in range(ARRANGEMENTS - 1))]:
            source = english(sentence)
            if len(found) < count and _belongs(split, sentence):
                found.setdefault(source, SentencePair(source, invented(sentence), bag_of_words(source)))
    return list(found.values())
