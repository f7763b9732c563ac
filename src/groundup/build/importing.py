"""The import stage: somebody's checkpoint becomes weights and a vocabulary of the run.

RUN/import/final/       the weights under this package's names, in the dtype they came in
RUN/import/source/      the checkpoint's own words, copied: configuration, tokenizer, chat template, licence
RUN/import/tokenizer/   its vocabulary as this package reads it
RUN/import/import.json  what is known of it (`facts`)
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from groundup.recipe import ImportSection, ModelSection, Recipe
from groundup.recipe.model import ModelShape
from groundup.run import UserError, fingerprint, log, read_json, write_json

HashFile = Callable[[Path], dict[str, Any]]
SOURCE, VOCABULARY = "source", "tokenizer"
_BESIDE_WEIGHTS = ("config.json", "generation_config.json", "LICENSE*", "LICENCE*", "NOTICE*")
_BESIDE_VOCABULARY = (
    "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json", "merges.txt",
    "chat_template.jinja", "chat_template.json",
)  # fmt: skip
_HUB_NAME = re.compile(r"(?:hf://)?((?:[A-Za-z0-9][\w.-]*/)?[A-Za-z0-9][\w.-]*)")


def source_digest(section: ImportSection, hash_file: HashFile) -> str:
    """SHA-256 over names and contents of all files that the import reads; a source that is gone has the recorded one.

    Raises UserError where the source is gone and none is recorded, and where it is another one.
    """
    if section.sha256 is not None and not Path(section.source).exists():
        return section.sha256
    files = {**_weight_files(section), **_copied_files(section)}
    found = fingerprint([[name, hash_file(path)["sha256"]] for name, path in sorted(files.items())])
    if section.sha256 not in (None, found):
        raise UserError(
            f"the files in {section.source!r} are not those that the recipe names: their digest is {found}",
            where="[import] sha256",
            expected=str(section.sha256),
            mend="restore them, or take sha256 out of the recipe to import what is there now",
        )
    return found


def with_digest(recipe: Recipe, hash_file: HashFile) -> Recipe:
    """The recipe with the digest of what it imports, so that the run's own one says it. Raises as `source_digest`."""
    if recipe.import_ is None:
        return recipe
    section = recipe.import_.model_copy(update={"sha256": source_digest(recipe.import_, hash_file)})
    return recipe.model_copy(update={"import_": section})


def source_directory(section: ImportSection) -> Path:
    """The checkpoint's directory. Raises UserError where there is none, with the way to get one of the hub's."""
    path = Path(section.source)
    if path.is_dir():
        return path
    mend = "give the directory that holds config.json and *.safetensors"
    name = _HUB_NAME.fullmatch(section.source)
    if not path.exists() and name is not None:
        folder = name[1].rpartition("/")[2]
        mend += (
            f"; a checkpoint of Hugging Face's hub is fetched by `pip install huggingface_hub` and "
            f"`hf download {name[1]} --local-dir {folder}`"
        )
    raise UserError(
        f"{section.source!r} is a file, not a directory" if path.exists() else f"no directory {section.source!r}",
        where="[import] source",
        expected="a checkpoint's directory on this machine; nothing is downloaded",
        mend=mend,
    )


def import_source(section: ImportSection, shape: ModelSection, out: Path) -> dict[str, Any]:
    """Make what stands above in ``out``; returns the facts.

    The vocabulary is read first: it takes seconds, and one that this package can't read ends the import before the
    weights are copied.

    Args:
        shape: the recipe's `[model]`, which is ignored; what it says otherwise is told.

    Raises:
        UserError: the source isn't there, is no checkpoint of a known family, has weights in a pickle only, or a
            vocabulary that is no byte-level BPE or has more ids than the weights have rows.
    """
    from groundup.interchange import import_checkpoint
    from groundup.tokenizer import Tokenizer, adopt

    source = source_directory(section)
    copied = _copied_files(section)
    _weight_files(section)
    adopted = adopt(_vocabulary(section), reserved=0)
    tokenizer = Tokenizer(adopted.json)
    tokens = tokenizer.vocabulary_size - len(adopted.pieces)
    for name, path in copied.items():
        (out / SOURCE).mkdir(exist_ok=True)
        shutil.copyfile(path, out / SOURCE / name)
    tokenizer.save(out / VOCABULARY)
    template, begins = _template(out / SOURCE), _begins(out / SOURCE, tokens)
    report = import_checkpoint(source, out / "final")
    if tokens > report.rows:
        beyond = sorted(f"{name} {number}" for name, number in tokenizer.special_ids().items() if number >= report.rows)
        raise UserError(
            f"the vocabulary has {tokens:,} ids and the weights {report.rows:,} rows",
            where=section.source,
            expected="a row for every id: " + ", ".join(beyond[:8]) if beyond else "the vocabulary of these weights",
            mend="import the tokenizer that belongs to the weights; import.tokenizer names one that is elsewhere",
        )
    _tell_ignored(shape, report.architecture)
    facts = {
        "family": report.family,
        "architecture": report.architecture.to_dict(),
        "parameters": report.parameters,
        "dtype": report.dtype,
        "rows": report.rows,
        "tokens": tokens,
        "begins": begins,
        "ends": [number for number in report.stop_ids if number < tokens],
        "template": template is not None,
        "chats": _is_ours(template),
        "left_out": list(report.left_out),
    }
    write_json(out / record_name(), facts)
    return facts


