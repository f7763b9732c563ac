"""What `groundup show` is to draw: the model of a run, a directory, a preset or a recipe."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from groundup.model import Architecture, EncoderDecoderArchitecture
    from groundup.recipe import Recipe, Seq2SeqSection
    from groundup.recipe.architectures import ArchitecturePreset

    AnyArchitecture = Architecture | EncoderDecoderArchitecture

SAMPLED = 2000
"""Sentence pairs of each source that a vocabulary is counted in, before training counts it in all."""


@dataclass(frozen=True)
class Subject:
    """A model to be drawn: its name, its architecture, the preset where it is one, and what else is to be said."""

    name: str
    arch: AnyArchitecture
    preset: Mapping[str, Any] | None = None
    notes: Mapping[str, str] = field(default_factory=dict)


def find_subject(what: str, stage: str | None) -> Subject:
    """What was named: a run or model directory, a recipe or a preset. Raises UserError or RecipeError for neither."""
    from groundup.model import Architecture
    from groundup.recipe import ModelSection, RecipeError, builtin_recipes, load_recipe
    from groundup.recipe.architectures import architecture
    from groundup.run import UserError

    path = Path(what)
    if path.is_dir() and (path / "recipe.toml").is_file():
        return _of_run(path, stage)
    if stage is not None:
        raise UserError(f"--stage {stage} needs a run", expected="a run directory", mend="leave --stage out")
    if path.is_dir():
        return _of_directory(path)
    if what in builtin_recipes() or path.suffix == ".toml":
        return _of_recipe(f"recipe {what}", load_recipe(what))
    try:
        preset = architecture(what)
    except RecipeError as error:
        raise UserError(
            f"{what!r} is no run, preset or recipe",
            expected="a directory, a TOML file, or a name that groundup show or groundup recipes lists",
            mend=error.mend,
        ) from None
    arch = Architecture.from_section(ModelSection(preset=what), preset.vocabulary_size)
    return Subject(what, arch, about(preset))


def about(preset: ArchitecturePreset) -> dict[str, Any]:
    """What is known of a preset, JSON-able."""
    return {
        "name": preset.name,
        "family": preset.family,
        "about": preset.about,
        "source": preset.source,
        "note": preset.note,
        "published_parameters": preset.parameters,
    }


def _of_run(run: Path, stage: str | None) -> Subject:
    """The last trained decoder of a run, or for want of one the last translator, or the named stage's model; what the
    recipe describes where none is trained."""
    from groundup.build import find_stage, open_run, translators
    from groundup.run import UserError, read_manifest

    recipe = open_run(run)
    models = [*translators(recipe), *recipe.trained_stages()]
    if stage is not None:
        if find_stage(recipe, stage).name not in models:
            raise UserError(f"stage {stage!r} trains no model", expected=f"one of {', '.join(models)}")
        models = [stage]
    for name in reversed(models):
        if read_manifest(run / name) is not None:
            arch = _of_directory(run / name / "final").arch
            return Subject(f"{run}, stage {name}", arch, notes=_imported(recipe, run, name))
    if stage is not None:
        raise UserError(f"stage {stage!r} is not built yet", where=str(run), mend="leave --stage out")
    return _of_recipe(f"{run}, not trained yet", recipe)


def _imported(recipe: Recipe, run: Path, name: str) -> dict[str, str]:
    """Where the weights of a stage came from, if they came from a checkpoint of others."""
    from groundup.build import import_facts, origin_of

    if recipe.import_ is None or origin_of(recipe, name).kind != "import":
        return {}
    facts = import_facts(run)
    text = f"{facts['family']}, {facts['dtype']}, {facts['tokens']:,} tokens in {facts['rows']:,} rows, from "
    return {"imported": text + recipe.import_.source}


def _of_directory(path: Path) -> Subject:
    """The model in a directory: one of this package, or a checkpoint in a stock layout."""
    from groundup.interchange import load_architecture, source_architecture
    from groundup.interchange.source import CONFIG, read_settings
    from groundup.model import EncoderDecoderArchitecture
    from groundup.run import UserError

    own = read_settings(path / CONFIG).get("groundup")
    if own is None:
        family, arch = source_architecture(path)
        return Subject(str(path), arch, notes={"layout": f"{family}; groundup import makes a run of it"})
    if not isinstance(own, dict) or "encoder_decoder" not in own:
        return Subject(str(path), load_architecture(path))
    try:
        return Subject(str(path), EncoderDecoderArchitecture.model_validate(own["encoder_decoder"]))
    except ValueError as error:
        raise UserError(f"{CONFIG} describes no encoder-decoder: {error}", where=str(path)) from error


def _of_recipe(name: str, recipe: Recipe) -> Subject:
    """What a recipe describes: the shape of its checkpoint, its translator where it trains nothing else, or [model]."""
    from groundup.build import imported_architecture, translators
    from groundup.build.verify import find_stage
    from groundup.recipe import Seq2SeqSection
    from groundup.run import UserError

    if recipe.import_ is not None:
        found = imported_architecture(recipe.import_)
        if found is None:
            raise UserError(
                f"{name}: the shape is that of the checkpoint, and there is none in {recipe.import_.source!r}",
                where="[import] source",
                mend="groundup show DIR draws a checkpoint that lies elsewhere",
            )
        return Subject(name, found[1], notes={"checkpoint": f"{found[0]}, from {recipe.import_.source}"})
    names = translators(recipe)
    if names and not recipe.trained_stages():
        section = find_stage(recipe, names[-1]).section
        if isinstance(section, Seq2SeqSection):
            return _of_translator(name, section, recipe.run.seed)
    return Subject(name, _of_model(recipe))


def _of_model(recipe: Recipe) -> Architecture:
    """[model] with the vocabulary of the recipe's tokenizer; of one that is adopted, the preset's."""
    from groundup.model import Architecture
    from groundup.recipe import TokenizerSection
    from groundup.recipe.architectures import architecture

    tokenizer = recipe.tokenizer
    learned = tokenizer is not None and tokenizer.adopt is None
    if recipe.model.preset is not None and not learned:
        return Architecture.from_section(recipe.model, architecture(recipe.model.preset).vocabulary_size)
    return Architecture.from_section(recipe.model, (tokenizer or TokenizerSection()).vocabulary_size)


def _of_translator(name: str, section: Seq2SeqSection, seed: int) -> Subject:
    """[seq2seq.model] with the vocabulary of the first sentence pairs, for training alone reads them all."""
    from groundup.model import EncoderDecoderArchitecture
    from groundup.recipe import PairsTable
    from groundup.run import UserError
    from groundup.training.sentence_pairs import read_pairs
    from groundup.training.seq2seq import learn_vocabularies

    tables = [item if isinstance(item, PairsTable) else PairsTable(path=item) for item in section.data]
    few = tuple(table.model_copy(update={"count": min(table.count or SAMPLED, SAMPLED)}) for table in tables)
    section = section.model_copy(update={"data": few, "test_data": (), "tests": 1})
    try:
        learned = learn_vocabularies(section, read_pairs(section, seed).training)
        sizes = (len(learned[0]), len(learned[1]))
        text = f"as in the first {SAMPLED:,} sentence pairs of each source; training counts it in all"
    except (UserError, OSError) as error:
        sizes = (section.max_vocabulary, section.max_vocabulary)
        text = f"counted with max_vocabulary, since the data can't be read: {getattr(error, 'what', error)}"
    return Subject(name, EncoderDecoderArchitecture.from_section(section.model, *sizes), notes={"vocabulary": text})
