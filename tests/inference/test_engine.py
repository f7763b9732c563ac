"""The engine: cache, batching, sampling and stops against the plainest way to do each."""

import dataclasses
import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from groundup.inference import SamplingParams, generate, stream
from groundup.inference.sampling import draw, truncate
from groundup.inference.text import TextStream
from groundup.model import Architecture, Transformer, token_logprobs
from groundup.run import UserError
from groundup.tokenizer import Tokenizer, train_bpe

ARCH = Architecture(
    vocabulary_size=300,
    layers=2,
    hidden_size=32,
    heads=4,
    kv_heads=2,
    head_dim=8,
    intermediate_size=48,
    context_length=64,
)
PROMPTS = [[7, 8, 9], [20], list(range(30, 47)), [5] * 9, [40, 41], [299, 0, 17, 18], [7, 8, 9]]


def random_model(arch: Architecture = ARCH, spread: float = 0.25) -> Transformer:
    torch.manual_seed(3)
    model = Transformer(arch)
    with torch.no_grad():
        for weight in model.parameters():
            weight.normal_(1.0 if weight.ndim == 1 else 0.0, spread)
    return model.eval()


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    texts = ["Mia went to the park. 😀 世界\n"] * 2
    return Tokenizer(train_bpe(texts, 300).to_str())


@torch.no_grad()
def greedy_without_cache(model: Transformer, prompt: list[int], count: int) -> list[int]:
    ids = list(prompt)
    for _ in range(count):
        ids.append(int(model.logits(model(torch.tensor([ids]))[:, -1]).argmax()))
    return ids[len(prompt) :]


@pytest.mark.parametrize(
    "change", [{}, {"kv_heads": 4}, {"kv_heads": 1}, {"positions": "learned"}, {"positions": "sinusoidal"}]
)
def test_greedy_with_cache_and_batch_is_greedy_without(change: dict[str, Any]) -> None:
    model = random_model(ARCH.replace(**change))
    wanted = [greedy_without_cache(model, prompt, 12) for prompt in PROMPTS]
    params = SamplingParams(max_tokens=12)
    assert [c.ids for c in generate(model, PROMPTS, params)] == wanted
    assert [c.ids for c in generate(model, PROMPTS, params, batch_size=2)] == wanted
    assert [generate(model, [prompt], params)[0].ids for prompt in PROMPTS] == wanted
    assert len({tuple(ids) for ids in wanted}) > 3  # else the test says little


def test_weights_decide_the_dtype() -> None:
    model = random_model().to(torch.bfloat16)
    completions = generate(model, PROMPTS, SamplingParams(max_tokens=8, temperature=0.8, seed=1))
    assert all(len(completion.ids) == 8 for completion in completions)
    assert all(math.isfinite(each) for completion in completions for each in completion.logprobs)


def test_rows_that_end_leave_the_others_alone() -> None:
    model = random_model()
    every = [SamplingParams(max_tokens=3 * i + 1, temperature=0.9, seed=i) for i in range(len(PROMPTS))]
    together = generate(model, PROMPTS, every)
    alone = [generate(model, [prompt], each)[0] for prompt, each in zip(PROMPTS, every, strict=True)]
    assert [c.ids for c in together] == [c.ids for c in alone]
    assert [len(c.ids) for c in together] == [3 * i + 1 for i in range(len(PROMPTS))]
    assert {c.finish_reason for c in together} == {"length"}


def test_seed_decides_and_only_seed() -> None:
    model = random_model()
    params = SamplingParams(max_tokens=10, temperature=1.2, seed=4, top_p=0.95)
    first = generate(model, PROMPTS, params)
    assert [c.ids for c in first] == [c.ids for c in generate(model, PROMPTS, params)]
    assert first[0].ids == first[-1].ids  # equal prompt, equal seed
    other = generate(model, PROMPTS, dataclasses.replace(params, seed=5))
    assert sum(a.ids != b.ids for a, b in zip(first, other, strict=True)) >= 5


@pytest.mark.parametrize("temperature", [0.7, 1.0])
def test_sampler_logprob_is_model_logprob(temperature: float) -> None:
    model = random_model()
    every = [SamplingParams(max_tokens=15, temperature=temperature, seed=i) for i in range(len(PROMPTS))]
    for prompt, completion in zip(PROMPTS, generate(model, PROMPTS, every), strict=True):
        ids = torch.tensor(prompt + completion.ids)
        with torch.no_grad():
            hidden = model(ids[None, :-1])[0, len(prompt) - 1 :]
        wanted = token_logprobs(hidden, model.head_weight, ids[len(prompt) :], temperature)
        assert (torch.tensor(completion.logprobs) - wanted).abs().max() < 1e-4


