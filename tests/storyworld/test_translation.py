"""The translation task: one right answer, splits that share no set of words, and no way round word order."""

from collections import Counter, defaultdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from groundup.storyworld import (
    TRANSLATION_SPLITS,
    bag_of_words,
    translation_tests,
    translation_validation,
    translations,
)
from groundup.storyworld.translation import (
    ADJECTIVES,
    LONGEST,
    NOUNS,
    PLACES,
    Clause,
    Phrase,
    Relative,
    Sentence,
    english,
    invented,
    is_unseen_pairing,
    purpose,
)

DOG, CAT, BIRD = (next(i for i, noun in enumerate(NOUNS) if noun[0] == word) for word in ("dog", "cat", "bird"))
OLD, RED = (next(i for i, each in enumerate(ADJECTIVES) if each[0] == word) for word in ("old", "red"))
SEE, JUMP = ("see", "vid"), ("jump", "hop")


def phrase(noun: int, *adjectives: int, plural: bool = False, relative: Relative | None = None) -> Phrase:
    return Phrase(0, plural, noun, list(adjectives), relative)


def clause(subject: Phrase, thing: Phrase | None, **changes) -> Clause:
    verb = SEE if thing else JUMP
    return Clause(**{"subject": subject, "verb": verb, "object": thing, "past": False, "denied": False, "place": None}
                  | changes)  # fmt: skip


THE_DOG, THE_OLD_CAT = phrase(DOG), phrase(CAT, OLD)
GRAMMAR = [
    (Sentence(clause(THE_DOG, THE_OLD_CAT), False, None), "the dog sees the old cat .", "bano ta miru tele ta vida ."),
    (Sentence(clause(THE_OLD_CAT, THE_DOG), False, None), "the old cat sees the dog .", "miru tele ta bano ta vide ."),
    (
        Sentence(clause(phrase(DOG, OLD), phrase(CAT)), False, None),
        "the old dog sees the cat .",
        "bano tela ta miru ta vida .",
    ),
    (
        Sentence(clause(phrase(DOG, OLD, RED, plural=True), THE_OLD_CAT, denied=True, past=True), False, None),
        "the old red dogs did not see the old cat .",
        "ne zu vidan banori rosan telan tari miru tele ta pa .",
    ),
    (
        Sentence(clause(THE_DOG, THE_OLD_CAT, place=0), True, None),
        "does the dog see the old cat in the garden ?",
        "vida miru tele ta bano ta hortolo ko .",
    ),
    (
        Sentence(clause(THE_DOG, None, denied=True), True, None),
        "does the dog not jump ?",
        "ne hopa bano ta pa ko .",
    ),
    (
        Sentence(clause(THE_DOG, THE_OLD_CAT, place=0), False, clause(phrase(BIRD, plural=True), None, place=1)),
        "the dog sees the old cat in the garden because the birds jump near the river .",
        "mur pivari tari hoporu rivalo , hortolo bano ta miru tele ta vida .",
    ),
    (
        Sentence(clause(phrase(DOG, relative=Relative(SEE, True, phrase(CAT, plural=True), False)), None), False, None),
        "the dog that saw the cats jumps .",
        "bano ta kela miruri tari zu vida hopa .",
    ),
    (
        Sentence(clause(phrase(DOG, relative=Relative(SEE, True, phrase(CAT, plural=True), True)), None), False, None),
        "the dog that the cats saw jumps .",
        "bano ta kela zu videsh miruri tari hopa .",
    ),
    (
        Sentence(clause(phrase(CAT, relative=Relative(JUMP, False, None, False)), None), False, None),
        "the cat that jumps jumps .",
        "miru ta kele hope hope .",
    ),
]


@pytest.mark.parametrize(("sentence", "source", "target"), GRAMMAR)
def test_every_rule_of_both_grammars(sentence, source, target):
    assert english(sentence) == source
    assert invented(sentence) == target


@pytest.fixture(scope="module")
def training():
    return list(translations(1, 8000))


@pytest.fixture(scope="module")
def tests():
    return {split: translation_tests(1, split, 400) for split in TRANSLATION_SPLITS}


@pytest.fixture(scope="module")
def validation():
    return translation_validation(1, 400)


def test_a_sentence_has_one_translation(training, tests, validation):
    known: dict[str, str] = {}
    for pair in [*training, *validation, *(pair for pairs in tests.values() for pair in pairs)]:
        assert known.setdefault(pair.source, pair.target) == pair.target


def test_no_set_of_words_is_in_two_of_training_validation_and_the_tests(training, tests, validation):
    trained = {bag_of_words(pair.source) for pair in training}
    seen: set[str] = set()
    for pairs in (validation, *tests.values()):
        assert len({pair.source for pair in pairs}) == len(pairs) == 400
        bags = {bag_of_words(pair.source) for pair in pairs}
        assert not bags & trained
        assert not bags & seen
        seen |= bags


