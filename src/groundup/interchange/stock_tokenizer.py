"""The tokenizer of an export: this package's own, or that of the checkpoint that the model came from."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from groundup.interchange.source import GENERATION, read_settings
from groundup.interchange.stock import Ids
from groundup.model import Architecture
from groundup.run import UserError, write_json, write_text
from groundup.tokenizer import Tokenizer, chat_template

BOS, EOS, PAD = "<|endoftext|>", "<|end|>", "<|pad|>"
VOCABULARY, CONFIG = "tokenizer.json", "tokenizer_config.json"
TOKENIZER_FILES = (
    *(VOCABULARY, CONFIG, "special_tokens_map.json", "added_tokens.json", "vocab.json", "merges.txt"),
    *("tokenizer.model", "chat_template.jinja", "chat_template.json"),
)
"""What stock tools read of a tokenizer."""
TEMPLATES = "additional_chat_templates"
"""Folder of the chat templates that have names."""
_OPENAI = {"encoder.json": "vocab.json", "vocab.bpe": "merges.txt"}
"""OpenAI's names of GPT-2's two files, and those by which stock tools look for the same content."""
_FAST = "PreTrainedTokenizerFast"
"""The class that takes a tokenizer.json as it is, whatever the family of the model."""


class Tokens(NamedTuple):
    """Ids of special tokens; ``stops`` are those that end an answer."""

    bos: Ids
    eos: Ids
    pad: Ids
    stops: Ids


class StockTokenizer(Protocol):
    """What an export needs of a tokenizer."""

    tokens: Tokens
    own: bool
    """whether it is this package's, with its chat format"""

    def write(self, out: Path, arch: Architecture) -> None:
        """Write its files, and generation_config.json, into a directory. ``arch`` is the model's."""
        ...


class OwnTokenizer:
    """This package's tokenizer, with its chat format. Generation ends at the end of a message or of a document.

    Raises UserError where ``directory`` has none, or one of more ids than the model of ``arch`` has rows.
    """

    own = True

    def __init__(self, directory: Path | None, arch: Architecture) -> None:
        if directory is None:
            raise UserError("no tokenizer to export", expected="the run's, or the source's of an imported model")
        self._tokenizer = Tokenizer.load(directory)
        size, rows = self._tokenizer.vocabulary_size, arch.vocabulary_size
        if size > rows:
            raise UserError(
                f"the tokenizer has {size} ids, the model only {rows} rows",
                where=str(directory),
                mend="export a model with the tokenizer it was trained on; one imported and not tuned, with its "
                "source's",
            )
        end, endoftext = self._tokenizer.end, self._tokenizer.endoftext
        self.tokens = Tokens(endoftext, end, self._tokenizer.pad, [end, endoftext])

    def write(self, out: Path, arch: Architecture) -> None:
        """tokenizer.json as it is, and how stock tools should use it."""
        _write_generation(out, self.tokens)
        self._tokenizer.save(out)
        specials = self._tokenizer.special_ids()
        roles = {"bos_token": BOS, "eos_token": EOS, "pad_token": PAD}
        others = [token for token in specials if token not in roles.values()]
        flags = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True}
        write_json(
            out / CONFIG,
            {
                "tokenizer_class": _FAST,
                "added_tokens_decoder": {str(id): {"content": token, **flags} for token, id in specials.items()},
                **roles,
                "additional_special_tokens": others,
                "add_bos_token": False,
                "add_prefix_space": False,
                "clean_up_tokenization_spaces": False,
                "model_max_length": arch.context_length,
                "chat_template": chat_template(),
            },
        )
        write_json(out / "special_tokens_map.json", {**roles, "additional_special_tokens": others})


class SourceTokenizer:
    """The tokenizer of the checkpoint that a model was imported from; its files are written byte for byte.

    GPT-2's two files get the names that stock tools know. What these read no vocabulary of, as a rank file of tiktoken,
    is written as the tokenizer.json ``adopted``, which is how this package reads it.

    Args:
        source: the folder with the files, and with generation_config.json where there is one.
        config: the imported config.json.
        adopted: the content of a tokenizer.json.

    Raises UserError where there is no vocabulary that stock tools read.
    """

    own = False

    def __init__(self, source: Path, config: dict[str, Any], adopted: str | None = None) -> None:
        self._files = _files(source)
        self._adopted = adopted
        if adopted is None and not {VOCABULARY, "tokenizer.model", "vocab.json"} & self._files.keys():
            raise UserError("no tokenizer", where=str(source), expected="tokenizer.json, vocab.json or tokenizer.model")
        self.generation = source / GENERATION
        self.tokens = self._tokens(config)

    def write(self, out: Path, arch: Architecture) -> None:
        """The files as they are, and how to read a vocabulary that came without a word on that."""
        if self.generation.is_file():
            shutil.copyfile(self.generation, out / GENERATION)
        else:
            _write_generation(out, self.tokens)
        for name, path in self._files.items():
            (out / name).parent.mkdir(exist_ok=True)
            shutil.copyfile(path, out / name)
        if self._adopted is None:
            return
        if VOCABULARY not in self._files and not {"vocab.json", CONFIG} <= self._files.keys():
            write_text(out / VOCABULARY, self._adopted)
        if CONFIG not in self._files:
            settings = {"clean_up_tokenization_spaces": False, "model_max_length": arch.context_length}
            write_json(out / CONFIG, {"tokenizer_class": _FAST, **self._roles(self._adopted), **settings})

    def _tokens(self, config: dict[str, Any]) -> Tokens:
        """The ids that the imported config.json had, of which generation_config.json may know better."""
        generation = read_settings(self.generation) if self.generation.is_file() else {}
        keys = ("bos_token_id", "eos_token_id", "pad_token_id")
        bos, eos, pad = (generation.get(key) if config.get(key) is None else config[key] for key in keys)
        return Tokens(bos, eos, pad, generation.get("eos_token_id", eos))

    def _roles(self, vocabulary: str) -> dict[str, str]:
        """The special tokens by what they are for, as far as the vocabulary names them."""
        named = {token["id"]: token["content"] for token in json.loads(vocabulary)["added_tokens"]}
        found: dict[str, str] = {}
        for role, ids in (("bos", self.tokens.bos), ("eos", self.tokens.eos), ("pad", self.tokens.pad)):
            number = ids[0] if isinstance(ids, list) and ids else ids
            if number in named:
                found[f"{role}_token"] = named[number]
        return found


def _files(source: Path) -> dict[str, Path]:
    """The tokenizer files of a folder, by the names that stock tools know them by."""
    found = {name: source / name for name in TOKENIZER_FILES if (source / name).is_file()}
    if all((source / name).is_file() for name in _OPENAI) and not {VOCABULARY, "vocab.json"} & found.keys():
        found |= {stock: source / name for name, stock in _OPENAI.items()}
    return found | {f"{TEMPLATES}/{path.name}": path for path in sorted(source.glob(f"{TEMPLATES}/*.jinja"))}


def _write_generation(out: Path, tokens: Tokens) -> None:
    """generation_config.json of these tokens."""
    ids = {"bos_token_id": tokens.bos, "eos_token_id": tokens.stops, "pad_token_id": tokens.pad}
    present = {key: value for key, value in ids.items() if value is not None}
    write_json(out / GENERATION, {**present, "do_sample": False})
