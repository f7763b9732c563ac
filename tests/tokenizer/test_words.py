"""The vocabulary of whole words, characters or bytes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from groundup.run import UserError
from groundup.tokenizer.words import EOS, UNKNOWN, WordVocabulary, load_vocabularies, save_vocabularies

texts = st.text(st.characters(exclude_categories=("Cs",)), max_size=40)


def test_the_most_frequent_words_have_ids_and_ties_are_alphabetical():
    vocabulary = WordVocabulary.learn("words", ["b a c", "b d a", "e b"], 8)
    assert vocabulary.known == ("b", "a", "c", "d")
    assert len(vocabulary) == 8
    assert vocabulary.encode("a  e\tb") == [5, UNKNOWN, 4]
    assert vocabulary.decode([5, UNKNOWN, 4, EOS, 4]) == "a <unk> b"


@given(st.lists(texts, min_size=1, max_size=5))
def test_what_was_learnt_comes_back(lines):
    words = WordVocabulary.learn("words", lines, 10_000)
    characters = WordVocabulary.learn("characters", lines, 10_000)
    for line in lines:
        assert words.decode(words.encode(line)) == " ".join(line.split())
        assert characters.decode(characters.encode(line)) == line
        assert WordVocabulary("bytes").decode(WordVocabulary("bytes").encode(line)) == line


@given(texts)
def test_no_text_gives_a_special_id(text):
    for unit in ("words", "characters", "bytes"):
        vocabulary = WordVocabulary.learn(unit, [text, "<eos> <pad> <bos>"], 10_000)
        assert all(number >= UNKNOWN for number in vocabulary.encode(f"{text} <eos> <pad> <bos>"))


@pytest.mark.parametrize("unit", ["words", "characters", "bytes"])
def test_a_saved_vocabulary_is_the_same(unit, tmp_path):
    source = WordVocabulary.learn(unit, ["the dog sees é 犬", "a"], 100)
    target = WordVocabulary.learn(unit, ["bano"], 100)
    save_vocabularies(source, target, tmp_path / "vocabulary.json")
    for before, after in zip((source, target), load_vocabularies(tmp_path / "vocabulary.json"), strict=True):
        assert (before.unit, before.known, len(before)) == (after.unit, after.known, len(after))


@pytest.mark.parametrize("content", ["[]", '{"source": {}}', "no", '{"source": {"unit": "lines", "specials": []}}'])
def test_another_file_is_refused(content, tmp_path):
    (tmp_path / "vocabulary.json").write_text(content)
    with pytest.raises(UserError, match="holds no vocabularies"):
        load_vocabularies(tmp_path / "vocabulary.json")


def test_entries_must_differ():
    with pytest.raises(ValueError, match="twice"):
        WordVocabulary("words", ["a", "a"])
