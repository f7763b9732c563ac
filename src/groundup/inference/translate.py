"""Sentences to their translations: an encoder-decoder with its vocabularies, loaded from one folder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from groundup.inference.beam import Hypothesis, beam_search
from groundup.model import EncoderDecoder, EncoderDecoderArchitecture
from groundup.run import UserError, atomic_path, read_json, write_json
from groundup.tokenizer.words import BOS, EOS, PAD, UNKNOWN, WordVocabulary, load_vocabularies, save_vocabularies

CONFIG, WEIGHTS, VOCABULARY = "config.json", "model.safetensors", "vocabulary.json"
MODEL_TYPE = "groundup-encoder-decoder"


@dataclass(frozen=True)
class Translation:
    """A sentence's translation."""

    text: str
    score: float
    """its rank among others of the same sentence, higher is better: see :class:`Hypothesis`"""
    logprob: float
    finished: bool
    """whether it ended by itself"""


@dataclass(frozen=True)
class Translator:
    """A model and what its ids stand for."""

    model: EncoderDecoder
    source: WordVocabulary
    target: WordVocabulary

    def encode_source(self, text: str) -> list[int]:
        """The ids that the encoder reads."""
        return [*self.source.encode(text), EOS]

    def encode_target(self, text: str) -> list[int]:
        """The ids that the decoder is to write."""
        return [*self.target.encode(text), EOS]

    def unknown_words(self, text: str) -> list[str]:
        """The words (or characters) of a text that the model has no id for, each once."""
        if self.source.unit == "bytes":
            return []
        units = text.split() if self.source.unit == "words" else list(text)
        return [unit for unit in dict.fromkeys(units) if self.source.encode(unit) == [UNKNOWN]]

    def translate(
        self,
        texts: Sequence[str],
        *,
        beam: int = 4,
        alpha: float = 0.6,
        n_best: int = 1,
        on_done: Callable[[int], None] | None = None,
    ) -> list[list[Translation]]:
        """The ``n_best`` translations of each text, best first, by :func:`beam_search`.

        Raises:
            UserError: a text is longer than the model's context.
        """
        found = beam_search(
            self.model,
            [self.encode_source(text) for text in texts],
            begin=BOS,
            end=EOS,
            beam=beam,
            alpha=alpha,
            n_best=n_best,
            never=(PAD, BOS),
            on_done=on_done,
        )
        return [[self._shown(hypothesis) for hypothesis in hypotheses] for hypotheses in found]

    def _shown(self, hypothesis: Hypothesis) -> Translation:
        text = self.target.decode(hypothesis.ids)
        return Translation(text, hypothesis.score, hypothesis.logprob, hypothesis.finished)

    def save(self, directory: Path) -> None:
        """Write model.safetensors, config.json and vocabulary.json into ``directory``, each atomically."""
        tensors = {name: weight.detach().cpu().contiguous() for name, weight in self.model.state_dict().items()}
        config = {"model_type": MODEL_TYPE, "groundup": {"encoder_decoder": self.model.arch.to_dict()}}
        write_json(directory / CONFIG, config)
        save_vocabularies(self.source, self.target, directory / VOCABULARY)
        with atomic_path(directory / WEIGHTS) as temporary:
            save_file(tensors, temporary, metadata={"format": "pt"})
            temporary.chmod(0o644)  # the library makes files that only their owner can read

    @classmethod
    def load(cls, directory: Path, device: str = "cpu") -> Translator:
        """Read what :meth:`save` wrote; the model is in eval mode.

        Raises:
            UserError: a file is missing or not what :meth:`save` writes.
        """
        source, target = load_vocabularies(directory / VOCABULARY)
        arch = _architecture(directory / CONFIG)
        if (arch.source_vocabulary, arch.target_vocabulary) != (len(source), len(target)):
            raise UserError(
                f"vocabularies of {len(source)} and {len(target)} words for a model of {arch.source_vocabulary} and "
                f"{arch.target_vocabulary}",
                where=str(directory),
                mend="take all files from one save",
            )
        model = EncoderDecoder(arch)
        path = directory / WEIGHTS
        try:
            model.load_state_dict(load_file(path))
        except FileNotFoundError as error:
            raise UserError(f"no {WEIGHTS}", where=str(path), mend="build the training stage first") from error
        except (SafetensorError, RuntimeError) as error:  # torch names tensors missing, unknown or shaped otherwise
            raise UserError(f"not the weights of this model: {error}", where=str(path)) from error
        return cls(model.to(torch.device(device)).eval(), source, target)


def _architecture(path: Path) -> EncoderDecoderArchitecture:
    try:
        return EncoderDecoderArchitecture.model_validate(read_json(path)["groundup"]["encoder_decoder"])
    except FileNotFoundError as error:
        raise UserError(f"no {CONFIG}", where=str(path), expected="the folder of a translation model") from error
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{CONFIG} doesn't describe an encoder-decoder of this package ({type(error).__name__}: {error})",
            where=str(path),
        ) from error
