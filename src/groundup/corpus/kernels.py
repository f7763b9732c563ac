"""MinHash signatures by Daft's kernel, called on one batch at a time, without a query or a plan."""

from __future__ import annotations

import os

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from groundup.corpus.dedup.stretches import UNSPACED

_NO_SPACES = "[" + "".join(f"\\x{{{first:x}}}-\\x{{{last:x}}}" for first, last in UNSPACED) + "]"


def minhash(texts: pa.LargeStringArray, hashes: int, ngram: int) -> np.ndarray:
    """MinHash signatures (Broder 1997) of the word n-grams of texts: uint32 [n, hashes].

    Words are what white space divides, in lower case and without ASCII punctuation; in scripts that put no spaces
    between words (`stretches.UNSPACED`: Chinese, Japanese, Thai and their like) every character is a word. A text of
    fewer words than `ngram` is one shingle as a whole; one without any word has the value 2³² − 1 throughout.

    A text's signature depends on nothing but the text: not on its neighbours in the batch, nor on the machine.
    """
    os.environ.setdefault("DO_NOT_TRACK", "1")  # before daft is first imported: no telemetry
    from daft import col
    from daft.expressions import ExpressionsProjection
    from daft.functions import minhash as daft_minhash
    from daft.functions import normalize
    from daft.recordbatch import RecordBatch

    if not len(texts):
        return np.empty((0, hashes), np.uint32)
    table = pa.table({"text": with_spaces(texts)})
    words = normalize(col("text"), remove_punct=True, lowercase=True, white_space=True)
    signature = daft_minhash(words, num_hashes=hashes, ngram_size=ngram, seed=1).alias("signature")
    batch = RecordBatch.from_arrow_record_batches(table.to_batches(), table.schema)
    found = batch.eval_expression_list(ExpressionsProjection([signature])).to_arrow_table()
    values = found.column("signature").combine_chunks().flatten()
    return np.asarray(values.to_numpy(zero_copy_only=False).reshape(len(texts), hashes))


def with_spaces(texts: pa.LargeStringArray) -> pa.LargeStringArray:
    """The texts with a space after every character of a script that divides no words by spaces."""
    mask = pc.match_substring_regex(texts, _NO_SPACES)
    if not pc.any(mask).as_py():
        return texts
    spaced = pc.replace_substring_regex(texts.filter(mask), f"({_NO_SPACES})", r"\1 ")
    return pc.replace_with_mask(texts, mask, spaced)