def test_nine_sets_of_words_in_ten_are_for_training_and_a_quarter_of_the_rest_for_validation():
    """Of 4,000 sets, each share within five standard deviations."""
    found = Counter(purpose(f"the {number} dog jumps .") for number in range(4000))
    for name, share in (("train", 0.9), ("validation", 0.025), ("iid", 0.075)):
        assert abs(found[name] - 4000 * share) < 5 * (4000 * share * (1 - share)) ** 0.5
    assert purpose("a b c") == purpose("c  a b")


def test_validation_is_drawn_as_the_tests_are(training, validation):
    """And none of it has more words, or other pairings, than training."""
    trained = set().union(*(_pairings(pair.source) for pair in training))
    assert max(len(pair.source.split()) for pair in validation) <= LONGEST
    assert set().union(*(_pairings(pair.source) for pair in validation)) <= trained
    lengths = [sum(len(pair.source.split()) for pair in pairs) / len(pairs) for pairs in (validation, training)]
    assert lengths[0] == pytest.approx(lengths[1], rel=0.2)


def test_no_bag_of_words_translator_can_solve_it(tests):
    """Most items have a twin of the same words and another translation; whoever sees words alone gets half at most."""
    for split, pairs in tests.items():
        targets = defaultdict(set)
        for pair in pairs:
            targets[pair.group].add(pair.target)
        twins = sum(len(targets[pair.group]) > 1 for pair in pairs) / len(pairs)
        best = sum(1 for _ in targets) / len(pairs)  # no two items of the same words share a translation
        assert twins >= 0.7, split
        assert best <= 0.6, split
        assert len(pairs) == sum(map(len, targets.values()))


def _pairings(source: str) -> set[tuple[int, int]]:
    """The (adjective, noun) pairs of a source, read off its words: adjectives stand before their noun."""
    nouns = {word: i for i, (word, _) in enumerate(NOUNS)}
    nouns |= {word + "s": i for word, i in nouns.items()}
    nouns |= {"children": nouns["child"], "wolves": nouns["wolf"], "foxes": nouns["fox"]}
    adjectives = {word: i for i, (word, _) in enumerate(ADJECTIVES)}
    found, waiting = set(), []
    for word in source.split():
        if word in adjectives:
            waiting.append(adjectives[word])
        elif word in nouns:
            found |= {(adjective, nouns[word]) for adjective in waiting}
            waiting = []
    return found


def test_the_splits_are_what_they_are_called(training, tests):
    trained = set().union(*(_pairings(pair.source) for pair in training))
    every = {(a, n) for a in range(len(ADJECTIVES)) for n in range(len(NOUNS))}
    unseen = {pairing for pairing in every if is_unseen_pairing(*pairing)}
    assert trained == every - unseen
    assert max(len(pair.source.split()) for pair in training) <= LONGEST
    for split, pairs in tests.items():
        for pair in pairs:
            assert bool(_pairings(pair.source) & unseen) == (split == "unseen_combinations")
            assert (len(pair.source.split()) > LONGEST) == (split == "longer")


def test_training_has_every_word_that_is_tested(training, tests):
    for side in ("source", "target"):
        known = Counter(word for pair in training for word in getattr(pair, side).split())
        assert min(known.values()) >= 10
        assert {word for pairs in tests.values() for pair in pairs for word in getattr(pair, side).split()} <= set(
            known
        )


@given(st.integers(0, 2**31 - 1), st.integers(0, 30))
def test_any_part_of_the_stream_can_be_made_again(seed, index):
    whole = list(translations(seed, index + 1))
    assert whole[: index + 1] == list(translations(seed, index + 1))
    assert whole[index // 2] == list(translations(seed, index // 2 + 1))[-1]


def test_the_text_is_fixed_by_the_seed():
    assert [pair.source for pair in translations(1, 2)] == FIRST
    assert translation_tests(1, "iid", 8) != translation_tests(2, "iid", 8)
    assert translation_tests(1, "iid", 8) == translation_tests(1, "iid", 40)[:8]
    assert translation_validation(1, 8) == translation_validation(1, 40)[:8] != translation_validation(2, 8)
    with pytest.raises(ValueError, match="no split 'train'"):
        translation_tests(1, "train", 1)


FIRST = [
    "some small kings did not love these hungry birds that work "
    "because every clever young baker danced in the forest .",
    "do some friends love every hungry cat ?",
]


def test_words_of_the_two_languages_differ():
    sources = {word for place, _ in PLACES for word in place.split()} | {word for word, _ in NOUNS + ADJECTIVES}
    targets = {word for _, word in PLACES} | {root for _, root in NOUNS + ADJECTIVES}
    assert not sources & targets
