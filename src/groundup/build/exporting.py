"""Models out of a run: what can be exported, how each format is written, and what an export replaces."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from groundup.build.importing import SOURCE, VOCABULARY, facts, imported_architecture
from groundup.build.verify import find_stage, origin_of
from groundup.recipe import ExportSection, ImportSection, Recipe, Stage
from groundup.run import UserError, log, read_json, read_manifest

if TYPE_CHECKING:
    from groundup.interchange import Base
    from groundup.model import Architecture

EXPORTED = {"hf": "hf", "gguf": "model.gguf"}
"""Where in RUN/export each format goes."""
_HUB_CACHE = re.compile(r".*/models--([^/]+)/snapshots/[0-9a-f]+")
"""A folder in the cache of Hugging Face's hub, which names the model."""


def export_model(
    recipe: Recipe, run: Path, stage: str, out: Path, layout: str = "hf", section: ExportSection | None = None
) -> Mapping[str, Any]:
    """Write one stage's model in a layout that other programs load: `hf` into the directory ``out``, `gguf` as the
    file. Returns the metrics of the format. Raises UserError."""
    from groundup.interchange import export_gguf, export_hf

    section = section or ExportSection()
    imported, name, model = find_stage(recipe, stage).kind == "import", recipe.run.name, run / stage / "final"
    if layout == "hf":
        return export_hf(
            model,
            run / "tokenizer",
            out,
            name=name,
            dtype=section.dtype,
            # What nobody has changed goes out as it came in, with its own words on how it is used.
            source_tokenizer=run / stage / SOURCE if imported else None,
            adopted=_adopted(run) if imported else None,
            base=_base(recipe, run, stage),
        )
    if imported:
        raise _untuned(run / stage)
    numbers, licence = section.quantization, section.licence
    return export_gguf(model, run / "tokenizer", out, quantization=numbers, name=name, licence=licence)


def require_exportable(recipe: Recipe, run: Path, chosen: Sequence[Stage]) -> None:
    """Raise UserError, before anything is made, where a format that a chosen stage is to write can't hold the model:
    as far as the recipe, or the checkpoint that it imports, says what the model will be."""
    sections = [stage.section for stage in chosen if isinstance(stage.section, ExportSection)]
    if not sections:
        return
    for section in sections:
        name = recipe.exported_stage(section)
        if "gguf" in section.formats and find_stage(recipe, name).kind == "import":
            raise _untuned(run / name)
    if (arch := _architecture(recipe, run)) is not None:
        for layout in dict.fromkeys(layout for section in sections for layout in section.formats):
            _require_layout(arch, layout, "[import]" if recipe.import_ is not None else "[model]")
    if any("gguf" in section.formats for section in sections):
        _require_splitting(recipe)


def tell_replaced(run: Path, stage: Stage, exported: str) -> None:
    """Say which files of an earlier export the one that begins now does not make again: they go when it is done.

    Args:
        stage: the export stage.
        exported: the stage whose model it exports.
    """
    manifest = read_manifest(run / stage.name)
    if manifest is None or not isinstance(stage.section, ExportSection):
        return
    before = next((name for name in manifest.inputs if name != "tokenizer"), exported)
    there = [layout for layout, name in EXPORTED.items() if (run / stage.name / name).exists()]
    gone = [layout for layout in there if before != exported or layout not in stage.section.formats]
    for layout in gone:
        log(
            f"{run / stage.name / EXPORTED[layout]}, the model of stage {before!r}, is replaced by this export; "
            f"groundup export {run} --stage {before} --format {layout} --out PATH writes it where nothing replaces it"
        )


def _architecture(recipe: Recipe, run: Path) -> Architecture | None:
    """The shape of the run's models, but for the size of the vocabulary; None where only a checkpoint that isn't there
    knows it."""
    from groundup.model import Architecture

    if recipe.import_ is None:
        return Architecture.from_section(recipe.model, 1024)
    found = imported_architecture(recipe.import_, run)
    return None if found is None else found[1]


def _require_layout(arch: Architecture, layout: str, where: str) -> None:
    """Raise UserError where a format has no layout for an architecture."""
    from groundup.interchange import gguf_form, stock_form

    try:
        (gguf_form if layout == "gguf" else stock_form)(arch)
    except UserError as error:
        raise UserError(
            f"{error.what}, and [export] asks for the format {layout!r}",
            where=where,
            expected=error.expected,
            mend="leave that format out of [export], or those options; this package itself loads any model it has made",
        ) from None


def _require_splitting(recipe: Recipe) -> None:
    """Raise UserError where llama.cpp does not know how the tokenizer that is to be trained will split words."""
    section = recipe.tokenizer
    if section is None or section.adopt is not None or recipe.import_ is not None:
        return
    from groundup.interchange import gguf_vocabulary
    from groundup.tokenizer import Tokenizer, train_bpe

    pattern, digits = section.split_pattern or "qwen2", section.digits
    learned = Tokenizer(train_bpe(["a a"], 512, split_pattern=pattern, digits=digits, min_frequency=1).to_str())
    try:
        gguf_vocabulary(learned, learned.vocabulary_size)
    except UserError as error:
        raise UserError(
            f"{error.what}, and [export] asks for the format 'gguf'",
            where="[tokenizer] split_pattern",
            expected=error.expected,
            mend="leave that format out of [export], or train with such a split_pattern (and no digits beside it)",
        ) from None


def _untuned(place: Path) -> UserError:
    return UserError(
        "a GGUF file has this run's tokenizer and chat format, which an imported model has not learned",
        where=str(place),
        mend="tune it first, or convert the checkpoint that it came from with llama.cpp's own converter",
    )


def _base(recipe: Recipe, run: Path, name: str) -> Base | None:
    """The checkpoint of others that a stage's model goes back to; None for none."""
    from groundup.interchange import Base

    stage = origin_of(recipe, name)
    if not isinstance(stage.section, ImportSection):
        return None
    folder = Path(stage.section.source).absolute()
    cached = _HUB_CACHE.fullmatch(folder.as_posix())
    return Base(
        family=facts(run)["family"],
        name=cached[1].replace("--", "/") if cached else folder.resolve().name,
        on_hub=cached is not None,
        folder=run / stage.name / SOURCE,
        tuned=name != stage.name,
    )


def _adopted(run: Path) -> str:
    """The content of a tokenizer.json with the vocabulary of the import as it was: without what this package adds."""
    content, tokens = read_json(run / "import" / VOCABULARY / "tokenizer.json"), facts(run)["tokens"]
    content["added_tokens"] = [token for token in content["added_tokens"] if token["id"] < tokens]
    return json.dumps(content, ensure_ascii=False)
