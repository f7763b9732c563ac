"""Import: another program's checkpoint becomes a model directory of ours."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import prod
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError

from groundup.interchange.layouts import open_config
from groundup.interchange.layouts.layout import Layout
from groundup.interchange.layouts.pieces import Made
from groundup.interchange.layouts.settings import Settings
from groundup.interchange.source import CONFIG, GENERATION, open_checkpoint, read_settings
from groundup.interchange.stock import configuration
from groundup.interchange.tensor_files import WEIGHTS, Planned, TensorFiles, differences, write_file
from groundup.model import Architecture, parameter_count
from groundup.model.count import model_parts
from groundup.recipe.errors import nearest
from groundup.run import UserError, write_json


@dataclass(frozen=True)
class ImportReport:
    """What was imported."""

    family: str
    """the layout's `model_type`"""
    architecture: Architecture
    parameters: int
    dtype: str
    """of most of them, as "bfloat16"; every tensor keeps its own"""
    rows: int
    """of the embedding table"""
    stop_ids: tuple[int, ...]
    """tokens that end an answer"""
    left_out: tuple[str, ...]
    """tensors and keys of config.json that nothing of ours stands for, each with the reason"""


def import_checkpoint(source: Path, out: Path) -> ImportReport:
    """Write out/model.safetensors and out/config.json of a Hugging Face checkpoint directory.

    Every tensor keeps its dtype, and none is changed. No more than one is held in memory.

    Args:
        source: config.json and weights in safetensors, in one file or several with or without an index.
        out: a directory, which :func:`load_model` reads afterwards.

    Raises UserError for a family or an option that has no part here, by its name; for tensors that are missing, unknown
    or of another shape, all of them; for pickles, quantised weights and files that are missing or broken.
    """
    source, out = Path(source), Path(out)
    config = read_settings(source / CONFIG)
    if source.resolve() == out.resolve():
        raise UserError("source and destination are the same directory", where=str(source))
    layout, settings = open_config(config, str(source / CONFIG))
    arch = read_architecture(layout, settings)
    files = open_checkpoint(source)
    made, left_out = _matched(layout, arch, files, source)
    plans = [_planned(tensor, files) for tensor in made]
    kinds: Counter[torch.dtype] = Counter()
    for plan in plans:
        kinds[plan.dtype] += prod(plan.shape)
    dtype = kinds.most_common(1)[0][0]
    ids = {key: config.get(f"{key}_token_id", settings.values.get(f"{key}_token_id")) for key in ("bos", "eos", "pad")}
    stop_ids = _stop_ids(source, ids["eos"])
    unread = [f"{CONFIG}: {key} = {settings.values[key]!r}" for key in settings.unread() if settings.values[key]]
    write_file(plans, out / WEIGHTS)
    write_json(out / CONFIG, configuration(arch, dtype, prefer=layout.model_type, **ids))
    return ImportReport(
        family=layout.model_type,
        architecture=arch,
        parameters=parameter_count(arch).total,
        dtype=str(dtype).removeprefix("torch."),
        rows=arch.vocabulary_size,
        stop_ids=stop_ids,
        left_out=(*left_out, *unread),
    )


def source_architecture(source: Path) -> tuple[str, Architecture]:
    """Family and architecture of a checkpoint directory, as its config.json has them; the weights are not looked at.

    Raises MissingFiles where there is no config.json, UserError for a family or an option that has no part here.
    """
    path = Path(source) / CONFIG
    layout, settings = open_config(read_settings(path), str(path))
    return layout.model_type, read_architecture(layout, settings)


def read_architecture(layout: Layout, settings: Settings) -> Architecture:
    """Our architecture of a config.json. Raises UserError for what it cannot say or we have no part for."""
    try:
        return Architecture.from_dict(layout.read(settings))
    except ValidationError as error:
        faults = "; ".join(": ".join((*map(str, fault["loc"]), fault["msg"])) for fault in error.errors())
        raise UserError(f"not a model that can be: {faults}", where=settings.where) from error