def test_greedy_and_truncated_logprobs() -> None:
    model = random_model()
    greedy = generate(model, [[7, 8]], SamplingParams(max_tokens=1))[0]
    with torch.no_grad():
        logits = model.logits(model(torch.tensor([[7, 8]]))[0, -1])
    assert greedy.logprobs[0] == pytest.approx(float(logits.log_softmax(-1).max()), abs=1e-5)
    two = [SamplingParams(max_tokens=1, temperature=0.5, top_k=2, seed=i) for i in range(64)]
    drawn = {c.ids[0]: c.logprobs[0] for c in generate(model, [[7, 8]] * 64, two)}
    best = logits.topk(2)
    expected = (best.values / 0.5).log_softmax(-1).tolist()
    assert set(drawn) <= set(best.indices.tolist())
    for token, logprob in drawn.items():
        assert logprob == pytest.approx(expected[best.indices.tolist().index(token)], abs=1e-5)


def test_samples_follow_the_distribution() -> None:
    """Pearson's chi-square over 20,000 draws; the statistic is near its degrees of freedom."""
    model = random_model(ARCH.replace(vocabulary_size=24), spread=0.2)
    count, temperature = 20_000, 0.8
    every = [SamplingParams(max_tokens=1, temperature=temperature, seed=i) for i in range(count)]
    drawn = [c.ids[0] for c in generate(model, [[3, 1, 2]] * count, every, batch_size=4000)]
    with torch.no_grad():
        expected = (model.logits(model(torch.tensor([[3, 1, 2]]))[0, -1]) / temperature).softmax(-1) * count
    assert expected.min() > 5
    observed = torch.bincount(torch.tensor(drawn), minlength=24)
    statistic = float(((observed - expected) ** 2 / expected).sum())
    freedom = 23  # Wilson and Hilferty: (statistic / freedom)^(1/3) is close to normal
    scale = 2 / (9 * freedom)
    assert abs(((statistic / freedom) ** (1 / 3) - (1 - scale)) / math.sqrt(scale)) < 3.3


def test_nothing_after_a_stop() -> None:
    model = random_model()
    free = generate(model, PROMPTS, SamplingParams(max_tokens=20))
    stop = free[0].ids[4]
    assert free[0].ids.index(stop) == 4
    for before, after in zip(
        free, generate(model, PROMPTS, SamplingParams(max_tokens=20, stop_ids=(stop,))), strict=True
    ):
        if stop in before.ids:
            assert after.ids == before.ids[: before.ids.index(stop) + 1]
            assert after.finish_reason == "stop"
        else:
            assert (after.ids, after.finish_reason) == (before.ids, "length")
        assert len(after.logprobs) == len(after.ids)


def test_stop_strings_and_stream(tokenizer: Tokenizer) -> None:
    model = random_model(spread=0.1)
    for seed in range(12):
        params = SamplingParams(max_tokens=40, temperature=1.5, seed=seed)
        free = generate(model, [[20, 21]], params, tokenizer=tokenizer)[0]
        assert "".join(stream(model, tokenizer, [20, 21], params)) == free.text
        if len(free.text) < 8 or "\ufffd" in free.text[5:7]:
            continue
        cut = dataclasses.replace(params, stop=("never there", free.text[5:7]))
        stopped = generate(model, [[20, 21]], cut, tokenizer=tokenizer)[0]
        assert stopped.text == free.text[: free.text.index(free.text[5:7])]
        assert stopped.finish_reason == "stop"
        assert "".join(stream(model, tokenizer, [20, 21], cut)) == stopped.text


def test_context_is_the_limit(tokenizer: Tokenizer) -> None:
    model = random_model()
    completion = generate(model, [[9] * 60], SamplingParams(max_tokens=50))[0]
    assert (len(completion.ids), completion.finish_reason) == (4, "length")
    for prompt, message in (([9] * 64, "context is 64"), ([], "empty prompt")):
        with pytest.raises(UserError, match=message):
            generate(model, [[1], prompt], SamplingParams())
        with pytest.raises(UserError, match=message):
            stream(model, tokenizer, prompt, SamplingParams())
    with pytest.raises(ValueError, match="need the tokenizer"):
        generate(model, [[1]], SamplingParams(stop=("x",)))
    with pytest.raises(ValueError, match="2 params for 1 prompts"):
        generate(model, [[1]], [SamplingParams()] * 2)


