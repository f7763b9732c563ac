"""Models in and out: this package's own directories, and stock layouts that other programs load.

In comes a model (or the directory that training wrote) and a tokenizer, or another program's checkpoint; out go
directories. Promises:

* a model directory is ``model.safetensors`` and ``config.json``, each there as a whole or not at all; no
  pickle is ever written or read (`weights`), and no more than one tensor is held at a time (`tensor_files`);
* what is loaded is what was saved, and a wrong file is refused by the names of its tensors (`weights`);
* each family's layout is one small file: which architectures it expresses, its config.json, its tensors (`layouts`);
* a checkpoint is imported with nothing ignored: what is not understood is refused by name, what is not needed is
  listed (`importing`, `source`);
* stock tools load the Hugging Face export with no custom code: equal logits, equal token ids, equal chat ids
  (`huggingface`, `stock_tokenizer`); options that a layout lacks are worked into the weights where that is exact
  (`fold`), and an architecture that no stock layout can express is refused plainly (`stock`);
* llama.cpp loads the GGUF export: equal token ids, logits equal to rounding (`gguf`, `gguf_layouts`,
  `gguf_tokenizer`).
"""

from groundup.interchange.card import Base
from groundup.interchange.gguf import export_gguf, gguf_form
from groundup.interchange.gguf_tokenizer import gguf_vocabulary
from groundup.interchange.huggingface import export_hf
from groundup.interchange.importing import ImportReport, import_checkpoint, source_architecture
from groundup.interchange.source import LICENCES, MissingFiles, checkpoint_files
from groundup.interchange.stock import stock_form, why_no_stock_layout
from groundup.interchange.weights import load_architecture, load_model, save_model

__all__ = [
    "LICENCES",
    "Base",
    "ImportReport",
    "MissingFiles",
    "checkpoint_files",
    "export_gguf",
    "export_hf",
    "gguf_form",
    "gguf_vocabulary",
    "import_checkpoint",
    "load_architecture",
    "load_model",
    "save_model",
    "source_architecture",
    "stock_form",
    "why_no_stock_layout",
]
