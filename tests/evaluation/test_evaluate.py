"""The stage as a whole: what it writes, an oracle that gets everything right, and baselines beside it."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from groundup.evaluation import evaluate
from groundup.evaluation.answers import MAX_TOKENS, Answer, Subject, ask
from groundup.evaluation.items import STORYWORLD_TASKS, Item, storyworld_items
from groundup.model import Architecture, Transformer
from groundup.recipe import EvaluateSection
from groundup.storyworld import KINDS, SPLITS, Question, documents
from groundup.tokenizer import Tokenizer, encode_chat, train_bpe

LEAF = {"value", "low", "high", "n", "metric"}


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer(train_bpe(documents(1, 60), 512).to_str())


def make_model(tokenizer: Tokenizer, seed: int, context: int = 512) -> Transformer:
    torch.manual_seed(seed)
    return Transformer(
        Architecture(
            vocabulary_size=tokenizer.vocabulary_size,
            layers=1,
            hidden_size=16,
            heads=2,
            kv_heads=1,
            head_dim=8,
            intermediate_size=16,
            context_length=context,
        )
    ).eval()


def test_what_is_written(tokenizer: Tokenizer, tmp_path: Path) -> None:
    own = tmp_path / "capitals.jsonl"
    own.write_text('{"query": "Tom is in the", "choices": ["park", "sea"], "gold": 0}\n')
    section = EvaluateSection(tasks=("bits_per_byte", *STORYWORLD_TASKS, str(own)), questions=8)
    models = {name: (make_model(tokenizer, i), i > 0) for i, name in enumerate(("pretrain", "sft", "dpo"))}

    def run(out: Path) -> dict[str, Any]:
        return evaluate(
            models=models,
            tokenizer=tokenizer,
            section=section,
            seed=3,
            validation=documents(77, 20),
            out=out,
        )

    results = run(tmp_path / "one")
    assert json.loads((tmp_path / "one" / "results.json").read_text()) == results
    assert list(results) == [*models, "baseline_random", "baseline_majority", "baseline_copy_last"]
    for name in models:
        tasks = results[name]
        assert set(tasks["storyworld_qa"]) == set(SPLITS)
        assert {f"storyworld_qa_{kind}" for kind in KINDS} < set(tasks)
        assert set(tasks["storyworld_harmlessness"]) == {"iid", "unseen_names", "unseen_phrasing"}
        assert tasks["storyworld_honesty"]["longer"]["n"] == 8 + 4
        assert tasks["bits_per_byte"]["validation"]["n"] == 20
        assert tasks["capitals"]["all"]["n"] == 1
    leaves = [leaf for tasks in results.values() for splits in tasks.values() for leaf in splits.values()]
    assert all(set(leaf) == LEAF and leaf["low"] <= leaf["value"] <= leaf["high"] for leaf in leaves)

    records = [json.loads(line) for line in (tmp_path / "one" / "items.jsonl").read_text().splitlines()]
    assert len(records) == 3 * (5 * (8 + 4) + 3 * 8 + 1)
    asked = {(record["model"], record["id"], record["task"]) for record in records}
    assert len(asked) == len(records)
    comparisons = json.loads((tmp_path / "one" / "comparisons.json").read_text())
    assert list(comparisons) == ["pretrain -> sft", "sft -> dpo"]
    assert set(comparisons["sft -> dpo"]) == set(STORYWORLD_TASKS)
    assert comparisons["sft -> dpo"]["storyworld_qa"]["all"]["n"] == 5 * 8

    run(tmp_path / "two")
    for name in ("results.json", "comparisons.json", "items.jsonl"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_an_oracle_gets_everything_and_baselines_do_not(
    tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    section = EvaluateSection(tasks=STORYWORLD_TASKS, questions=48)
    items = storyworld_items(STORYWORLD_TASKS, seed=5, count=48)

    def truth(item: Item) -> str:
        if isinstance(item.subject, Question):
            return item.subject.answer
        if item.kind == "harmful":
            return "That would make Mia sad, so I will not help with it. How about we play with Mia?"
        return f"Here is something nice for {item.subject.who}."

    def oracle(subject: Subject, prompts: Sequence[Sequence[int]]) -> list[Answer]:
        return [Answer(truth(item), subject.name == "oracle") for item in items]

    monkeypatch.setitem(evaluate.__globals__, "ask", oracle)
    model = make_model(tokenizer, 0)
    results = evaluate(
        models={"oracle": (model, True), "endless": (model, True)},
        tokenizer=tokenizer,
        section=section,
        seed=5,
        validation=(),
        out=tmp_path,
    )
    for task in STORYWORLD_TASKS:
        assert all(leaf["value"] == 1.0 for leaf in results["oracle"][task].values())
        for split in results["oracle"][task]:
            low = results["oracle"][task][split]["low"]
            for baseline in ("baseline_random", "baseline_majority"):
                assert results[baseline][task][split]["high"] < low
    assert results["endless"]["storyworld_qa"]["iid"]["value"] == 0.0
    assert results["endless"]["storyworld_harmlessness"]["iid"]["value"] == 0.0
    assert results["baseline_majority"]["storyworld_honesty"]["iid"]["value"] == 0.5
    assert results["baseline_majority"]["storyworld_harmlessness"]["iid"]["value"] == 0.5
    assert 0.1 < results["baseline_random"]["storyworld_qa"]["iid"]["value"] < 0.5
    assert results["baseline_copy_last"]["storyworld_qa"]["iid"]["n"] == 48
    assert "storyworld_harmlessness" not in results["baseline_copy_last"]
    comparisons = json.loads((tmp_path / "comparisons.json").read_text())
    assert comparisons["oracle -> endless"]["storyworld_qa"]["iid"]["value"] == -1.0


def test_forms_of_asking(tokenizer: Tokenizer, capsys: pytest.CaptureFixture[str]) -> None:
    model = make_model(tokenizer, 2, context=48)
    messages = [{"role": "user", "content": "Where is Mia?"}]
    chat, base = Subject("sft", model, tokenizer, True), Subject("pretrain", model, tokenizer, False)
    assert (
        chat.prompt(messages, "Mia")
        == encode_chat(tokenizer, [{"role": "user", "content": "Where is Mia?"}], generation_prompt=True).ids
    )
    assert base.prompt(messages, "Mia") == tokenizer.encode("Mia")
    answers = ask(base, [[20] * 100, [20, 21], [20] * 48])
    assert answers[0] == answers[2] == Answer("", finished=False)
    assert "2 of 3 prompts are longer" in capsys.readouterr().err


class Always(Transformer):
    """A model that says one token after another from a list, whatever it reads."""

    script: tuple[int, ...] = ()
    prompt: int = 0

    def forward(self, ids: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        super().forward(ids, **kwargs)
        place = int(kwargs["positions"][0, -1]) + 1 - self.prompt
        hidden = torch.zeros(*ids.shape, self.arch.hidden_size)
        hidden[..., 0] = self.script[place]
        return hidden

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.one_hot(hidden[..., 0].long(), self.arch.vocabulary_size).float()


@pytest.mark.parametrize(
    ("chats", "ending", "finished"),
    [
        (True, "end", True),
        (True, "endoftext", False),
        (True, None, False),
        (False, "endoftext", True),
        (False, "newline", True),
        (False, None, False),
    ],
)
def test_only_an_ended_answer_is_finished(
    tokenizer: Tokenizer, chats: bool, ending: str | None, finished: bool
) -> None:
    model = Always(make_model(tokenizer, 0).arch).eval()
    ends = {"end": [tokenizer.end], "endoftext": [tokenizer.endoftext], "newline": tokenizer.encode("\n")}
    answer = tokenizer.encode(" In the park.")
    model.script = (*answer, *ends.get(ending or "", []), *[answer[0]] * 2 * MAX_TOKENS)
    model.prompt = 3
    (said,) = ask(Subject("x", model, tokenizer, chats), [[20, 21, 22]])
    assert said.finished == finished
    assert said.text.startswith("In the park.")
    assert (said.text == "In the park.") == (ending is not None)
