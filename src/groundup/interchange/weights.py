"""Save and load a model: ``model.safetensors`` beside ``config.json``. Nothing here ever unpickles."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from groundup.interchange.layout import configuration
from groundup.model import Architecture, Transformer
from groundup.model.positions import sinusoidal_table
from groundup.run import UserError, atomic_path, read_json, write_json

WEIGHTS = "model.safetensors"
CONFIG = "config.json"
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")


def save_model(model: Transformer, directory: Path) -> None:
    """Write a model's config.json and model.safetensors into ``directory``, each atomically.

    Tensors keep their dtype and have the Qwen3 layout's names; a tied head is not stored a second time.
    """
    directory = Path(directory)
    tensors = {name: weight.detach().cpu().contiguous() for name, weight in model.state_dict().items()}
    write_json(directory / CONFIG, configuration(model.arch, model.head_weight.dtype))
    write_tensors(tensors, directory / WEIGHTS)


def write_tensors(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Write tensors as a safetensors file that others may read, atomically."""
    with atomic_path(path) as temporary:
        save_file(dict(tensors), temporary, metadata={"format": "pt"})
        temporary.chmod(0o644)  # the library makes files that only their owner can read


def load_architecture(directory: Path) -> Architecture:
    """The architecture in ``directory``/config.json.

    Raises UserError where the file is missing, or was not written by this package.
    """
    path = Path(directory) / CONFIG
    try:
        config = read_json(path)
    except FileNotFoundError as error:
        raise UserError(f"no {CONFIG}", where=str(path), expected="a model directory of this package") from error
    except ValueError as error:
        raise UserError(f"{CONFIG} is no JSON: {error}", where=str(path)) from error
    try:
        return Architecture.from_dict(config["groundup"]["architecture"])
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{CONFIG} doesn't describe a model of this package ({type(error).__name__}: {error})",
            where=str(path),
            expected='the key "groundup" with the "architecture" that save_model writes',
        ) from error


def load_model(directory: Path, device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32) -> Transformer:
    """Read the model that :func:`save_model` wrote, in eval mode.

    Raises UserError for a missing or broken file, for a pickle in its place, and for tensors that the
    architecture doesn't have, lacks or shapes otherwise (listed by name).
    """
    directory = Path(directory)
    arch = load_architecture(directory)
    with torch.device("meta"):  # no time spent on initial values that the file replaces
        model = Transformer(arch)
    tensors = _read_tensors(directory / WEIGHTS, model.state_dict(), torch.device(device), dtype)
    model.load_state_dict(tensors, strict=True, assign=True)
    if arch.positions == "sinusoidal":  # a table that is computed, not stored
        table = sinusoidal_table(arch.context_length, arch.hidden_size)
        model.model.register_buffer("position_table", table.to(device), persistent=False)
    return model.eval()


def _read_tensors(
    path: Path, wanted: Mapping[str, Tensor], device: torch.device, dtype: torch.dtype
) -> dict[str, Tensor]:
    """The tensors of a file on ``device`` as ``dtype``, once their names and shapes are those of
    ``wanted``."""
    if not path.is_file():
        raise _missing(path)
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            names = list(file.keys())
            shapes = {name: tuple(file.get_slice(name).get_shape()) for name in names}
            problems = _differences(shapes, {name: tuple(tensor.shape) for name, tensor in wanted.items()})
            if problems:
                raise UserError(
                    f"the tensors in {path.name} are not those of the architecture in {CONFIG}:\n    "
                    + "\n    ".join(problems),
                    where=str(path),
                    mend="take both files from one save",
                )
            return {name: file.get_tensor(name).to(device=device, dtype=dtype) for name in wanted}
    except SafetensorError as error:
        raise UserError(f"not a readable safetensors file: {error}", where=str(path)) from error


def _missing(path: Path) -> UserError:
    """The error for a directory without weights; it says so where there is a pickle, which could run code."""
    pickles = sorted(file.name for file in path.parent.glob("*") if file.suffix in _PICKLES)
    if pickles:
        return UserError(
            f"{', '.join(pickles)}: weights in a pickle are refused, because loading one can run any code",
            where=str(path.parent),
            expected=path.name,
            mend="convert it to safetensors with a tool and in a place you trust",
        )
    return UserError(f"no {path.name}", where=str(path), mend="build the training stage first")


def _differences(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> Sequence[str]:
    """One line for each tensor that is missing, unknown or of another shape."""
    lines = [f"missing: {name} {list(wanted[name])}" for name in wanted if name not in found]
    lines += [f"unknown: {name} {list(found[name])}" for name in found if name not in wanted]
    for name in wanted:
        if name in found and found[name] != wanted[name]:
            lines.append(f"shape: {name} is {list(found[name])}, should be {list(wanted[name])}")
    return lines
