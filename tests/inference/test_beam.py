"""Beam search: greedy at one, exhaustive where wide enough, and no different in a batch."""

import itertools
import math

import pytest
import torch

from groundup.inference import Translator, beam_search
from groundup.inference.beam import length_penalty
from groundup.model import EncoderDecoder, EncoderDecoderArchitecture, initialise_encoder_decoder
from groundup.run import UserError
from groundup.tokenizer.words import WordVocabulary

PAD, BOS, EOS = 0, 1, 2
VOCABULARY = 6
SOURCES = [[4, 5, 3, EOS], [5, EOS], [3, 3, 4, 5, 4, EOS]]


def made(seed: int, vocabulary: int = VOCABULARY, sharp: float = 3.0) -> EncoderDecoder:
    """A random model whose words differ enough in probability for searches to go different ways."""
    arch = EncoderDecoderArchitecture(
        layers=1,
        hidden_size=16,
        heads=2,
        intermediate_size=32,
        context_length=16,
        source_vocabulary=vocabulary,
        target_vocabulary=vocabulary,
        embeddings="separate",
    )
    model = EncoderDecoder(arch)
    initialise_encoder_decoder(model, seed)
    with torch.no_grad():
        model.lm_head.weight.mul_(sharp)
    return model.double().eval()


def search(model: EncoderDecoder, sources, **options):
    return beam_search(model, sources, begin=BOS, end=EOS, never=(PAD, BOS), **options)


def logprob(model: EncoderDecoder, source: list[int], target: list[int]) -> float:
    """Of a target with its end mark, by one pass without a cache; the words that are never said don't count."""
    hidden = model(torch.tensor([source]), torch.tensor([[BOS, *target[:-1]]]))
    logits = model.logits(hidden)[0]
    logits[:, [PAD, BOS]] = float("-inf")
    return logits.log_softmax(-1)[range(len(target)), target].sum().item()


def exhaustive(model: EncoderDecoder, source: list[int], longest: int, alpha: float) -> list[tuple[float, list[int]]]:
    """Every target of up to so many words, its end mark counted, best first."""
    found = []
    for length in range(longest):
        for words in itertools.product(range(3, VOCABULARY), repeat=length):
            target = [*words, EOS]
            found.append((logprob(model, source, target) / length_penalty(len(target), alpha), target))
    return sorted(found, reverse=True)


@pytest.mark.parametrize("alpha", [0.0, 0.6, 2.0])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_beam_wide_enough_finds_what_exhaustive_search_finds(seed, alpha):
    model = made(seed)
    longest = 4
    for source in SOURCES:
        wanted = exhaustive(model, source, longest, alpha)[:5]
        found = search(model, [source], beam=120, alpha=alpha, n_best=5, extra=longest - len(source))[0]
        assert [list(each.ids) for each in found] == [target for _, target in wanted]
        assert [each.score for each in found] == pytest.approx([score for score, _ in wanted], abs=1e-9)
        assert all(each.finished for each in found)


@pytest.mark.parametrize("seed", range(6))
def test_a_beam_of_one_is_greedy(seed):
    model = made(seed)
    for source, found in zip(SOURCES, search(model, SOURCES, beam=1, extra=5), strict=True):
        limit, said = min(16, len(source) + 5), []
        while len(said) < limit and EOS not in said:
            hidden = model(torch.tensor([source]), torch.tensor([[BOS, *said]]))
            logits = model.logits(hidden[0, -1])
            logits[[PAD, BOS]] = float("-inf")
            said.append(int(logits.argmax()))
        assert list(found[0].ids) == said
        assert found[0].finished == (said[-1] == EOS)


def test_a_wider_beam_finds_what_greedy_search_misses():
    """With some random model at least."""
    better = 0
    for seed in range(12):
        model = made(seed)
        for narrow, wide in zip(
            search(model, SOURCES, beam=1, alpha=0, extra=3),
            search(model, SOURCES, beam=8, alpha=0, extra=3),
            strict=True,
        ):
            if narrow[0].finished and wide[0].finished:
                better += wide[0].logprob > narrow[0].logprob + 1e-9
    assert better > 0


class Told(EncoderDecoder):
    """A model that says what it is told: by the words so far the probabilities of the next one, or the end.

    Rows move about in a beam; so that each knows its words, they stand in the memory in place of keys.
    """

    def __init__(self, following: dict[tuple[int, ...], dict[int, float]]) -> None:
        super().__init__(made(1).arch)
        self.following = following

    def decode(self, target, memory):
        keys = target[:, None, :, None].double()
        words, _ = memory.extend(0, (keys, keys))
        rows = []
        for ids in words[:, 0, 1:, 0].long().tolist():
            given = self.following.get(tuple(ids), {EOS: 1.0})
            rows.append([given.get(word, 1e-9) for word in range(VOCABULARY)])
        return torch.tensor(rows, dtype=torch.float64).log()[:, None]

    def logits(self, hidden):
        return hidden