def _matched(layout: Layout, arch: Architecture, files: TensorFiles, source: Path) -> tuple[list[Made], list[str]]:
    """How our tensors are made of the files', and which of theirs are left out. Raises UserError, with all names, where
    the two don't fit."""
    shapes = {part.name: part.shape for part in model_parts(arch)}
    on_disk = _names(layout, files, source)
    made = [_way(ways, on_disk) for ways in layout.ours(arch, shapes)]
    wanted = {piece.name: piece.shape for tensor in made for piece in tensor.pieces}
    left_out = []
    for name, disk in sorted(on_disk.items()):
        if name in wanted:
            continue
        why = layout.why_left_out(name)
        if why is None and name == "lm_head.weight" and arch.tied_embeddings:
            embedding = on_disk.get(_embedding(made))
            if embedding is not None and _equal(files, disk, embedding):
                why = "the same as the embedding, with which it is shared"
        if why is not None:
            left_out.append(f"{disk}: {why}")
            del on_disk[name]
    _check_shapes(files, on_disk, wanted, source, arch)
    renamed = [
        tensor._replace(pieces=tuple(piece._replace(name=on_disk[piece.name]) for piece in tensor.pieces))
        for tensor in made
    ]
    return renamed, left_out


def _names(layout: Layout, files: TensorFiles, source: Path) -> dict[str, str]:
    """The layout's name of every tensor, and that in the files."""
    found: dict[str, str] = {}
    for disk in files.entries:
        name = layout.canonical(disk)
        if name in found:
            raise UserError(f"{found[name]} and {disk} are both the layout's {name}", where=str(source))
        found[name] = disk
    return found


def _way(ways: Sequence[Made], present: Mapping[str, str]) -> Made:
    """The way to make a tensor of which most is present, the first of several."""
    return max(ways, key=lambda way: sum(piece.name in present for piece in way.pieces) / len(way.pieces))


def _embedding(made: Sequence[Made]) -> str:
    return next(tensor.pieces[0].name for tensor in made if tensor.name == "model.embed_tokens.weight")


def _equal(files: TensorFiles, first: str, second: str) -> bool:
    """Whether two tables are the same, read some rows at a time."""
    shape = files.entries[first].shape
    if not shape or shape != files.entries[second].shape:
        return False
    spans = [slice(row, row + 1024) for row in range(0, shape[0], 1024)]
    return all(torch.equal(files.read(first, (span,)), files.read(second, (span,))) for span in spans)


def _check_shapes(
    files: TensorFiles,
    on_disk: Mapping[str, str],
    wanted: Mapping[str, tuple[int, ...]],
    source: Path,
    arch: Architecture,
) -> None:
    """Raise UserError where names or shapes are not those that the configuration says."""
    found = {name if name in wanted else disk: files.entries[disk].shape for name, disk in on_disk.items()}
    known = {_without_numbers(name): name for name in wanted}
    hints: dict[str, str] = {}
    for name in found.keys() - wanted.keys():
        hint = nearest(_without_numbers(name), known)
        hints[name] = f"; {hint}" if hint else ""
    problems = list(differences(found, wanted, hints))
    if not problems:
        return
    tied = arch.tied_embeddings and "lm_head.weight" in on_disk
    raise UserError(
        f"the tensors are not those that {CONFIG} says:\n    " + "\n    ".join(problems),
        where=str(source),
        expected="a head that equals the embedding, as tie_word_embeddings = true says" if tied else None,
        mend="take weights and configuration from one revision" + ("; or set it to false" if tied else ""),
    )


def _without_numbers(name: str) -> str:
    """A name with N for the number of layer and expert: all layers' tensors are alike."""
    return re.sub(r"\.\d+(?=\.|$)", ".N", name)


def _planned(tensor: Made, files: TensorFiles) -> Planned:
    dtypes = {files.dtype(piece.name) for piece in tensor.pieces}
    if len(dtypes) > 1:
        kinds = ", ".join(sorted(str(dtype) for dtype in dtypes))
        first = tensor.pieces[0].name
        raise UserError(f"{first} and its like are of several dtypes ({kinds})", where=str(files.entries[first].path))
    return Planned(tensor.name, dtypes.pop(), tensor.shape, partial(tensor.chunks, files.read))


def _stop_ids(source: Path, eos: Any) -> tuple[int, ...]:
    """`eos_token_id` of generation_config.json, else that of config.json."""
    path = source / GENERATION
    where = path if path.is_file() else source / CONFIG
    if path.is_file():
        eos = read_settings(path).get("eos_token_id", eos)
    ids = [] if eos is None else eos if isinstance(eos, list) else [eos]
    if not all(type(number) is int and number >= 0 for number in ids):
        raise UserError(f"eos_token_id = {eos!r}", where=str(where), expected="an id or a list of ids")
    return tuple(ids)
