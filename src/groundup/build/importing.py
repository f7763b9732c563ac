"""The import stage: somebody's checkpoint becomes weights and a vocabulary of the run.

RUN/import/final/       the weights under this package's names, in the dtype they came in
RUN/import/source/      the checkpoint's own words, copied: configuration, tokenizer, chat template, licence
RUN/import/tokenizer/   its vocabulary as this package reads it
RUN/import/import.json  what is known of it (`facts`)
"""

from __future__ import annotations

import re
import shutil
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from groundup.recipe import ImportSection, ModelSection, Recipe
from groundup.recipe.model import ModelShape
from groundup.run import UserError, fingerprint, log, read_json, read_manifest, write_json

if TYPE_CHECKING:
    from groundup.model import Architecture

HashFile = Callable[[Path], dict[str, Any]]
SOURCE, VOCABULARY = "source", "tokenizer"
_BESIDE_WEIGHTS = ("config.json", "generation_config.json")
_BESIDE_VOCABULARY = (
    "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json", "merges.txt",
    "chat_template.jinja", "chat_template.json", "additional_chat_templates/*.jinja",
)  # fmt: skip
_RANKS = (".tiktoken", ".model")
"""Endings by which a rank file is found in a folder."""
_HUB_NAME = re.compile(r"(?:hf://)?((?:[A-Za-z0-9][\w.-]*/)?[A-Za-z0-9][\w.-]*)")


def source_digest(section: ImportSection, hash_file: HashFile) -> str:
    """SHA-256 over names and contents of all files that the import reads; of a source some of whose files are gone,
    the recorded one.

    Raises UserError where files are gone and no digest is recorded, and where the source is another one.
    """
    from groundup.interchange import MissingFiles

    try:
        files = source_files(section)
    except MissingFiles:
        if section.sha256 is None:
            raise
        return section.sha256
    found = fingerprint([[name, hash_file(path)["sha256"]] for name, path in sorted(files.items())])
    if section.sha256 not in (None, found):
        raise UserError(
            f"the files in {section.source!r} are not those that the recipe names: their digest is {found}",
            where="[import] sha256",
            expected=str(section.sha256),
            mend="restore them, or take sha256 out of the recipe to import what is there now",
        )
    return found


def with_digest(recipe: Recipe, hash_file: HashFile, run: Path) -> Recipe:
    """The recipe with the digest of what it imports, so that the run's own one says it. Where files of the source are
    gone and the recipe has none, it is the one that the run has recorded of the same source.

    Raises as `source_digest`.
    """
    if recipe.import_ is None:
        return recipe
    from groundup.interchange import MissingFiles

    section = recipe.import_
    try:
        digest = source_digest(section, hash_file)
    except MissingFiles:
        recorded = _recorded_digest(section, run)
        if recorded is None:
            raise
        digest = recorded
    return recipe.model_copy(update={"import_": section.model_copy(update={"sha256": digest})})


def _recorded_digest(section: ImportSection, run: Path) -> str | None:
    """The digest in RUN/recipe.toml, if that imports the same source; None where it doesn't, or nothing is imported."""
    if read_manifest(run / "import") is None:
        return None
    try:
        table = tomllib.loads((run / "recipe.toml").read_text(encoding="utf-8")).get("import", {})
        written = ImportSection.model_validate(table)
    except (OSError, ValueError):
        return None
    same = _place(written.source) == _place(section.source) and _place(written.tokenizer) == _place(section.tokenizer)
    return written.sha256 if same else None


def _place(path: str | None) -> Path | None:
    return None if path is None else Path(path).resolve()


def source_directory(section: ImportSection) -> Path:
    """The checkpoint's directory. Raises UserError where there is none, with the way to get one of the hub's."""
    from groundup.interchange import MissingFiles

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
    raise (UserError if path.exists() else MissingFiles)(
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
    source_files(section)  # what is missing is said at once
    copied = _copied_files(section)
    adopted = adopt(_vocabulary(section), reserved=0)
    tokenizer = Tokenizer(adopted.json)
    tokens = tokenizer.vocabulary_size - len(adopted.pieces)
    for name, path in copied.items():
        (out / SOURCE / name).parent.mkdir(parents=True, exist_ok=True)
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


def imported_architecture(section: ImportSection, run: Path | None = None) -> tuple[str, Architecture] | None:
    """Family and shape of the checkpoint as its directory has them, or where that is gone, as ``run`` has imported it;
    None where neither is there. Raises UserError for a checkpoint that can't be imported."""
    from groundup.interchange import MissingFiles, source_architecture
    from groundup.model import Architecture

    try:
        return source_architecture(source_directory(section))
    except MissingFiles:
        if run is None or not (run / "import" / record_name()).is_file():
            return None
        known = facts(run)
        return known["family"], Architecture.from_dict(known["architecture"])


def _vocabulary(section: ImportSection) -> Path:
    return Path(section.tokenizer) if section.tokenizer is not None else source_directory(section)


def source_files(section: ImportSection) -> dict[str, Path]:
    """Every file that the import reads, by name. Raises MissingFiles where some are not there, UserError for a
    checkpoint that can't be read."""
    from groundup.interchange import checkpoint_files

    weights = {path.name: path for path in checkpoint_files(source_directory(section))}
    return {**weights, **_copied_files(section)}


def _copied_files(section: ImportSection) -> dict[str, Path]:
    """The small files that say what the checkpoint is, by their names in RUN/import/source."""
    from groundup.interchange import LICENCES, MissingFiles
    from groundup.tokenizer import adopted_files

    source = source_directory(section)
    patterns = (*_BESIDE_WEIGHTS, *LICENCES, *(() if section.tokenizer is not None else _BESIDE_VOCABULARY))
    found = {path.relative_to(source).as_posix(): path for pattern in patterns for path in source.glob(pattern)}
    try:
        vocabulary = adopted_files(_vocabulary(section))
    except UserError as error:
        raise MissingFiles(error.what, where=error.where, expected=error.expected, mend=error.mend) from None
    small = {name: path for name, path in found.items() if path.is_file()}
    if len(vocabulary) == 1:
        return small | {_found_again(vocabulary[0]): vocabulary[0]}
    return small | {path.name: path for path in vocabulary}


def _found_again(vocabulary: Path) -> str:
    """The name by which a vocabulary of one file is known in a folder; that of a rank file says which one it is."""
    if vocabulary.suffix == ".json":
        return "tokenizer.json"
    return vocabulary.name if vocabulary.suffix in _RANKS else f"{vocabulary.stem}{_RANKS[0]}"


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
    for name in ("tokenizer_config.json", "chat_template.json"):
        found = load_json(source / name).get("chat_template") if (source / name).is_file() else None
        if isinstance(found, list) and found and isinstance(found[0], dict):
            found = found[0].get("template")
        if isinstance(found, str):
            return found
    return None


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
