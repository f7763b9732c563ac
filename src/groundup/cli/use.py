"""Commands that use a run: chat, translate, evaluate, book, export."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from groundup.cli.output import print_json

if TYPE_CHECKING:
    from groundup.build import Speaker
    from groundup.recipe import Recipe


def chat(
    run: Path,
    /,
    *,
    stage: str | None = None,
    prompt: str | None = None,
    temperature: float = 0.7,
    top_p: float = 0.95,
    max_tokens: int = 256,
    seed: int = 0,
    json: bool = False,
) -> None:
    """Talk with a model of a run. /new begins a new conversation, /quit ends.

    Example: groundup chat runs/laptop --prompt "Tell me a story about Ana and Ben, with a blue kite."

    Parameters
    ----------
    run
        A run directory.
    stage
        The stage whose model answers; the last trained one where not given.
    prompt
        Answer this one message and end, printing just the answer.
    temperature
        0 always takes the likeliest token; higher is more varied.
    top_p
        Sample among the likeliest tokens that together have this probability.
    max_tokens
        Longest answer, in tokens.
    seed
        Same seed, same answers.
    json
        With --prompt: print stage, prompt and answer as one JSON object.
    """
    from groundup.build import open_speaker

    _check_sampling(temperature, top_p, max_tokens, json=json, prompt=prompt)
    speaker = open_speaker(run, stage)
    options = {"temperature": temperature, "top_p": top_p, "max_tokens": max_tokens}
    if prompt is None:
        _converse(speaker, options, seed)
        return
    answer = speaker.answer([{"role": "user", "content": prompt}], seed=seed, **options)
    if json:
        print_json({"stage": speaker.stage, "prompt": prompt, "answer": answer})
    else:
        print(answer)


def _check_sampling(temperature: float, top_p: float, max_tokens: int, *, json: bool, prompt: str | None) -> None:
    from groundup.run import UserError

    if not 0 <= temperature <= 100:
        raise UserError(f"--temperature {temperature:g} can't be used", expected="a number from 0 to 100")
    if not 0 < top_p <= 1:
        raise UserError(f"--top-p {top_p:g} can't be used", expected="a number above 0 and at most 1")
    if max_tokens < 1:
        raise UserError(f"--max-tokens {max_tokens} can't be used", expected="a number of at least 1")
    if json and prompt is None:
        raise UserError("--json needs --prompt", mend="add --prompt TEXT")


def _converse(speaker: Speaker, options: dict[str, Any], seed: int) -> None:
    """Read messages from the terminal and stream the answers, until /quit or the end of input."""
    if sys.stdin.isatty():
        import readline  # noqa: F401  # input() then edits lines and recalls earlier ones

    print(f"{speaker.stage}: /new begins anew, /quit ends", file=sys.stderr)
    talk: list[dict[str, str]] = []
    turn = seed
    while True:
        try:
            text = input("you: " if sys.stdin.isatty() else "").strip()
        except EOFError:
            return
        if text == "/quit":
            return
        if text == "/new":
            talk = []
        if not text or text == "/new":
            continue
        talk.append({"role": "user", "content": text})
        pieces: list[str] = []
        try:
            for piece in speaker.stream(talk, seed=turn, **options):
                pieces.append(piece)
                print(piece, end="", flush=True)
        except KeyboardInterrupt:
            pass  # the answer ends here; the conversation goes on
        print()
        talk.append({"role": "assistant", "content": "".join(pieces)})
        turn += 1


def translate(
    run: Path,
    /,
    *texts: str,
    stage: str | None = None,
    beam: int = 4,
    length_penalty: float = 0.6,
    n_best: int = 1,
    json: bool = False,
) -> None:
    """Translate sentences with a translator of a run, by beam search.

    Words and marks are to be parted by spaces, as in the data that it was trained on. Without texts, each line of
    standard input is a sentence.

    Example: groundup translate runs/seq2seq "the old dog sees the cat ."

    Parameters
    ----------
    run
        A run directory.
    texts
        Sentences, each in quotes.
    stage
        The stage whose translator it is; the last one where not given.
    beam
        Hypotheses kept at each word; 1 is greedy search.
    length_penalty
        Exponent of the length penalty; 0 favours the short.
    n_best
        Translations shown of each sentence, best first; at most --beam.
    json
        Print one JSON list: for each sentence its source and its translations, with their scores.
    """
    from groundup.build import open_translator
    from groundup.run import UserError, log

    if not 1 <= n_best <= beam:
        raise UserError(f"--n-best {n_best} with --beam {beam}", expected="a beam of at least 1, and no more than it")
    if length_penalty < 0:
        raise UserError(f"--length-penalty {length_penalty:g} can't be used", expected="a number of at least 0")
    _, translator = open_translator(run, stage)
    sources = list(texts) or [line.strip() for line in sys.stdin if line.strip()]
    for source in sources:
        if unknown := translator.unknown_words(source):
            log(f"not in the vocabulary: {', '.join(unknown)}")
    found = translator.translate(sources, beam=beam, alpha=length_penalty, n_best=n_best)
    if json:
        print_json(
            [
                {
                    "source": source,
                    "translations": [{"text": each.text, "score": each.score, "ended": each.finished} for each in best],
                }
                for source, best in zip(sources, found, strict=True)
            ]
        )
    else:
        for best in found:
            print("\n".join(each.text for each in best))


def evaluate(run: Path, /, *, tasks: tuple[str, ...] = (), details: bool = False, json: bool = False) -> None:
    """Measure the models of a run, with 95 % intervals and baselines.

    Without --tasks this is the run's own evaluation, made where it isn't done yet. With --tasks the named
    tasks are measured and shown, and the run stays as it is.

    Example: groundup evaluate runs/laptop --tasks storyworld_qa --tasks my-tasks.jsonl

    Parameters
    ----------
    run
        A run directory.
    tasks
        A task's name or a JSONL file of tasks; may be given several times.
    details
        Show the scores of each kind of question too.
    json
        Print the results as one JSON object.
    """
    from groundup.build import build, load_results, open_run, results_table, stdout_console

    recipe = open_run(run)
    names = [stage.name for stage in recipe.ordered_stages() if stage.kind in ("evaluate", "seq2seq")]
    if tasks:
        results = _measure(recipe, run, tasks)
    else:
        if not names:
            # A tuned import without a corpus is measured on conversations that it never learned from.
            tasks = ("bits_per_byte",) if recipe.corpus is not None else ("answers",)
            recipe, names = _with_section(recipe, "evaluate", {"tasks": tasks}), ["evaluate"]
        build(recipe, run, only=names, amends=True)
        results = load_results(recipe, run)
    if json:
        print_json(results)
    else:
        stdout_console().print(results_table(results, details=details))


def _measure(recipe: Recipe, run: Path, tasks: tuple[str, ...]) -> dict[str, Any]:
    """Measure ``tasks`` beside the run: its directory is not written to, but for its record."""
    from groundup.build import RunRecord, measure
    from groundup.recipe import EvaluateSection
    from groundup.run import UserError

    for task in tasks:
        if task.endswith(".jsonl") and not Path(task).is_file():
            raise UserError(f"no task file {task!r}", where="--tasks", mend="check the path")
    section = (recipe.evaluate or EvaluateSection()).model_copy(update={"tasks": tasks})
    built = [name for name in recipe.evaluated_models(section) if (run / name / "manifest.json").is_file()]
    if not built:
        raise UserError("no model is trained yet", where=str(run), mend="run groundup build first")
    section = section.model_copy(update={"models": tuple(built)})
    hardware = RunRecord(run).settle_hardware(recipe.hardware)
    with tempfile.TemporaryDirectory() as folder:
        return measure(recipe, run, section, hardware, out=Path(folder))


def book(run: Path, /, *, json: bool = False) -> None:
    """Make the PDF that explains a run, where it isn't made yet, and print its path.

    Example: groundup book runs/laptop

    Parameters
    ----------
    run
        A run directory.
    json
        Print the path as one JSON object.
    """
    from groundup.build import build, open_run

    recipe = open_run(run)
    names = [stage.name for stage in recipe.ordered_stages() if stage.kind == "book"]
    if not names:
        recipe, names = _with_section(recipe, "book", {}), ["book"]
    build(recipe, run, only=names, amends=True)
    paths = [str(run / name / "book.pdf") for name in names]
    if json:
        print_json({"books": paths})
    else:
        print("\n".join(paths))


def export(
    run: Path,
    /,
    *,
    format_: Annotated[Literal["hf", "gguf"], Parameter(name="--format")],
    stage: str | None = None,
    quantization: Literal["f32", "f16", "bf16", "q8_0", "q4_0"] | None = None,
    dtype: Literal["fp32", "bf16", "fp16"] | None = None,
    out: Path | None = None,
    json: bool = False,
) -> None:
    """Write a model of a run in a layout that other programs load.

    RUN/export holds the model of one stage, in one format or both; a line says what of an earlier export goes. With
    --out nothing is replaced, and the run stays as it is.

    Example: groundup export runs/laptop --format gguf --quantization q8_0

    Parameters
    ----------
    run
        A run directory.
    format_
        hf is Hugging Face's layout: config.json, model.safetensors, tokenizer.json. gguf is the one file that
        llama.cpp, Ollama and LM Studio load.
    stage
        The stage whose model is exported; the last trained one where not given.
    quantization
        Of gguf: plain numbers, or blocks of 8 or 4 bits a weight; where not given what [export] says, else those of
        the model.
    dtype
        Of hf: the numbers; where not given what [export] says, else those of the model.
    out
        Where to: a directory for hf, a file for gguf; RUN/export/hf or RUN/export/model.gguf where not given.
    json
        Print the path as one JSON object.
    """
    from groundup.build import EXPORTED, build, built_model, export_model, open_run
    from groundup.run import UserError

    if (quantization and format_ != "gguf") or (dtype and format_ != "hf"):
        raise UserError("--quantization is for --format gguf, --dtype for --format hf")
    recipe = open_run(run)
    recipe = _with_section(recipe, "export", _export_section(recipe, run, format_, stage, quantization, dtype))
    if out is None:
        build(recipe, run, only=["export"], amends=True)
        path = run / "export" / EXPORTED[format_]
    else:
        path = out / EXPORTED[format_] if format_ == "gguf" and out.is_dir() else out
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise UserError(f"{str(path)!r} is there already", mend="give a new name or an empty directory with --out")
        export_model(recipe, run, built_model(run, stage).name, path, format_, recipe.export)
    if json:
        print_json({"path": str(path)})
    else:
        print(path)


def _export_section(
    recipe: Recipe, run: Path, layout: str, stage: str | None, quantization: str | None, dtype: str | None
) -> dict[str, Any]:
    """The run's own [export] with what is asked for now; other formats of the same stage that are made stay."""
    from groundup.build import EXPORTED

    section = recipe.export
    if section is None:
        return {"stage": stage, "formats": (layout,), "quantization": quantization, "dtype": dtype}
    same = stage is None or stage == recipe.exported_stage(section)
    made = [each for each in section.formats if same and (run / "export" / EXPORTED[each]).exists()]
    return section.model_dump() | {
        "stage": section.stage if same else stage,
        "formats": tuple(dict.fromkeys((*made, layout))),
        "quantization": quantization or section.quantization,
        "dtype": dtype or section.dtype,
    }


def _with_section(recipe: Recipe, name: str, values: dict[str, Any]) -> Recipe:
    """The recipe with a section put in, checked as if it had been written so."""
    from pydantic import ValidationError

    from groundup.recipe import Recipe
    from groundup.run import UserError

    content = recipe.model_dump()
    try:
        return Recipe.model_validate(content | {name: values})
    except ValidationError as error:
        what = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise UserError(f"this run can't have [{name}]: {what}") from None