def test_unlikely_ends_do_not_cut_the_likeliest_translation_short():
    """The sure path 3 4 5 3 4 has a probability of 0.6; at each of its words another beginning of 0.1 ends at once."""
    path = [3, 4, 5, 3, 4]
    following = {tuple(path[:at]): {word: 0.9, 3 + (word - 2) % 3: 0.1} for at, word in enumerate(path)}
    found = search(Told(following).eval(), [[4, EOS]], beam=2, alpha=0.6)[0][0]
    assert list(found.ids) == [*path, EOS]
    assert found.logprob == pytest.approx(5 * math.log(0.9), abs=1e-6)
    others = search(Told(following).eval(), [[4, EOS]], beam=4, alpha=0.0, n_best=4)[0]
    assert list(others[0].ids) == [*path, EOS]


@pytest.mark.parametrize("batch_size", [1, 2, 8])
def test_what_else_is_in_the_batch_changes_nothing(batch_size):
    model = made(4)
    sources = [*SOURCES, [5, 5, EOS], [4, EOS]]
    alone = [search(model, [source], beam=3, n_best=3)[0] for source in sources]
    done: list[int] = []
    together = search(model, sources, beam=3, n_best=3, batch_size=batch_size, on_done=done.append)
    assert sum(done) == len(sources)
    for one, other in zip(alone, together, strict=True):
        assert [each.ids for each in one] == [each.ids for each in other]
        assert [each.logprob for each in one] == pytest.approx([each.logprob for each in other], abs=1e-9)


def test_a_hypothesis_carries_its_own_probability_and_score():
    model = made(5)
    for source, found in zip(SOURCES, search(model, SOURCES, beam=4, n_best=4, alpha=0.6), strict=True):
        for each in found:
            assert each.ids.count(EOS) == each.finished
            assert PAD not in each.ids
            assert BOS not in each.ids
            if each.finished:
                assert each.logprob == pytest.approx(logprob(model, source, list(each.ids)), abs=1e-9)
            assert each.score == pytest.approx(each.logprob / ((5 + len(each.ids)) / 6) ** 0.6)
        assert [each.score for each in found if each.finished] == sorted(
            (each.score for each in found if each.finished), reverse=True
        )


def test_one_that_never_ends_is_cut_and_says_so():
    model = made(1)
    with torch.no_grad():
        model.lm_head.weight[EOS] = 0
        model.lm_head.weight[3:] = model.decoder.layers[0].mlp_layer_norm.weight * 0
        model.decoder.layers[0].mlp_layer_norm.bias.fill_(1.0)
        model.lm_head.weight[EOS] = -5.0
    found = search(model, [[4, EOS]], beam=2, extra=3)[0]
    assert len(found[0].ids) == 5
    assert not found[0].finished


def test_what_cannot_be_searched_is_refused():
    with pytest.raises(UserError, match="17 words"):
        search(made(1), [[4] * 16 + [EOS]])
    with pytest.raises(UserError, match="0 words"):
        search(made(1), [[]])
    with pytest.raises(ValueError, match="n_best"):
        search(made(1), SOURCES, beam=2, n_best=3)


def translator(seed: int = 1) -> Translator:
    source, target = WordVocabulary("words", ["dog", "cat"]), WordVocabulary("words", ["bano", "miru", "."])
    arch = EncoderDecoderArchitecture(
        layers=1,
        hidden_size=16,
        heads=2,
        context_length=16,
        source_vocabulary=len(source),
        target_vocabulary=len(target),
        embeddings="tied",
    )
    model = EncoderDecoder(arch)
    initialise_encoder_decoder(model, seed)
    return Translator(model.eval(), source, target)


def test_a_saved_translator_translates_the_same(tmp_path):
    before = translator()
    before.save(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "model.safetensors", "vocabulary.json"]
    after = Translator.load(tmp_path)
    texts = ["dog", "cat dog", "the dog"]
    assert after.translate(texts, n_best=2) == before.translate(texts, n_best=2)
    assert after.unknown_words("the  dog and the cat") == ["the", "and"]


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "vocabulary.json"])
def test_a_translator_with_a_file_missing_or_broken_is_refused(name, tmp_path):
    translator().save(tmp_path)
    (tmp_path / name).write_text("{}")
    with pytest.raises(UserError) as broken:
        Translator.load(tmp_path)
    assert name in str(broken.value)
    (tmp_path / name).unlink()
    with pytest.raises(UserError, match=f"no {name}"):
        Translator.load(tmp_path)


def test_weights_of_another_shape_are_named(tmp_path):
    translator().save(tmp_path)
    config = (tmp_path / "config.json").read_text()
    (tmp_path / "config.json").write_text(config.replace('"layers": 1', '"layers": 2'))
    with pytest.raises(UserError, match=r"encoder\.layers\.1"):
        Translator.load(tmp_path)
    (tmp_path / "config.json").write_text(config.replace('"source_vocabulary": 6', '"source_vocabulary": 7'))
    with pytest.raises(UserError, match="vocabularies of 6"):
        Translator.load(tmp_path)
