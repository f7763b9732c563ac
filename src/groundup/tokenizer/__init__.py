"""The tokenizer: documents and conversations become ids, and ids become the rows a model trains on.

In comes a corpus directory; out go tokenizer.json (byte-level BPE in Hugging Face's format, `bpe`, or somebody
else's vocabulary, `adopt`) and token shards (`shards`), from which `packing` and `loader` serve training. `chat`
encodes conversations. Promises:

* text comes back exactly, and no text becomes a special token, whatever it spells (`tokenizer`);
* a chat is built message by message, and the exported template gives the same ids (`chat`);
* in an epoch every token but a document's first is a target exactly once; documents don't see each other, and
  a long one loses nothing where it is cut (`plan`);
* update n is a function of n, so training carries on from a number, to the same bits (`loader`).
"""

from groundup.tokenizer.adopt import adopt, adopted_files
from groundup.tokenizer.bpe import train_bpe
from groundup.tokenizer.buckets import Buckets
from groundup.tokenizer.build import build_tokenizer, write_vocabulary
from groundup.tokenizer.chat import EncodedChat, Reply, check_messages, encode_chat, parse_reply
from groundup.tokenizer.extend import extend
from groundup.tokenizer.loader import Loader, Prefetch, Ramp
from groundup.tokenizer.packing import IGNORED, Batch, PackedRows, Piece
from groundup.tokenizer.shards import ShardSource, TokenShards, dtype_for
from groundup.tokenizer.sizes import UpdateSizes
from groundup.tokenizer.template import chat_template
from groundup.tokenizer.tokenizer import Tokenizer
from groundup.tokenizer.writer import ShardWriter

__all__ = [
    "IGNORED",
    "Batch",
    "Buckets",
    "EncodedChat",
    "Loader",
    "PackedRows",
    "Piece",
    "Prefetch",
    "Ramp",
    "Reply",
    "ShardSource",
    "ShardWriter",
    "TokenShards",
    "Tokenizer",
    "UpdateSizes",
    "adopt",
    "adopted_files",
    "build_tokenizer",
    "chat_template",
    "check_messages",
    "dtype_for",
    "encode_chat",
    "extend",
    "parse_reply",
    "train_bpe",
    "write_vocabulary",
]
