"""``groundup import``."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from groundup.cli.output import print_json

if TYPE_CHECKING:
    from groundup.recipe import Recipe


def import_(source: str, /, *, out: Path, tokenizer: str | None = None, json: bool = False) -> None:
    """Make a run of a checkpoint in Hugging Face's layout, to be tuned, measured and exported like any other.

    The directory holds config.json, *.safetensors and the tokenizer's files. Nothing is downloaded, and nothing in it
    is executed. Weights are copied one tensor at a time; the run does without the directory afterwards.

    Example: groundup import Qwen3-0.6B --out runs/qwen3

    Parameters
    ----------
    source
        The checkpoint's directory.
    out
        The run directory, which must not be there yet.
    tokenizer
        Where the vocabulary is, if not in the same directory: a tokenizer.json, GPT-2's two files, a .tiktoken file.
    json
        Print what was imported as one JSON object.
    """
    from groundup.build import build, import_facts
    from groundup.recipe import Recipe

    name = re.sub(r"[^A-Za-z0-9._-]+", "-", out.resolve().name).strip("._-")
    section = {"source": source, "tokenizer": tokenizer}
    recipe = Recipe.model_validate({"run": {"name": name or "import"}, "import": section, "tokenizer": {}})
    _check_free(out, recipe)
    build(recipe, out)
    facts = {"run": str(out), **import_facts(out)}
    if json:
        print_json(facts)
    else:
        _show(facts, source, tokenizer)


def _check_free(out: Path, recipe: Recipe) -> None:
    """Raise UserError for a directory that holds anything but this very import, finished or interrupted."""
    from groundup.build import open_run
    from groundup.run import UserError

    if not out.exists() or (out.is_dir() and all(_is_beginning(path.name) for path in out.iterdir())):
        return
    if (out / "recipe.toml").is_file() and (begun := open_run(out)).import_ is not None:
        # Its digest is compared when the files are read again.
        section = begun.import_.model_copy(update={"sha256": None})
        if begun.model_copy(update={"import_": section}) == recipe:
            return
    raise UserError(
        f"{str(out)!r} is there already",
        expected="a new directory, or one in which this very import was interrupted",
        mend="give another --out; to go on from an imported run, use groundup build",
    )


def _is_beginning(name: str) -> bool:
    """Whether a file is of a build that was stopped before it wrote its recipe."""
    return name.startswith(".") or name == "run.json"


def _show(facts: dict[str, Any], source: str, tokenizer: str | None) -> None:
    rows = f" in {facts['rows']:,} rows" if facts["rows"] != facts["tokens"] else ""
    print(f"{facts['family']}: {facts['parameters']:,} parameters, {facts['dtype']}, {facts['tokens']:,} tokens{rows}")
    for name in facts["left_out"]:
        print(f"left out: {name}")
    if facts["template"] and not facts["chats"]:
        print("its chat template is kept in import/source; tuning teaches this package's chat format in its place")
    print(f"run: {facts['run']}")
    settings = [f"import.source={source}"]
    if tokenizer is not None:
        settings.append(f"import.tokenizer={tokenizer}")
    settings.append('sft.data=["chats.jsonl"]')
    words = shlex.join([word for setting in settings for word in ("--set", setting)])
    print(f"next: groundup build finetune --out {shlex.quote(facts['run'])} {words}")
