"""SentencePiece's BPE, trained on the spot, as a checkpoint's tokenizer.json holds it: like Gemma's or Llama 2's."""

from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

TEXTS = ["The cat sat on the mat, and 12 dogs didn't.\n\n  def f(x):\n      return x  # été, 世界\n"] * 20
MARK = "\u2581"


def piece_tokenizer(kind: str = "gemma") -> Tokenizer:
    """Like "gemma": spaces are replaced, runs of them added tokens; like "llama": one more space before a text, by a
    normalizer; like "mistral": by Metaspace. <s> and </s> are special, each byte has a token, and "</" + "s>" could be
    merged."""
    learner = Tokenizer(models.BPE())
    learner.normalizer = normalizers.Replace(" ", MARK)
    learner.pre_tokenizer = pre_tokenizers.Split(MARK, "merged_with_next")
    trainer = trainers.BpeTrainer(vocab_size=120, show_progress=False)
    learner.train_from_iterator(TEXTS, trainer)
    learned = sorted(learner.get_vocab(), key=learner.get_vocab().__getitem__)
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    tokens += [token for token in [*learned, *"</>s", "</", "s>", 2 * MARK, 4 * MARK] if token not in tokens]
    vocabulary = {token: number for number, token in enumerate(dict.fromkeys(tokens))}
    model = models.BPE(vocabulary, merges(vocabulary), unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    tokenizer = Tokenizer(model)
    replaced, strip = normalizers.Replace(" ", MARK), [] if kind == "gemma" else [decoders.Strip(" ", 1, 0)]
    if kind == "gemma":
        tokenizer.normalizer = replaced
        tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
        tokenizer.add_tokens([AddedToken(2 * MARK, normalized=False), AddedToken("\n\n", normalized=False)])
    elif kind == "llama":
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend(MARK), replaced])
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(MARK, prepend_scheme="first", split=False)
    back = [decoders.Replace(MARK, " "), decoders.ByteFallback(), decoders.Fuse()]
    tokenizer.decoder = decoders.Sequence([*back, *strip])
    tokenizer.add_special_tokens([AddedToken(token, normalized=False) for token in ("<unk>", "<s>", "</s>")])
    return tokenizer


def merges(vocabulary: dict[str, int]) -> list[tuple[str, str]]:
    """All pairs of tokens that make a token, in the order of what they make, as SentencePiece's are written down."""
    pairs = []
    for token in vocabulary:
        ways = [(token[:cut], token[cut:]) for cut in range(1, len(token))]
        pairs += [pair for pair in ways if pair[0] in vocabulary and pair[1] in vocabulary]
    return pairs


def without_prefix(description: dict[str, Any]) -> dict[str, Any]:
    """The same file, without the space that it puts before a text."""
    spaces = {"type": "Replace", "pattern": {"String": " "}, "content": MARK}
    return description | {"normalizer": spaces, "pre_tokenizer": None}
