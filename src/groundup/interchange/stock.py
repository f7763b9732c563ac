"""The stock layout of an architecture, if there is one, and its config.json."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch

from groundup.interchange.fold import fields_folded, nearest
from groundup.interchange.layouts import LAYOUTS, layout_named
from groundup.interchange.layouts.layout import Layout
from groundup.model import Architecture
from groundup.model.count import model_parts
from groundup.run import UserError

OWN_MODEL_TYPE = "groundup"
"""``model_type`` of a directory that no stock program reads as it is."""

Ids = int | list[int] | None


@dataclass(frozen=True)
class StockForm:
    """How an architecture looks in a stock layout."""

    layout: Layout
    arch: Architecture
    """what the layout expresses: the model's own, after what can be folded is folded"""
    folded: tuple[str, ...]
    """fields of the model's own that are worked into its weights"""
    dropped: tuple[str, ...]
    """tensors that the layout has no place for, and that the model's predictions don't need"""

    @property
    def verbatim(self) -> bool:
        """Whether the layout's tensors are ours, as they are."""
        if self.folded or self.dropped:
            return False
        shapes = {part.name: part.shape for part in model_parts(self.arch)}
        made = self.layout.theirs(self.arch, shapes)
        return all(len(each.pieces) == 1 and each.pieces[0] == (each.name, each.shape, (), False) for each in made)


@lru_cache(maxsize=64)
def _forms(arch: Architecture) -> tuple[tuple[Layout, Architecture, tuple[str, ...]], ...]:
    """Every layout, what folding makes of the architecture for it, and what of that the layout cannot express."""
    targets = [(layout, nearest(arch, layout)) for layout in LAYOUTS]
    return tuple((layout, target, tuple(layout.reasons(target))) for layout, target in targets)


def why_no_stock_layout(arch: Architecture) -> list[str]:
    """What of an architecture the layout that comes nearest cannot express: fields and their values as a recipe writes
    them; empty where a layout expresses it."""
    return list(_closest(arch)[2])


def _closest(arch: Architecture) -> tuple[Layout, Architecture, tuple[str, ...]]:
    """The form with fewest reasons against it, of layouts that have experts or have none, as the architecture."""
    return min(_forms(arch), key=lambda form: ("experts" in form[2], len(form[2])))


def stock_form(arch: Architecture, prefer: str | None = None) -> StockForm:
    """The stock layout of an architecture: the one that needs least folding.

    Args:
        prefer: the `model_type` that is taken where it expresses the architecture too.

    Raises UserError, with the options that stand in the way, where there is none.
    """
    fits = [(layout, target) for layout, target, reasons in _forms(arch) if not reasons]
    if not fits:
        layout, _, reasons = _closest(arch)
        raise UserError(
            f"no stock layout exists for a model with {' and '.join(reasons)}",
            expected=f"what {layout.class_name} expresses, which comes nearest",
            mend="this package itself loads the model as it is; train one without these options to export it",
        )
    layout, target = min(fits, key=lambda fit: (len(fields_folded(arch, fit[1])), fit[0].model_type != prefer))
    kept = {part.name for part in model_parts(target)}
    dropped = [
        part.name for part in model_parts(arch) if part.name.startswith("model.ahead.") and part.name not in kept
    ]
    return StockForm(layout, target, tuple(fields_folded(arch, target)), tuple(dropped))


def stock_configuration(
    form: StockForm, dtype: torch.dtype, *, bos: Ids = None, eos: Ids = None, pad: Ids = None
) -> dict[str, Any]:
    """config.json of an export."""
    kind = str(dtype).removeprefix("torch.")
    return {
        "architectures": [form.layout.class_name],
        "model_type": form.layout.model_type,
        **form.layout.write(form.arch),
        "use_cache": True,
        "bos_token_id": bos,
        "eos_token_id": eos,
        "pad_token_id": pad,
        "dtype": kind,
        "torch_dtype": kind,
    }


def configuration(
    arch: Architecture,
    dtype: torch.dtype,
    *,
    prefer: str | None = None,
    bos: Ids = None,
    eos: Ids = None,
    pad: Ids = None,
) -> dict[str, Any]:
    """config.json of a model directory of ours, with the record of its architecture under the key "groundup".

    The other keys are a stock layout's where its tensors are ours as they are, so that stock programs load the
    directory.

    Args:
        dtype: of the tensors in the file.
        prefer: the `model_type` of the checkpoint that the weights came from, which is written where several fit.
        bos, eos, pad: ids of special tokens, null where the tokenizer is not at hand.
    """
    family = {"family": prefer} if prefer is not None else {}
    own = {"groundup": {"architecture": arch.to_dict(), **family}}
    if not why_no_stock_layout(arch):
        form = stock_form(arch, prefer)
        if form.verbatim:
            return stock_configuration(form, dtype, bos=bos, eos=eos, pad=pad) | own
    kind = str(dtype).removeprefix("torch.")
    ids = {"bos_token_id": bos, "eos_token_id": eos, "pad_token_id": pad}
    return {"model_type": OWN_MODEL_TYPE, "dtype": kind, "torch_dtype": kind, **ids, **own}


def stock_family(config: dict[str, Any]) -> str | None:
    """The family that a config.json of ours says the weights came from; None for none."""
    kind = config.get("groundup", {}).get("family", config.get("model_type"))
    return kind if isinstance(kind, str) and layout_named(kind) is not None else None