def facts(run: Path) -> dict[str, Any]:
    """What RUN/import/import.json says:

    family, architecture, parameters, dtype; ``rows`` of the embedding table and ``tokens`` of the vocabulary, which
    are fewer where the table is padded; ``begins``: the ids that the source's tokenizer puts before a text, ``ends``:
    those that end an answer; ``template``: whether there is a chat template, ``chats``: whether it is this package's
    own; ``left_out``: tensors of the source that the model has no use for.
    """
    content: dict[str, Any] = read_json(run / "import" / record_name())
    return content


def record_name() -> str:
    """The file that training looks for beside imported weights."""
    from groundup.training.stage import IMPORT_RECORD

    return IMPORT_RECORD


def _vocabulary(section: ImportSection) -> Path:
    return Path(section.tokenizer) if section.tokenizer is not None else source_directory(section)


def _weight_files(section: ImportSection) -> dict[str, Path]:
    from groundup.interchange import checkpoint_files

    return {path.name: path for path in checkpoint_files(source_directory(section))}


def _copied_files(section: ImportSection) -> dict[str, Path]:
    """The small files that say what the checkpoint is, by their names in RUN/import/source."""
    from groundup.tokenizer import adopted_files

    source = source_directory(section)
    patterns = _BESIDE_WEIGHTS if section.tokenizer is not None else (*_BESIDE_WEIGHTS, *_BESIDE_VOCABULARY)
    found = [path for pattern in patterns for path in source.glob(pattern) if path.is_file()]
    return {path.name: path for path in [*found, *adopted_files(_vocabulary(section))]}


def _begins(source: Path, tokens: int) -> list[int]:
    """The ids that the source's own tokenizer puts before every text, such as Llama 3's <|begin_of_text|>."""
    if not (source / "tokenizer.json").is_file():
        return []
    from groundup.tokenizer.tokenizer import read_tokenizer

    path = source / "tokenizer.json"
    tokenizer = read_tokenizer(path.read_text(encoding="utf-8"), str(path))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    plain, whole = (tokenizer.encode("a", add_special_tokens=special).ids for special in (False, True))
    for length in range(len(whole) - len(plain) + 1):
        if whole[length : length + len(plain)] == plain:
            return [number for number in whole[:length] if number < tokens]
    return []


def _template(source: Path) -> str | None:
    """The source's chat template; the first of several."""
    from groundup.tokenizer.foreign import load_json, read_text_file

    if (source / "chat_template.jinja").is_file():
        return read_text_file(source / "chat_template.jinja")
    if not (source / "tokenizer_config.json").is_file():
        return None
    found = load_json(source / "tokenizer_config.json").get("chat_template")
    if isinstance(found, list) and found and isinstance(found[0], dict):
        found = found[0].get("template")
    return found if isinstance(found, str) else None


def _is_ours(template: str | None) -> bool:
    """Whether a chat template is this package's own: an export of ours that comes home."""
    from groundup.tokenizer import chat_template

    ours = {chat_template().strip(), chat_template(learned_marks=False).strip()}
    return template is not None and template.strip() in ours


def _tell_ignored(shape: ModelSection, found: ModelShape) -> None:
    """Say which fields of `[model]` the recipe gives otherwise than the checkpoint has them."""
    given = [name for name in shape.model_dump(exclude_defaults=True) if name != "preset"]
    ignored = [
        f"{name} = {getattr(shape, name)!r} (it has {getattr(found, name)!r})"
        for name in given
        if getattr(shape, name) != getattr(found, name)
    ]
    if ignored:
        log(f"[model] is ignored, since the checkpoint has its own shape: {', '.join(ignored)}")