def test_ids_beyond_the_tokenizer_never_come(tokenizer: Tokenizer) -> None:
    model = random_model(ARCH.replace(vocabulary_size=400))
    every = [SamplingParams(max_tokens=30, temperature=3.0, seed=i) for i in range(8)]
    for completion in generate(model, [[20]] * 8, every, tokenizer=tokenizer):
        assert max(completion.ids) < tokenizer.vocabulary_size


def test_repetition_penalty() -> None:
    model = random_model()
    free = generate(model, [[7, 8]], SamplingParams(max_tokens=40))[0].ids
    held = generate(model, [[7, 8]], SamplingParams(max_tokens=40, repetition_penalty=1e6))[0].ids
    assert len(set(held)) == 40 > len(set(free))
    assert not {7, 8} & set(held)


@pytest.mark.parametrize(
    "wrong", [{"temperature": -1}, {"top_p": 0}, {"top_k": -1}, {"min_p": 2}, {"max_tokens": 0}, {"stop": ("",)}]
)
def test_params_out_of_range(wrong: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=next(iter(wrong))):
        SamplingParams(**wrong)


def truncate_by_hand(probabilities: list[float], top_k: int, top_p: float, min_p: float) -> set[int]:
    order = sorted(range(len(probabilities)), key=lambda i: -probabilities[i])
    order = order[: top_k or len(order)]
    total = sum(probabilities[i] for i in order)
    kept, mass = [], 0.0
    for i in order:
        if kept and top_p < 1 and mass >= top_p:
            break
        kept.append(i)
        mass += probabilities[i] / total
    return {i for i in kept if probabilities[i] >= min_p * probabilities[order[0]]}


@given(
    st.permutations([0.001, 0.02, 0.05, 0.1, 0.17, 0.259, 0.4]),
    st.integers(0, 8),
    st.sampled_from([0.1, 0.39, 0.5, 0.75, 0.9, 0.995, 1.0]),
    st.sampled_from([0.0, 0.03, 0.2, 0.5, 1.0]),
)
@settings(max_examples=150, deadline=None)
def test_truncation(probabilities: list[float], top_k: int, top_p: float, min_p: float) -> None:
    logits = torch.tensor([probabilities]).log()
    cut = truncate(logits, torch.tensor([top_k]), torch.tensor([top_p]), torch.tensor([min_p]))
    kept = {i for i in range(7) if cut[0, i] > float("-inf")}
    assert kept == truncate_by_hand(probabilities, top_k, top_p, min_p)


def test_draw_never_takes_the_impossible() -> None:
    logits = torch.tensor([[float("-inf"), 0.0, float("-inf"), 0.0, float("-inf")]]).repeat(4, 1)
    noise = torch.tensor([0.0, 0.49, 0.5, 1 - 2**-53], dtype=torch.float64)
    assert draw(logits, noise).tolist() == [1, 1, 3, 3]


@given(st.text(max_size=30), st.lists(st.text(min_size=1, max_size=4), max_size=3), st.data())
@settings(max_examples=200, deadline=None)
def test_text_stream(text: str, stop: list[str], data: st.DataObject) -> None:
    content = text.encode()
    pieces = TextStream(stop)
    given_out = ""
    while content:
        size = data.draw(st.integers(1, 5))
        piece = pieces.feed(content[:size])
        assert "\ufffd" not in piece or "\ufffd" in text
        given_out += piece
        content = content[size:]
    given_out += pieces.feed(b"", last=True)
    ends = [(text.find(each) + len(each), text.find(each)) for each in stop if each in text]
    assert given_out == pieces.text
    assert given_out == (text[: min(ends)[1]] if ends else text)
    assert pieces.stopped == bool(ends)


@pytest.mark.parametrize("sizes", [[4], [1, 1, 1, 1], [3, 1], [2, 2]])
def test_the_stop_that_is_complete_first_wins(sizes: list[int]) -> None:
    pieces, text = TextStream(("abcd", "c")), b"abcd"
    for size in sizes:
        pieces.feed(text[:size])
        text = text[size:]
    assert pieces.text == "ab"


def test_broken_characters_are_shown_at_the_end_only() -> None:
    pieces = TextStream()
    assert pieces.feed("😀".encode()[:3]) == ""
    assert pieces.feed("😀".encode()[3:]) == "😀"
    assert pieces.feed(b"\xe4\xb8") == ""
    assert pieces.feed(b"", last=True) == "\ufffd"
