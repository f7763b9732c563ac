"""What the cover, the map and the last chapter say: the run, its stages, the machine, the way to make it again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from groundup.recipe import DECODER_KINDS, BookSection, Recipe, dump_toml
from groundup.run import Manifest, read_json, read_manifest

Facts = dict[str, Any]


def manifests(run: Path, recipe: Recipe) -> dict[str, Manifest]:
    """The manifest of every stage that is done, by name, in the order of the build; the book itself left out."""
    found = {}
    for stage in recipe.ordered_stages():
        manifest = read_manifest(run / stage.name)
        if stage.kind != "book" and manifest is not None:
            found[stage.name] = manifest
    return found


def record(run: Path) -> Facts:
    """RUN/run.json, or nothing where it is missing."""
    try:
        content = read_json(run / "run.json")
    except (FileNotFoundError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def opening(section: BookSection, run: Path, recipe: Recipe, done: dict[str, Manifest]) -> Facts:
    """Title, name, date, stages with their times, and the models there are."""
    known = record(run)
    times = known.get("stages", {})
    stages = [
        {
            "name": name,
            "kind": manifest.kind,
            "fingerprint": manifest.fingerprint,
            "started": manifest.started,
            "finished": manifest.finished,
            "seconds": times.get(name, {}).get("seconds"),
            "metrics": manifest.metrics,
        }
        for name, manifest in done.items()
    ]
    trained = [stage for stage in stages if stage["kind"] in DECODER_KINDS]
    return {
        "title": section.title,
        "author": section.author,
        "name": recipe.run.name or known.get("name") or run.resolve().name,
        "seed": recipe.run.seed,
        "finished": max((stage["finished"] for stage in stages), default=known.get("updated", "")),
        "stages": stages,
        "models": [stage["name"] for stage in trained],
        "tokens_seen": sum(stage["metrics"].get("tokens", 0) for stage in trained),
        "seconds": sum(stage["seconds"] or 0 for stage in stages),
    }


def reproduction(run: Path, recipe: Recipe, done: dict[str, Manifest]) -> Facts:
    """What is needed to make the run again: recipe, command, versions, machine, checksums of the weights."""
    known = record(run)
    weights = [
        {"stage": name, "file": f"{name}/{file}", "bytes": entry["bytes"], "sha256": entry["sha256"]}
        for name, manifest in done.items()
        for file, entry in manifest.files.items()
        if file.endswith(("final/model.safetensors", "tokenizer.json")) and manifest.kind != "export"
    ]
    return {
        "recipe": dump_toml(recipe).strip(),
        "command": " ".join(known.get("command", [])),
        "versions": known.get("versions", {}),
        "machine": known.get("machine", {}),
        "hardware": known.get("hardware", {}),
        "git": known.get("git"),
        "files": weights,
    }
