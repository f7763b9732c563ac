"""Text from a model: the one engine that chat, samples during training, rollouts and evaluation use.

In come a model, prompts as token ids and ``SamplingParams``; out come ``Completion`` objects with ids, text
and the log-probability of each token. Read `cache`, `sampling`, `text`, then `engine`: the whole is one
sitting. Promises:

* a request's text depends on its prompt, its parameters and its seed, never on what else is in the batch
  (`engine`);
* the cache changes speed, not results; finished rows leave the batch, and nothing follows a stop (`engine`);
* the log-probability of a token is that of the distribution it was drawn from (`sampling`);
* a stream gives whole characters only, and never a part of a stop string (`text`).

`translate` is the same for encoder-decoders, whose translations `beam` search finds.
"""

from groundup.inference.beam import Hypothesis, beam_search
from groundup.inference.cache import KVCache
from groundup.inference.engine import Completion, generate, stream
from groundup.inference.sampling import SamplingParams
from groundup.inference.translate import Translation, Translator

__all__ = [
    "Completion",
    "Hypothesis",
    "KVCache",
    "SamplingParams",
    "Translation",
    "Translator",
    "beam_search",
    "generate",
    "stream",
]
