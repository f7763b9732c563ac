"""What a stage is made from, as one hash: if nothing in it changed, the stage needn't run again."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from groundup.build.importing import source_digest
from groundup.corpus import external_files, external_identities, resolve_sources
from groundup.hardware import Hardware
from groundup.recipe import (
    CorpusSection,
    DpoSection,
    EngineSection,
    EvaluateSection,
    ImportSection,
    LadderSection,
    PretrainSection,
    Recipe,
    Seq2SeqSection,
    SftSection,
    Stage,
    TokenizerSection,
    nearest,
    rung_model,
)
from groundup.run import UserError, fingerprint, read_json, sha256_file, write_json
from groundup.tokenizer import adopted_files

ANSWERS = "answers"  # the task that reads the data of tuning stages
# Raised when a stage's output changes for the same inputs, so that old output is made again.
FORMATS = {
    "import": 1,
    "corpus": 2,
    "tokenizer": 3,
    "ladder": 1,
    "pretrain": 2,
    "sft": 2,
    "dpo": 2,
    "seq2seq": 2,
    "evaluate": 1,
    "export": 1,
    "book": 1,
}


def stage_fingerprints(
    recipe: Recipe, hardware: Hardware, hash_file: Callable[[Path], dict[str, Any]]
) -> dict[str, str]:
    """Name of every stage to its fingerprint.

    It covers the resolved section, the seed, the hardware fields that change bits (where the stage computes
    with them), the content of external files, the fingerprints of the stages it reads, and the format.
    Never a path of output, a host or a time.

    Args:
        hash_file: gives {"bytes": ..., "sha256": ...} of a file.

    Raises UserError for an external file that isn't there.
    """
    found: dict[str, str] = {}
    for stage in recipe.ordered_stages():
        content: dict[str, Any] = {
            "format": FORMATS[stage.kind],
            "section": stage.section.model_dump(mode="json"),
            "seed": recipe.run.seed,
            "inputs": {name: found[name] for name in recipe.inputs(stage)},
            "external": [hash_file(path) for path in external_paths(stage)],
        }
        if isinstance(stage.section, ImportSection):
            # The same checkpoint is the same import, wherever it lies and whatever the seed.
            digest = source_digest(stage.section, hash_file)
            content = {"format": FORMATS[stage.kind], "sha256": digest}
        if isinstance(stage.section, CorpusSection):
            sources = resolve_sources(stage.section)
            content["names"] = [
                [_plain(part.path) for part in source.parts] for source in sources
            ]  # they are in the result
            content["remote"] = external_identities(stage.section, sources)
            content |= _sought(recipe, stage.section, hash_file)
        if isinstance(stage.section, EngineSection | EvaluateSection):
            content["hardware"] = hardware.bits()
        if isinstance(stage.section, PretrainSection) and stage.start is None:
            content["model"] = recipe.model.model_dump(mode="json")
        if isinstance(stage.section, LadderSection):
            models = [recipe.model, *(rung_model(recipe.model, rung) for rung in stage.section.rungs)]
            content["models"] = [model.model_dump(mode="json") for model in models]
        if isinstance(stage.section, EvaluateSection) and ANSWERS in stage.section.tasks:
            content["conversations"] = [
                [tuning.section.model_dump(mode="json")["data"], [hash_file(path) for path in external_paths(tuning)]]
                for tuning in recipe.tuning_stages()
            ]
        found[stage.name] = fingerprint(content)
    return found


def external_paths(stage: Stage) -> list[Path]:
    """Files outside the run that a stage reads, in the order of its section."""
    section = stage.section
    if isinstance(section, CorpusSection):
        return external_files(section)
    if isinstance(section, TokenizerSection):
        return adopted_files(Path(section.adopt)) if section.adopt is not None else []
    named: list[str] = []
    if isinstance(section, SftSection | DpoSection):
        named = [item if isinstance(item, str) else item.path for item in section.data]
    elif isinstance(section, Seq2SeqSection):
        named = [*(item if isinstance(item, str) else item.path for item in section.data), *section.test_data]
    elif isinstance(section, EvaluateSection):
        named = _task_files(section.tasks)
    paths = [Path(name) for name in named if not name.startswith("builtin:")]
    for path in paths:
        if not path.is_file():
            raise UserError(
                f"no file {str(path)!r}",
                where=f"[{stage.name}]",
                mend="check the path; relative paths start at the working directory",
            )
    return paths


def _sought(recipe: Recipe, section: CorpusSection, hash_file: Callable[[Path], dict[str, Any]]) -> dict[str, Any]:
    """The tests that the corpus is searched for, where it is."""
    sought = recipe.sought_tasks(section)
    if sought is None:
        return {}
    files = [Path(name) for name in _task_files(sought.tasks)]
    return {"tests": [list(sought.tasks), sought.questions, [hash_file(path) for path in files]]}


def _task_files(tasks: tuple[str, ...]) -> list[str]:
    """The tasks that are files. Raises UserError for an unknown one now, not after hours of training."""
    from groundup.evaluation import TASKS

    files = [task for task in tasks if task.endswith(".jsonl")]
    for task in tasks:
        if task not in TASKS and task not in files:
            raise UserError(
                f"unknown task {task!r}",
                where="[evaluate] tasks",
                expected=f"one of {', '.join(TASKS)}, or a .jsonl file",
                mend=nearest(task, TASKS),
            )
    return files


class FileHashes:
    """SHA-256 of external files, remembered by path, size and time of change, so a big one is read once."""

    def __init__(self, memory: Path) -> None:
        self._memory = memory
        try:
            self._known: dict[str, Any] = dict(read_json(memory))
        except (FileNotFoundError, ValueError):
            self._known = {}
        self._changed = False

    def __call__(self, path: Path) -> dict[str, Any]:
        """Bytes and sha256 of the file's present content."""
        status = path.stat()
        key = _plain(str(path.resolve()))
        state = [status.st_size, status.st_mtime_ns]
        if self._known.get(key, {}).get("state") != state:
            self._known[key] = {"state": state, "sha256": sha256_file(path)}
            self._changed = True
        return {"bytes": status.st_size, "sha256": self._known[key]["sha256"]}

    def save(self) -> None:
        """Write what was learned beside the run's other records."""
        if self._changed:
            write_json(self._memory, self._known)
            self._changed = False


def _plain(path: str) -> str:
    """A path as JSON can hold it: one that is no UTF-8 in hexadecimal."""
    try:
        path.encode("utf-8")
    except UnicodeEncodeError:
        return "hex:" + os.fsencode(path).hex()
    return path


def inputs_of(recipe: Recipe, stage: Stage, fingerprints: Mapping[str, str]) -> dict[str, str]:
    """The stages that ``stage`` reads, with their fingerprints, as its manifest records them."""
    return {name: fingerprints[name] for name in recipe.inputs(stage)}
