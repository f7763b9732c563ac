"""Export to GGUF: one file with weights, numbers and vocabulary, as llama.cpp, Ollama and LM Studio load it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import gguf
import numpy as np
import torch
from gguf import GGMLQuantizationType, GGUFValueType, LlamaFileType
from numpy.typing import NDArray
from torch import Tensor

from groundup.interchange.fold import Folded, fields_folded, nearest
from groundup.interchange.gguf_layouts import GGUF_LAYOUTS, GgufLayout, GgufTensor
from groundup.interchange.gguf_tokenizer import GgufVocabulary, gguf_vocabulary
from groundup.interchange.weights import load_architecture, open_weights
from groundup.model import Architecture, parameter_count
from groundup.model.count import model_parts
from groundup.run import UserError, atomic_path, log
from groundup.tokenizer import Tokenizer

Quantization = Literal["f32", "f16", "bf16", "q8_0", "q4_0"]
FILE_TYPES = {
    "f32": LlamaFileType.ALL_F32,
    "f16": LlamaFileType.MOSTLY_F16,
    "bf16": LlamaFileType.MOSTLY_BF16,
    "q8_0": LlamaFileType.MOSTLY_Q8_0,
    "q4_0": LlamaFileType.MOSTLY_Q4_0,
}
TYPES = {name: GGMLQuantizationType[name.upper()] for name in FILE_TYPES}
STORED: dict[torch.dtype, Quantization] = {torch.float16: "f16", torch.bfloat16: "bf16"}
"""What keeps weights of a dtype as they are; of all others f32."""
QUANTISED = ("q8_0", "q4_0")
_HALF = float(np.finfo(np.float16).max)
LIMITS = {TYPES["f16"]: _HALF, TYPES["q8_0"]: 127 * _HALF, TYPES["q4_0"]: 8 * _HALF}
"""Largest number of the types with float16 in them: by itself, or as the scale of 127 and 8 steps."""
BLOCK = 32
"""Numbers that share a scale in q8_0 and q4_0; a row must be a multiple."""


def export_gguf(
    model_dir: Path,
    tokenizer_dir: Path,
    out: Path,
    *,
    quantization: Quantization | None = None,
    name: str = "groundup",
    licence: str | None = None,
) -> dict[str, Any]:
    """Write a model and its tokenizer into the file ``out``, which appears as a whole or not at all.

    Tensors are read, changed and written one at a time, so that memory is bounded by the largest one and its copies.
    Norms, biases, routers and position tables stay float32. With q4_0 the embedding and the head are q8_0, for errors
    there cost most; rows that are no multiple of 32 long become f16.

    Args:
        quantization: f32, f16 and bf16 are plain numbers; q8_0 and q4_0 are 8 or 4 bits a weight and a float16 scale
            for 32 of them (ggml's blocks; the package `gguf` does the arithmetic). None keeps the weights' own dtype.
        name: what the file calls the model.
        licence: an SPDX expression for it, where there is one.

    Returns:
        metrics: bytes, bits a weight, parameters, tensors, layout, quantization, and notes, which are logged too: what
        was worked into the weights, left out or stored otherwise than asked for.

    Raises:
        UserError: if llama.cpp has no layout for the architecture or would split words otherwise, a file is missing or
            broken, or weights are too large for f16 or not finite.
    """
    model_dir = Path(model_dir)
    arch = load_architecture(model_dir)
    layout, form = gguf_form(arch)
    tokenizer = Tokenizer.load(tokenizer_dir)
    if tokenizer.vocabulary_size > arch.vocabulary_size:
        raise UserError(
            f"the tokenizer has {tokenizer.vocabulary_size} ids, the model only {arch.vocabulary_size} rows",
            where=str(tokenizer_dir),
            mend="export a model with the tokenizer it was trained on",
        )
    vocabulary = gguf_vocabulary(tokenizer, arch.vocabulary_size)
    weights = Folded(open_weights(model_dir, {part.name: part.shape for part in model_parts(arch)}), arch, form)
    chosen = quantization or STORED.get(weights.dtype("model.embed_tokens.weight"), "f32")
    tensors = layout.tensors(form, weights.shapes)
    types = {tensor.name: type_of(tensor, chosen) for tensor in tensors}
    with atomic_path(out) as temporary:
        writer = gguf.GGUFWriter(temporary, layout.model_type)
        try:
            _write_keys(writer, layout, form, chosen, name, licence)
            _write_vocabulary(writer, vocabulary)
            _write_tensors(writer, tensors, types, weights)
        finally:
            writer.close()
        temporary.chmod(0o644)
    notes = _notes(arch, layout, form, chosen, types)
    for note in notes:
        log(f"{out.name}: {note}")
    size, numbers = out.stat().st_size, sum(int(np.prod(tensor.shape)) for tensor in tensors)
    return {
        "gguf_bytes": size,
        "gguf_bits_per_weight": round(8 * size / numbers, 3),
        "gguf_parameters": parameter_count(form).total,
        "gguf_tensors": len(tensors),
        "gguf_layout": layout.model_type,
        "gguf_quantization": chosen,
        "gguf_notes": notes,
    }


def gguf_form(arch: Architecture) -> tuple[GgufLayout, Architecture]:
    """The layout of llama.cpp that needs least folding, and what folding makes of the architecture for it.

    Raises UserError, with the options that stand in the way, where there is none.
    """
    forms = [(layout, nearest(arch, layout)) for layout in GGUF_LAYOUTS]
    fits = [form for form in forms if not form[0].reasons(form[1])]
    if not fits:
        layout, reasons = min(((each, each.reasons(form)) for each, form in forms), key=lambda pair: len(pair[1]))
        raise UserError(
            f"llama.cpp has no layout for a model with {' and '.join(reasons)}",
            expected=f"what its layout {layout.model_type!r} expresses, which comes nearest",
            mend="this package itself loads the model as it is; docs/export.md tells what a GGUF file can hold",
        )
    return min(fits, key=lambda form: len(fields_folded(arch, form[1])))


def type_of(tensor: GgufTensor, quantization: Quantization) -> GGMLQuantizationType:
    """How a tensor is stored in a file of this quantization."""
    if tensor.kind == "exact":
        return GGMLQuantizationType.F32
    if quantization in QUANTISED and tensor.shape[-1] % BLOCK:
        return GGMLQuantizationType.F16
    return TYPES["q8_0" if quantization == "q4_0" and tensor.kind == "table" else quantization]


def _write_keys(
    writer: gguf.GGUFWriter,
    layout: GgufLayout,
    arch: Architecture,
    quantization: Quantization,
    name: str,
    licence: str | None,
) -> None:
    """What the file says of the model; the writer itself names the layout."""
    writer.add_type("model")
    writer.add_name(name)
    writer.add_size_label(_size_label(arch))
    if licence:
        writer.add_license(licence)
    writer.add_file_type(FILE_TYPES[quantization])
    if quantization in QUANTISED:
        writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    kinds = {int: GGUFValueType.UINT32, float: GGUFValueType.FLOAT32, str: GGUFValueType.STRING}
    for key, value in layout.numbers(arch).items():
        writer.add_key_value(f"{layout.model_type}.{key}", value, kinds[type(value)])


def _size_label(arch: Architecture) -> str:
    """Parameters in short, as 3.4M: what programs show beside a model's name."""
    count = parameter_count(arch).total
    power = min((len(str(count)) - 1) // 3, 3)
    return f"{count / 1000**power:.4g}{('', 'K', 'M', 'B')[power]}"


def _write_vocabulary(writer: gguf.GGUFWriter, vocabulary: GgufVocabulary) -> None:
    writer.add_tokenizer_model(vocabulary.model)
    if vocabulary.pre is not None:
        writer.add_tokenizer_pre(vocabulary.pre)
    writer.add_token_list(vocabulary.tokens)
    writer.add_token_types(vocabulary.types)
    if vocabulary.model == "llama":
        writer.add_token_scores(vocabulary.scores)
        writer.add_add_space_prefix(False)
    else:
        writer.add_token_merges(vocabulary.merges)
    for role, number in vocabulary.ids.items():
        writer.add_uint32(f"tokenizer.ggml.{'padding' if role == 'pad' else role}_token_id", number)
    writer.add_add_bos_token(False)
    writer.add_add_eos_token(False)
    writer.add_chat_template(vocabulary.chat_template)


def _write_tensors(
    writer: gguf.GGUFWriter,
    tensors: Sequence[GgufTensor],
    types: Mapping[str, GGMLQuantizationType],
    weights: Folded,
) -> None:
    """The header, which states every tensor, then one after the other."""
    for tensor in tensors:
        kind = types[tensor.name]
        width, size = gguf.GGML_QUANT_SIZES[kind]
        shape = (*tensor.shape[:-1], tensor.shape[-1] // width * size)  # in bytes
        writer.add_tensor_info(tensor.name, shape, np.dtype(np.uint8), int(np.prod(shape)), kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for tensor in tensors:
        made = tensor.make([weights.read(name, dtype=torch.float32) for name in tensor.sources])
        writer.write_tensor_data(encoded(made, types[tensor.name], tensor.name))


def encoded(tensor: Tensor, kind: GGMLQuantizationType, name: str = "a tensor") -> NDArray[Any]:
    """A float32 tensor in the bytes of a ggml type.

    Raises UserError for numbers that are not finite, and for those beyond a type's float16.
    """
    values: NDArray[np.float32] = tensor.contiguous().numpy()
    largest = float(np.abs(values).max(initial=0.0))
    if not math.isfinite(largest):
        raise UserError(f"{name} holds numbers that are not finite", mend="export an earlier stage or checkpoint")
    limit = LIMITS.get(kind, math.inf)
    if largest > limit:
        raise UserError(
            f"{name} has the value {largest:g}, and {kind.name.lower()} ends at {limit:g}", mend="export as bf16 or f32"
        )
    encoded: NDArray[Any] = gguf.quantize(values, kind)
    return encoded


def _notes(
    arch: Architecture,
    layout: GgufLayout,
    form: Architecture,
    quantization: Quantization,
    types: Mapping[str, GGMLQuantizationType],
) -> list[str]:
    """What an export changes, in sentences."""
    notes = []
    if folded := fields_folded(arch, form):
        notes.append(f"worked into the weights: {', '.join(folded)}")
    if arch.predict_ahead:
        notes.append("left out: the blocks of predict_ahead, which training alone uses")
    wide = [name for name, kind in types.items() if kind == GGMLQuantizationType.F16]
    if quantization in QUANTISED and wide:
        notes.append(f"f16, since their rows are no multiple of {BLOCK} long: {', '.join(wide)}")
    if (context := layout.context(form)) < arch.context_length:
        notes.append(
            f"the file states a context of {context} tokens, not {arch.context_length}: llama.cpp has no window in "
            f"its layout {layout.model_type!r}, and up to there none is needed"
        )
    return notes
