"""Re-hashing a whole run against its manifests, and looking over a folder of runs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from groundup.build.record import RUN_JSON
from groundup.recipe import Recipe, RecipeError, Stage, load_recipe
from groundup.run import UserError, read_json, read_manifest, verify_directory


@dataclass(frozen=True)
class VerifyReport:
    """What was re-hashed: names of the stages, files and bytes in all, and one line a problem."""

    stages: tuple[str, ...]
    files: int
    bytes: int
    problems: tuple[str, ...]


def open_run(run: Path) -> Recipe:
    """The recipe a run was made from. Raises UserError where ``run`` is no run directory."""
    path = run / "recipe.toml"
    if not path.is_file():
        raise UserError(
            f"{str(run)!r} is not a run: it has no recipe.toml",
            mend="give a directory made by groundup build; groundup runs lists them",
        )
    return load_recipe(path)


def find_stage(recipe: Recipe, name: str) -> Stage:
    """The stage of that name. Raises UserError with the names there are."""
    for stage in recipe.ordered_stages():
        if stage.name == name:
            return stage
    names = ", ".join(stage.name for stage in recipe.ordered_stages())
    raise UserError(f"no stage {name!r} in this run", expected=f"one of {names}")


def origin_of(recipe: Recipe, name: str) -> Stage:
    """The stage from which a model's weights come in the end: an import, or training that began at random. Raises
    UserError for an unknown stage."""
    stage = find_stage(recipe, name)
    while stage.start is not None:
        stage = find_stage(recipe, stage.start)
    return stage


def verify(run: Path) -> VerifyReport:
    """Re-hash every stage of a run, and check that each was made from the inputs now in place."""
    recipe = open_run(run)
    stages, problems, files, size = [], [], 0, 0
    for stage in recipe.ordered_stages():
        directory = run / stage.name
        manifest = read_manifest(directory)
        if manifest is None:
            if directory.exists():
                problems.append(f"{stage.name}: unfinished; build again to complete it")
            continue
        stages.append(stage.name)
        files += len(manifest.files)
        size += sum(entry["bytes"] for entry in manifest.files.values())
        problems += verify_directory(directory)
        for name, fingerprint in manifest.inputs.items():
            source = read_manifest(run / name)
            if source is None:
                problems.append(f"{stage.name}: its input {name} is missing or unfinished")
            elif source.fingerprint != fingerprint:
                problems.append(f"{stage.name}: made from another {name} than the one now in place")
    if not stages and not problems:
        problems.append("no stage is built")
    return VerifyReport(tuple(stages), files, size, tuple(problems))


def list_runs(folder: Path) -> list[dict[str, Any]]:
    """Every run directly below ``folder``: name, path, recipe's stages, those done, seconds spent, when."""
    found = []
    for record in sorted(folder.glob(f"*/{RUN_JSON}")):
        run = record.parent
        try:
            content = read_json(record)
            stages = [stage.name for stage in open_run(run).ordered_stages()]
        except (ValueError, UserError, RecipeError):
            continue  # someone else's run.json, or a run that died before its recipe was written
        done = [name for name in stages if read_manifest(run / name) is not None]
        times = content.get("stages", {})
        found.append(
            {
                "name": content.get("name", run.name),
                "path": str(run),
                "stages": stages,
                "done": done,
                "seconds": round(sum(times.get(name, {}).get("seconds", 0.0) for name in done), 1),
                "updated": content.get("updated", ""),
            }
        )
    return found
