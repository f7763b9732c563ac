"""Save and load a model: ``model.safetensors`` beside ``config.json``. Nothing here ever unpickles."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from groundup.interchange.source import CONFIG, no_weights
from groundup.interchange.stock import configuration
from groundup.interchange.tensor_files import WEIGHTS, TensorFiles, differences, planned, write_file
from groundup.model import Architecture, Transformer
from groundup.run import UserError, read_json, write_json

__all__ = ["CONFIG", "WEIGHTS", "load_architecture", "load_model", "open_weights", "save_model"]


def save_model(model: Transformer, directory: Path) -> None:
    """Write a model's config.json and model.safetensors into ``directory``, each atomically.

    Tensors keep their dtype and have our names, those of the Qwen3 layout and its like; a tied head is not stored a
    second time. No more than one tensor is copied at a time.
    """
    directory = Path(directory)
    write_json(directory / CONFIG, configuration(model.arch, model.head_weight.dtype))
    write_file(planned(model.state_dict()), directory / WEIGHTS)


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
            mend="groundup import makes a run of another program's checkpoint",
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
    files = open_weights(directory, {name: tuple(weight.shape) for name, weight in model.state_dict().items()})
    tensors: dict[str, Tensor] = {name: files.read(name).to(device=device, dtype=dtype) for name in model.state_dict()}
    model.load_state_dict(tensors, strict=True, assign=True)
    model.model.fill_tables()
    return model.eval()


def open_weights(directory: Path, wanted: dict[str, tuple[int, ...]]) -> TensorFiles:
    """The file of a model's tensors, once their names and shapes are those of ``wanted``. Raises UserError."""
    path = directory / WEIGHTS
    if not path.is_file():
        raise no_weights(directory)
    files = TensorFiles([path])
    problems = list(differences({name: entry.shape for name, entry in files.entries.items()}, wanted))
    if problems:
        raise UserError(
            f"the tensors in {path.name} are not those of the architecture in {CONFIG}:\n    "
            + "\n    ".join(problems),
            where=str(path),
            mend="take both files from one save",
        )
    return files
