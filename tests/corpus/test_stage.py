"""The corpus stage with all its steps: every page accounted for, the same bytes always, and what each step removes."""

import contextlib
import hashlib
import json
import os
import random
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from groundup.corpus import build, build_corpus, phases, read_documents
from groundup.recipe import CorpusSection
from groundup.run import UserError


def section(*paths: Any, **fields: Any) -> CorpusSection:
    return CorpusSection.model_validate({"sources": list(paths), **fields})


def everything(directory: Path) -> set[str]:
    return {document.text for split in ("train", "validation") for document in read_documents(directory, split)}


def sums(directory: Path) -> dict[str, str]:
    files = sorted(path for path in directory.rglob("*") if path.is_file())
    return {str(path.relative_to(directory)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def rows(path: Path, records: list[dict[str, Any]]) -> str:
    path.write_text("\n".join(json.dumps(record) for record in records))
    return str(path)


def prose(number: int, sentences: int = 12) -> str:
    """A text that every filter takes for prose."""
    rng = random.Random(number)
    nouns = ["river", "letter", "garden", "captain", "window", "story", "market", "teacher", "bridge", "winter"]
    verbs = ["crossed", "remembered", "painted", "followed", "opened", "described", "answered", "carried", "found"]
    adjectives = ["quiet", "narrow", "golden", "distant", "careful", "ancient", "bright", "hollow", "patient"]
    lines = []
    for _ in range(sentences):
        a, b, c = rng.choice(nouns), rng.choice(nouns), rng.choice(nouns)
        lines.append(
            f"The {rng.choice(adjectives)} {a} {rng.choice(verbs)} the {rng.choice(adjectives)} {b} and, with "
            f"{rng.randrange(2, 99)} others of the {c}, {rng.choice(verbs)} that {rng.choice(adjectives)} "
            f"{rng.choice(nouns)}."
        )
    return "\n".join(" ".join(lines[start : start + 3]) for start in range(0, sentences, 3))


WEB = {
    "preset": "web",
    "dedup": {"near": {}, "boilerplate": {}},
    "passage_characters": 10**6,
}


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pages of three sites with all that the web preset removes, in eight files."""
    folder = tmp_path_factory.mktemp("web")
    menu = "Home and News and Contact and About and Search and Imprint of this site, all here."
    pages = [{"text": f"{menu}\n{prose(n)}", "url": f"https://site{n % 3}.org/{n}"} for n in range(240)]
    pages += [{"text": prose(n).replace("quiet", "silent", 1), "url": f"https://copy.net/{n}"} for n in range(20)]
    pages += [{"text": prose(1000 + n % 5)} for n in range(10)]
    pages += [{"text": f"Write to jane{n}@example.com today. " + prose(2000 + n)} for n in range(5)]
    pages += [{"text": "kurz und auf Deutsch, und so fort, wie es die Leute hier gern haben. " * 8} for _ in range(3)]
    pages += [{"text": "too short"}, {"text": "buy now " * 200}]
    for number in range(8):
        rows(folder / f"{number}.jsonl", pages[number::8])
    return folder


def test_the_web_preset_accounts_for_every_page(web: Path, tmp_path: Path) -> None:
    metrics = build_corpus(section(str(web), **WEB), seed=1, out=tmp_path / "out")
    funnel = json.loads((tmp_path / "out" / "funnel.json").read_text())["total"]
    steps = {step: tally["documents"] for step, tally in funnel["steps"].items()}
    assert steps["read"] == 280
    assert steps["read"] == steps["kept"] + metrics["rejected"]
    refused = {step: sum(rule["documents"] for rule in rules.values()) for step, rules in funnel["rejections"].items()}
    for before, step in pairwise([step for step in steps if step not in ("train", "validation")]):
        assert steps[step] == steps[before] - refused.get(step, 0), step
    assert refused["language"] == 3
    assert refused["exact_duplicates"] == 5
    assert refused["near_duplicates"] == 20
    assert funnel["edits"]["personal_data/email"] == 5
    poor = sum(refused.get(step, 0) for step in ("gopher_repetition", "gopher_quality", "c4", "fineweb"))
    assert 2 <= poor < 10  # the two that are meant, and what of the prose they take for poor
    assert funnel["edits"]["boilerplate/lines removed"] == 240 - (poor - 2)
    found = everything(tmp_path / "out")
    assert not any("Imprint" in text or "@example" in text for text in found)
    assert sum("<email>" in text for text in found) == 5
    assert {d.language for d in read_documents(tmp_path / "out", "train")} == {"en"}


def test_repeated_lines_stay_in_the_first_document_only(tmp_path: Path) -> None:
    shared = "This line about the harbour of Valmora stands in many documents of the corpus."
    texts = [f"{prose(n)}\n{shared}" for n in range(6)] + [
        shared,
        f"{shared}\nAnd that was all there was to say of it.",
    ]
    source = rows(tmp_path / "rows.jsonl", [{"text": text} for text in texts])
    chosen = section(source, dedup={"lines": {}}, filters={"length": {"min_words": 12}})
    build_corpus(chosen, seed=1, out=tmp_path / "out")
    found = everything(tmp_path / "out")
    assert found == {texts[0], *(prose(n) for n in range(1, 6))}
    funnel = json.loads((tmp_path / "out" / "funnel.json").read_text())["total"]
    refused = {rule: tally["documents"] for rule, tally in funnel["rejections"]["lines"].items()}
    assert refused == {"nothing_left": 1, "length/min_words": 1}
    assert funnel["edits"]["lines/lines removed"] == 7


def test_two_workers_give_the_same_bytes(web: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "LEAST_WORK", 1)
    chosen = section(str(web), **WEB, shard_bytes=2**16)
    for workers in (1, 2):
        build_corpus(chosen, seed=1, out=tmp_path / str(workers), workers=workers)
    assert len(sums(tmp_path / "1")) > 8
    assert sums(tmp_path / "1") == sums(tmp_path / "2")


def test_running_on_its_own_output_changes_nothing(web: Path, tmp_path: Path) -> None:
    build_corpus(section(str(web), **WEB), seed=1, out=tmp_path / "first")
    again = section(str(tmp_path / "first" / "documents"), **WEB)
    metrics = build_corpus(again, seed=1, out=tmp_path / "second")
    assert metrics["rejected"] == 0
    assert everything(tmp_path / "first") == everything(tmp_path / "second")


@pytest.mark.parametrize("phase", ["harvest", "settle", "refine", "pair", "cluster", "write"])
def test_what_is_done_is_not_done_again(web: Path, tmp_path: Path, phase: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A build that dies in any phase goes on from there, to the same bytes."""
    chosen = section(str(web), **WEB, shard_bytes=2**16)
    build_corpus(chosen, seed=1, out=tmp_path / "whole")
    done: list[tuple[str, int]] = []
    real = phases.perform

    def dying(task: dict[str, Any]) -> dict[str, Any]:
        if task["phase"] == phase and (len(done) > 2 or phase == "cluster") and "died" not in os.environ:
            monkeypatch.setenv("died", "1")
            raise KeyboardInterrupt
        done.append((task["phase"], task["index"]))
        return real(task)

    monkeypatch.setattr(build, "perform", dying)
    monkeypatch.delenv("died", raising=False)
    work = tmp_path / "work"
    with pytest.raises(KeyboardInterrupt):
        build_corpus(chosen, seed=1, out=tmp_path / "out", work=work)
    build_corpus(chosen, seed=1, out=tmp_path / "out", work=work)
    assert len(done) == len(set(done))
    assert sums(tmp_path / "out") == sums(tmp_path / "whole")


def test_other_inputs_begin_anew(web: Path, tmp_path: Path) -> None:
    build_corpus(section(str(web)), seed=1, out=tmp_path / "a", work=tmp_path / "work")
    build_corpus(section(str(web), **WEB), seed=1, out=tmp_path / "b", work=tmp_path / "work")
    build_corpus(section(str(web), **WEB), seed=1, out=tmp_path / "c")
    assert sums(tmp_path / "b") == sums(tmp_path / "c")


def test_against_a_finished_corpus(tmp_path: Path) -> None:
    old, new = [{"text": prose(n)} for n in range(20)], [{"text": prose(n)} for n in range(10, 40)]
    new[0]["text"] = new[0]["text"].replace("The quiet", "The silent", 1)
    build_corpus(section(rows(tmp_path / "old.jsonl", old)), seed=1, out=tmp_path / "run" / "corpus")
    dedup = {"near": {}, "against": [str(tmp_path / "run")]}
    metrics = build_corpus(section(rows(tmp_path / "new.jsonl", new), dedup=dedup), seed=1, out=tmp_path / "out")
    assert metrics["read_documents"] == 30
    assert everything(tmp_path / "out") == {prose(n) for n in range(20, 40)}
    missing = section(str(tmp_path / "new.jsonl"), dedup={"against": [str(tmp_path / "nowhere")]})
    with pytest.raises(UserError, match="no finished corpus"):
        build_corpus(missing, seed=1, out=tmp_path / "out")


@pytest.mark.parametrize("keep", ["longest", "first"])
def test_which_near_duplicate_stays(tmp_path: Path, keep: str) -> None:
    text = prose(1, 60)
    source = rows(tmp_path / "rows.jsonl", [{"text": text}, {"text": text + " A last line."}, {"text": prose(2)}])
    build_corpus(section(source, dedup={"near": {"keep": keep}}), seed=1, out=tmp_path / "out")
    kept = text if keep == "first" else text + " A last line."
    assert everything(tmp_path / "out") == {kept, prose(2)}


@pytest.mark.parametrize("remove", ["document", "span", "nothing"])
def test_tests_are_found_and_removed(tmp_path: Path, remove: str) -> None:
    question = (
        "Which of the seven green towers near the old harbour of Valmora was built last, and by whom was it built?"
    )
    clean = [{"text": prose(n)} for n in range(10)]
    source = rows(tmp_path / "rows.jsonl", [*clean, {"text": f"{prose(11)}\n{question.upper()}\n{prose(12)}"}])
    chosen = section(source, decontaminate={"remove": remove})
    build_corpus(chosen, seed=1, out=tmp_path / "out", tests=[("towers", question), ("other", prose(99))])
    funnel = json.loads((tmp_path / "out" / "funnel.json").read_text())
    report = funnel["contamination"]
    assert (report["towers"]["found"], report["towers"]["documents"], report["other"]["found"]) == (1, 1, 0)
    found = "\n".join(everything(tmp_path / "out"))
    assert ("VALMORA" in found) == (remove == "nothing")
    assert (prose(12) in found) == (remove != "document")
    assert ("contamination" in funnel["total"]["rejections"]) == (remove == "document")


def test_chats_pass_the_filters_of_documents(tmp_path: Path) -> None:
    chat = [{"role": "user", "content": "Mail?"}, {"role": "assistant", "content": "a.b@example.com"}]
    source = rows(
        tmp_path / "rows.jsonl", [{"messages": chat}, {"text": "too short"}, {"text": prose(1)}, {"text": prose(2)}]
    )
    build_corpus(section(source, **WEB), seed=1, out=tmp_path / "out")
    [found] = [d for split in ("train", "validation") for d in read_documents(tmp_path / "out", split) if d.messages]
    assert json.loads(found.messages or "")[1]["content"] == "<email>"
    assert found.text == "Mail?\n<email>"
    assert len(everything(tmp_path / "out")) == 3


def test_source_and_mixture_name_the_file_and_the_recipe_s_item(tmp_path: Path) -> None:
    folder = tmp_path / "text"
    (folder / "deep").mkdir(parents=True)
    for number in range(9):
        (folder / "deep" / f"{number:02d}.txt").write_text(f"Text number {number}.")
    chosen = section(str(folder / "deep"), {"path": "builtin:storyworld", "documents": 50})
    build_corpus(chosen, seed=1, out=tmp_path / "out")
    places = {(d.mixture, d.source) for d in read_documents(tmp_path / "out", "train")}
    assert {source for mixture, source in places if mixture == "builtin:storyworld"} == {"builtin:storyworld"}
    assert (str(folder / "deep"), str(folder / "deep" / "01.txt")) in places


def refused_by(out: Path, step: str) -> dict[str, int]:
    rules = json.loads((out / "funnel.json").read_text())["total"]["rejections"].get(step, {})
    return {rule: tally["documents"] for rule, tally in rules.items()}


def test_one_long_document_is_cut_in_bounded_memory(tmp_path: Path) -> None:
    """A text of 12 MB among few: 1,500 passages must not each carry the whole."""
    (tmp_path / "long.txt").write_text("\n\n".join(prose(n) for n in range(8000)))
    pool = pa.default_memory_pool()
    before = pool.max_memory()
    build_corpus(section(str(tmp_path / "long.txt")), seed=1, out=tmp_path / "out")
    assert max(len(text) for text in everything(tmp_path / "out")) <= 8000
    assert pool.max_memory() < max(before, 400 * 2**20)


def test_a_page_crawled_often_stays_once(tmp_path: Path) -> None:
    """Copies of a page are no sign that its lines are boilerplate."""
    pages = [{"text": prose(1), "url": "https://a.org/1"} for _ in range(12)]
    pages += [{"text": prose(n), "url": f"https://a.org/{n}"} for n in range(2, 8)]
    source = rows(tmp_path / "rows.jsonl", pages)
    build_corpus(
        section(source, dedup={"boilerplate": {}, "lines": {"max_documents": 2}}), seed=1, out=tmp_path / "out"
    )
    assert everything(tmp_path / "out") == {prose(n) for n in range(1, 8)}
    assert refused_by(tmp_path / "out", "exact_duplicates") == {"exact_duplicate": 11}


def test_documents_that_are_equal_without_a_line_stay_once(tmp_path: Path) -> None:
    menu = "Home and News and Contact and About and Search and Imprint of this site, all here."
    pages = [{"text": f"{menu}\n{prose(n)}", "url": f"https://a.org/{n}"} for n in range(20)]
    pages += [{"text": f"{prose(n)}\n{menu}", "url": f"https://a.org/again/{n}"} for n in range(5)]
    source = rows(tmp_path / "rows.jsonl", pages)
    build_corpus(section(source, dedup={"boilerplate": {}}), seed=1, out=tmp_path / "out")
    assert everything(tmp_path / "out") == {prose(n) for n in range(20)}
    assert refused_by(tmp_path / "out", "equal_without_lines") == {"exact_duplicate": 5}


@pytest.mark.parametrize("dedup", [{}, {"near": {}, "lines": {}, "boilerplate": {}}])
def test_a_corpus_of_which_all_is_refused_is_the_users_mistake(tmp_path: Path, dedup: dict[str, Any]) -> None:
    source = rows(tmp_path / "rows.jsonl", [{"text": "too short"}, {"text": ""}])
    chosen = section(source, filters={"length": {"min_words": 50}}, dedup=dedup)
    with pytest.raises(UserError, match="none is left to train on"):
        build_corpus(chosen, seed=1, out=tmp_path / "out")


def test_a_damaged_finished_corpus_is_said(tmp_path: Path) -> None:
    source = rows(tmp_path / "rows.jsonl", [{"text": prose(n)} for n in range(20)])
    build_corpus(section(source), seed=1, out=tmp_path / "run" / "corpus")
    [file] = (tmp_path / "run" / "corpus" / "documents").glob("train-*")
    file.write_bytes(file.read_bytes()[:-200])
    chosen = section(source, dedup={"against": [str(tmp_path / "run")]})
    with pytest.raises(UserError, match="finished corpus can't be read"):
        build_corpus(chosen, seed=1, out=tmp_path / "out")


def test_a_worker_of_an_earlier_recipe_does_no_harm(tmp_path: Path) -> None:
    """Each set of inputs has its own folder, so what an orphan finishes late is never taken for ours."""
    source = rows(tmp_path / "rows.jsonl", [{"text": f"Write to a{n}@example.com. {prose(n)}"} for n in range(9)])
    work = tmp_path / "work"
    before = build._begin(section(source), 1, build.resolve_sources(section(source)), work, "")
    task = phases_task(before.work)
    chosen = section(source, personal_data={})
    after = build._begin(chosen, 1, build.resolve_sources(chosen), work, "")
    assert before.work != after.work
    assert not before.work.exists()
    with contextlib.suppress(FileNotFoundError):
        phases.perform(task)
    build_corpus(chosen, seed=1, out=tmp_path / "out", work=work)
    assert not any("@example" in text for text in everything(tmp_path / "out"))


def phases_task(work: Path) -> dict[str, Any]:
    return {"work": str(work), "phase": "harvest", "index": 0}


def test_a_chat_with_a_test_in_it_goes_under_the_right_name(tmp_path: Path) -> None:
    question = (
        "Which of the seven green towers near the old harbour of Valmora was built last, and by whom was it built?"
    )
    chat = [{"role": "user", "content": question}, {"role": "assistant", "content": "The northern one."}]
    source = rows(tmp_path / "rows.jsonl", [{"messages": chat}, *({"text": prose(n)} for n in range(5))])
    chosen = section(source, decontaminate={"remove": "span"})
    build_corpus(chosen, seed=1, out=tmp_path / "out", tests=[("alpha", prose(50)), ("beta", question)])
    assert refused_by(tmp_path / "out", "contamination") == {"beta": 1}
    funnel = json.loads((tmp_path / "out" / "funnel.json").read_text())["total"]
    assert funnel["edits"].get("contamination/documents shortened", 0) == 0


def test_building_once_more_into_the_same_place(tmp_path: Path) -> None:
    source = rows(tmp_path / "rows.jsonl", [{"text": prose(n)} for n in range(20)])
    for _ in range(2):
        build_corpus(section(source), seed=1, out=tmp_path / "out", work=tmp_path / "work")
    assert everything(tmp_path / "out") == {prose(n) for n in range(20)}
