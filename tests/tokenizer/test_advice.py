"""Advice on the size of a vocabulary: the curve against encoders cut short, the optimum against closed forms."""

import gzip
import json
from pathlib import Path

import numpy as np
import pytest

from groundup.model import Architecture, flops_per_token
from groundup.tokenizer import Tokenizer, advice, train_bpe
from groundup.tokenizer.advice import advise, extrapolate, token_curve

TEXTS = [path.read_text(encoding="utf-8") for path in sorted(Path(__file__).parent.glob("test_*.py"))]
TEXTS += ["aaaa aaa aaaaaaa banana bananas 世界世界 世 😀😀 Ünïcödé ünïcödé"] * 5
ARCH = Architecture(
    vocabulary_size=32_768, layers=4, hidden_size=128, heads=4, kv_heads=4, head_dim=32, intermediate_size=344,
    context_length=256,
)  # fmt: skip


def shortened(tokenizer: Tokenizer, merges: int) -> Tokenizer:
    """The tokenizer with its first merges only, as a file of its own."""
    content = json.loads(tokenizer.json)
    kept = content["model"]["merges"][:merges]
    made = {"".join(pair.split(" ") if isinstance(pair, str) else pair) for pair in content["model"]["merges"]}
    keep = {"".join(pair.split(" ") if isinstance(pair, str) else pair) for pair in kept}
    content["model"]["merges"] = kept
    vocabulary = content["model"]["vocab"]
    content["model"]["vocab"] = {token: place for token, place in vocabulary.items() if token not in made - keep}
    return Tokenizer(json.dumps(content))


def counted(tokenizer: Tokenizer, texts: list[str]) -> np.ndarray:
    ids = np.concatenate([np.array(ids, np.int64) for ids in tokenizer.encode_batch(texts)])
    return np.bincount(ids, minlength=tokenizer.vocabulary_size)


def curve_of(tokenizer: Tokenizer, texts: list[str]):
    tokens = [tokenizer.token(number) for number in range(tokenizer.vocabulary_size)]
    return token_curve(counted(tokenizer, texts), tokens, tokenizer.merges())


@pytest.fixture(scope="module")
def trained() -> Tokenizer:
    return Tokenizer(train_bpe(TEXTS, 1200).to_str())


def head_share(arch: Architecture, context: int) -> float:
    """The output head's part of all training FLOPs, from 0 to 1; see `flops_per_token`."""
    whole = flops_per_token(arch, context)
    return arch.vocabulary_size * 6 * arch.hidden_size / whole


def test_undoing_merges_is_encoding_with_fewer(trained: Tokenizer) -> None:
    curve = curve_of(trained, TEXTS)
    merges = trained.merges()
    assert curve.exact
    assert curve.sizes.tolist() == list(range(272, trained.vocabulary_size + 1))
    assert curve.tokens[0] == sum(len(text.encode()) for text in TEXTS)
    for count in (0, 1, 2, 3, 50, 51, 400, len(merges) - 1, len(merges)):
        cut = shortened(trained, count)
        assert curve.tokens[count] == sum(map(len, cut.encode_batch(TEXTS)))
        assert curve.sizes[count] == cut.vocabulary_size


def test_a_vocabulary_cut_short_is_the_one_learned_at_that_size(trained: Tokenizer) -> None:
    curve = curve_of(trained, TEXTS)
    for size in (300, 512, 900):
        small = Tokenizer(train_bpe(TEXTS, size).to_str())
        assert small.merges() == trained.merges()[: size - 272]
        assert curve.tokens[size - 272] == sum(map(len, small.encode_batch(TEXTS)))


def test_the_curve_of_real_text(trained: Tokenizer, real_data: Path) -> None:
    text = gzip.decompress((real_data / "wikitext2" / "valid.txt.gz").read_bytes()).decode()[:200_000]
    curve = curve_of(trained, [text])  # not what the merges were learned from
    for count in (17, 333):
        assert curve.tokens[count] == len(shortened(trained, count).encode(text))


def test_merges_out_of_order_are_said_to_be_inexact() -> None:
    tokens = [b"a", b"b", b"c", b"ab", b"abc", b"bc"]
    counts = np.array([0, 0, 1, 0, 5, 0])
    right = token_curve(counts, tokens, [(b"a", b"b"), (b"ab", b"c"), (b"b", b"c")])
    assert right.exact
    assert right.tokens.tolist() == [16, 11, 6, 6]
    assert not token_curve(counts, tokens, [(b"ab", b"c"), (b"a", b"b")]).exact
    twice = token_curve(counts, tokens, [(b"a", b"b"), (b"b", b"c"), (b"ab", b"c"), (b"a", b"bc")])
    assert not twice.exact


def test_the_heads_share_at_width_128_and_32k_tokens() -> None:
    assert head_share(ARCH, 0) == pytest.approx(32_768 / (32_768 + 4 * (4 * 128 + 3 * 344)))
    assert round(100 * head_share(ARCH, 0)) == 84  # of all matrix products with weights
    assert round(100 * head_share(ARCH, 256)) == 82  # with the attention scores of 256 tokens
    assert round(100 * head_share(ARCH.replace(vocabulary_size=4096), 0)) == 40
    assert round(100 * head_share(ARCH.replace(vocabulary_size=2048), 0)) == 25


