"""Models in and out: this package's own directories, and stock layouts that other programs load.

In comes a model (or the directory that training wrote) and a tokenizer; out go directories. Promises:

* a model directory is ``model.safetensors`` and ``config.json``, each there as a whole or not at all; no
  pickle is ever written or read (`weights`);
* what is loaded is what was saved, and a wrong file is refused by the names of its tensors (`weights`);
* the configuration says the shape in the Qwen3 layout's own keys, old names and new (`layout`);
* stock tools load the Hugging Face export with no custom code: equal logits, equal token ids, equal chat ids
  (`huggingface`); an architecture that no stock layout can express is refused plainly.
"""

from groundup.interchange.huggingface import export_hf
from groundup.interchange.weights import load_architecture, load_model, save_model

__all__ = ["export_hf", "load_architecture", "load_model", "save_model"]
