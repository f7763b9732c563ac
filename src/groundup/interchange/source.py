"""Other people's checkpoint directories: which files are read, and what stands in the way."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any

from groundup.interchange.tensor_files import INDEX, WEIGHTS, TensorFiles
from groundup.run import UserError, read_json

CONFIG = "config.json"
GENERATION = "generation_config.json"
LICENCES = ("LICENSE*", "LICENCE*", "NOTICE*")
"""Patterns of the files that say what may be done with a checkpoint."""
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
_SHARD = re.compile(r"(.+)-(\d{5})-of-(\d{5})\.safetensors")
_NATIVE = ("consolidated", "adapter_")
"""Beginnings of the names of files with other layouts than config.json's, which may lie beside them."""


class MissingFiles(UserError):
    """Files of a checkpoint are not there, or not any more; of those that are, nothing is said."""


def checkpoint_files(source: Path) -> list[Path]:
    """Every file of a checkpoint directory that an import reads: config.json, generation_config.json and the index
    where there are any, and the weights.

    Raises MissingFiles where some are not there, and UserError as :func:`open_checkpoint` does.
    """
    source = Path(source)
    read_settings(source / CONFIG)
    beside = [source / name for name in (GENERATION, INDEX) if (source / name).is_file()]
    return [source / CONFIG, *beside, *_weight_files(source)]


def open_checkpoint(source: Path) -> TensorFiles:
    """The tensors of a checkpoint: of the files that the index names, of model.safetensors, or of the lone files there
    are.

    Raises UserError where files are missing or broken, where tensors are not in the file that the index names, and
    where there are pickles only.
    """
    files = TensorFiles(_weight_files(Path(source)))
    index = Path(source) / INDEX
    if index.is_file():
        lost = [
            f"{name}: {'in ' + files.entries[name].path.name if name in files.entries else 'nowhere'}, not in {file}"
            for name, file in _weight_map(index).items()
            if name not in files.entries or files.entries[name].path.name != file
        ]
        if lost:
            raise UserError(
                f"{len(lost)} tensors are not where the index says:\n    " + "\n    ".join(lost),
                where=str(index),
                mend="fetch index and weights again, from one revision",
            )
    return files


def read_settings(path: Path) -> dict[str, Any]:
    """The object in a JSON file. Raises MissingFiles where there is none, UserError for another content."""
    try:
        content = read_json(path)
    except FileNotFoundError as error:
        raise MissingFiles(f"no {path.name}", where=str(path.parent), expected="a Hugging Face checkpoint") from error
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path.name} is no JSON: {error}", where=str(path)) from error
    if not isinstance(content, dict):
        raise UserError(f"{path.name} holds a {type(content).__name__}", where=str(path), expected="an object")
    return content


def _weight_files(source: Path) -> list[Path]:
    if (source / INDEX).is_file():
        return _indexed(source)
    if (source / WEIGHTS).is_file():
        return [source / WEIGHTS]
    lone = sorted(path for path in source.glob("*.safetensors") if not path.name.startswith(_NATIVE))
    if not lone:
        raise no_weights(source)
    for path in lone:
        if match := _SHARD.fullmatch(path.name):
            stem, count = match[1], match[3]
            every = [f"{stem}-{i:05d}-of-{count}.safetensors" for i in range(1, int(count) + 1)]
            _check_present(source, Counter(every), every)
    return lone


def _indexed(source: Path) -> list[Path]:
    """The files that the index names."""
    names = _weight_map(source / INDEX)
    for file in names.values():
        if Path(file).name != file or not file.endswith(".safetensors"):
            raise UserError(
                f"the index names the file {file!r}",
                where=str(source / INDEX),
                expected="safetensors files beside it",
                mend=_CONVERT if file.endswith(PICKLES) else None,
            )
    files = Counter(names.values())
    _check_present(source, files, sorted(files))
    return [source / file for file in sorted(files)]


def _weight_map(index: Path) -> dict[str, str]:
    names = read_settings(index).get("weight_map")
    if not isinstance(names, dict) or not names or not all(isinstance(file, str) for file in names.values()):
        raise UserError("no weight_map", where=str(index), expected="an object of tensor names and file names")
    return names


def _check_present(source: Path, tensors: Counter[str], files: list[str]) -> None:
    missing = [file for file in files if not (source / file).is_file()]
    if missing:
        lines = "\n    ".join(f"{file}{f', {tensors[file]} tensors' if tensors[file] > 1 else ''}" for file in missing)
        raise MissingFiles(
            f"{len(missing)} of {len(files)} weight files are missing:\n    {lines}",
            where=str(source),
            mend="fetch them; a download may have ended early",
        )


_CONVERT = (
    "convert it to safetensors in a place you trust, such as a container without network and secrets: "
    "transformers.AutoModelForCausalLM.from_pretrained(OLD, weights_only=True).save_pretrained(NEW)"
)


def no_weights(directory: Path) -> MissingFiles:
    """The error for a directory without weights; it says so where there is a pickle, which could run code."""
    pickles = sorted(file.name for file in directory.glob("*") if file.suffix in PICKLES)
    if pickles:
        return MissingFiles(
            f"{', '.join(pickles)}: weights in a pickle are refused, because loading one can run any code",
            where=str(directory),
            expected=WEIGHTS,
            mend=_CONVERT,
        )
    others = sorted(file.name for file in directory.glob("*.safetensors"))
    beside = f"; {', '.join(others)} are of another layout" if others else ""
    return MissingFiles(f"no {WEIGHTS}{beside}", where=str(directory))