def test_the_best_size_is_that_of_a_search_by_hand(trained: Tokenizer) -> None:
    counts = counted(trained, TEXTS)
    size = sum(len(text.encode()) for text in TEXTS)
    found = advise(trained, counts, ARCH, 256)
    present = found["present"]
    assert found["text_bytes"] == size
    assert found["model"] == {"layers": 4, "hidden_size": 128, "context": 256}
    assert present["vocabulary_size"] == trained.vocabulary_size
    assert present["tokens_per_byte"] == counts.sum() / size
    assert not present["extrapolated"]
    for row in [present, found["best"], *found["curve"]]:
        arch = ARCH.replace(vocabulary_size=row["vocabulary_size"])
        assert row["flops_per_byte"] == pytest.approx(flops_per_token(arch, 256) * row["tokens_per_byte"])
        assert row["head_share"] == pytest.approx(head_share(arch, 256))
        assert row["extrapolated"] == (row["vocabulary_size"] > trained.vocabulary_size)
        assert row["flops_per_byte"] >= found["best"]["flops_per_byte"]
    curve = curve_of(trained, TEXTS)
    tiny = ARCH.replace(layers=1, hidden_size=8, heads=1, kv_heads=1, head_dim=8, intermediate_size=8)
    by_hand = [
        flops_per_token(tiny.replace(vocabulary_size=int(size)), 8) * count
        for size, count in zip(curve.sizes, curve.tokens, strict=True)
    ]
    small = advise(trained, counts, tiny, 8)
    assert small["best"]["vocabulary_size"] == curve.sizes[int(np.argmin(by_hand))] < trained.vocabulary_size
    assert small["saved"] == pytest.approx(1 - min(by_hand) / by_hand[-1])
    good = [size for size, flops in zip(curve.sizes, by_hand, strict=True) if flops <= 1.01 * min(by_hand)]
    assert small["as_good"] == [good[0], good[-1]]
    assert not small["open"]


def test_where_no_merge_is_left_nothing_larger_is_advised(trained: Tokenizer) -> None:
    wide = ARCH.replace(hidden_size=4096)
    found = advise(trained, counted(trained, TEXTS), wide, 256, exhausted=True)
    assert found["best"] == found["present"] == found["curve"][-1]
    assert not found["open"]


def test_a_wide_model_wants_more_than_it_has_and_the_answer_is_open(
    trained: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    wide = ARCH.replace(layers=96, hidden_size=12_288, heads=96, kv_heads=96, head_dim=128, intermediate_size=49_152)
    small = shortened(trained, 200)
    found = advise(small, counted(small, TEXTS), wide, 2048)
    assert found["extrapolation"]["missed"] is None  # nothing tells how far off larger sizes would be
    assert found["open"]
    assert found["best"] == found["present"]
    assert found["extrapolation"]["to"] == small.vocabulary_size
    monkeypatch.setattr(advice, "TRUSTED", 1.0)
    found = advise(trained, counted(trained, TEXTS), wide, 2048)
    assert found["best"]["extrapolated"]
    assert found["open"]
    assert found["best"]["vocabulary_size"] == found["extrapolation"]["to"] == 4 * trained.vocabulary_size
    monkeypatch.setattr(advice, "TRUSTED", 0.0)
    assert advise(trained, counted(trained, TEXTS), wide, 2048)["best"]["vocabulary_size"] == trained.vocabulary_size
    ratios = [row["tokens_per_byte"] for row in found["curve"]]
    assert ratios == sorted(ratios, reverse=True)


def test_a_log_quadratic_law_is_extrapolated_exactly() -> None:
    def law(sizes: np.ndarray) -> np.ndarray:
        merges = np.log(sizes - 272)
        return np.exp(0.3 - 0.4 * merges + 0.01 * merges**2)

    sizes, beyond = np.arange(272, 4097), np.array([4097, 5000, 16_384])
    ratios = np.concatenate([[1.0], law(sizes[1:])])
    assert extrapolate(sizes, ratios, beyond) == pytest.approx(law(beyond), rel=1e-9)
    ratios[1:] = np.exp((np.log(sizes[1:] - 272) - np.log(4096 - 272)) ** 2)  # a law that would rise from here on
    assert extrapolate(sizes, ratios, beyond) == pytest.approx([1, 1, 1])


def test_the_extrapolation_says_what_it_would_have_missed(trained: Tokenizer) -> None:
    counts = counted(trained, TEXTS)
    curve = curve_of(trained, TEXTS)
    half = trained.vocabulary_size // 2 - 271
    ratios = curve.tokens / curve.tokens[0]
    foretold = extrapolate(curve.sizes[:half], ratios[:half], curve.sizes[-1:])[0]
    missed = advise(trained, counts, ARCH, 256)["extrapolation"]["missed"]
    assert missed == pytest.approx(foretold / ratios[-1] - 1)
    assert 0 < abs(missed) < 0.1


@pytest.mark.parametrize("merges", [0, 1, 15, 16])
def test_a_vocabulary_of_few_merges(trained: Tokenizer, merges: int) -> None:
    small = shortened(trained, merges)
    found = advise(small, counted(small, TEXTS), ARCH, 256)
    assert found["extrapolation"]["missed"] is None
    assert not found["best"]["extrapolated"]
    assert found["curve"][0]["vocabulary_size"] == 272


def test_no_text_is_refused(trained: Tokenizer) -> None:
    counts = np.zeros(trained.vocabulary_size, np.int64)
    counts[trained.endoftext] = 7
    with pytest.raises(ValueError, match="no text was counted"):
        advise(trained, counts, ARCH, 256)
