"""Adding tokens to a vocabulary: words of a domain, or control tokens."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from tokenizers import AddedToken

from groundup.run import UserError
from groundup.tokenizer.alphabet import SPACE, byte_of_character
from groundup.tokenizer.tokenizer import falls_back_to_bytes, read_tokenizer


def extend(
    json_text: str, tokens: Sequence[str], *, special: bool = False, where: str = "tokens"
) -> tuple[str, dict[int, list[int]]]:
    """Add tokens at the end of a vocabulary, in the given order.

    A text token is taken wherever its spelling occurs, inside of words too, before the rest is split; a longer one
    wins over a shorter one. "myoglobin" leaves the space before it a token of its own, " myoglobin" is both. A special
    token is never taken from text.

    Args:
        json_text: the content of a tokenizer.json.
        tokens: their spellings.
        special: whether they are control tokens.
        where: what the list is called in errors.

    Returns:
        the content of the new tokenizer.json, and for each new id the ids that its spelling had before: its pieces,
        of whose embeddings the new one is the mean (`groundup.model.grow_vocabulary`).

    Raises UserError for what is no tokenizer.json, and for tokens that are empty, given twice, in the vocabulary
    already, or in conflict with a special token.
    """
    tokenizer = read_tokenizer(json_text)
    known = tokenizer.get_vocab(with_added_tokens=True)
    first = len(known)
    if max(known.values(), default=-1) != first - 1:
        raise UserError(
            f"the vocabulary has {first} tokens, and its last id is {max(known.values())}",
            expected="ids from 0 on without a gap",
        )
    spelled_in_bytes = not falls_back_to_bytes(tokenizer)
    pieces: dict[int, list[int]] = {}
    seen: set[str] = set()
    for number, token in enumerate(tokens):
        place = f"{where}[{number}]"
        if token in seen:
            raise UserError(f"the token {token!r} is given twice", where=place)
        seen.add(token)
        _check_spelling(token, place, spelled_in_bytes)
        ids = tokenizer.encode(token, add_special_tokens=False).ids
        if token in known or len(ids) == 1:
            taken = known.get(token, ids[0] if ids else None)
            raise UserError(f"the token {token!r} is in the vocabulary already, as id {taken}", where=place)
        pieces[first + number] = ids
    added = tokenizer.get_added_tokens_decoder().values()
    others = [token.content for token in added if token.special != special]
    if pair := overlap(others, tokens) if special else overlap(tokens, others):
        raise UserError(
            "the text token {!r} overlaps with the special token {!r}".format(*pair),
            expected="text tokens and special tokens of which none is a part of another",
        )
    tokenizer.add_tokens([added_token(token, special=special) for token in tokens])
    return tokenizer.to_str(pretty=True), pieces


def added_token(content: str, *, special: bool) -> AddedToken:
    """A token that is taken as it is spelled, and takes no white space around it along."""
    return AddedToken(content, single_word=False, lstrip=False, rstrip=False, normalized=False, special=special)


def overlap(texts: Iterable[str], specials: Sequence[str]) -> tuple[str, str] | None:
    """The first text token that is a part of a special token, or has one in it, and that special token.

    Text that spells a special token is cut like any text; with a text token in it, or around it, readers of the file
    disagree about which of the two they see first.
    """
    return next(((text, name) for text in texts for name in specials if text in name or name in text), None)


def _check_spelling(token: str, where: str, spelled_in_bytes: bool) -> None:
    if not token:
        raise UserError("a token without a spelling", where=where)
    try:
        token.encode()
    except UnicodeEncodeError as error:
        raise UserError(f"the token {token!r} is no text: {error.reason}", where=where) from error
    if not spelled_in_bytes:
        if SPACE in token:
            raise UserError(f"other programs would decode the token {token!r} with spaces", where=where)
    elif not token.isascii() and all(character in byte_of_character() for character in token):
        # The format's decoder takes such a spelling for stand-ins of bytes, and makes "Gr\ufffd\ufffde" of "Größe".
        raise UserError(
            f"other programs would not decode the token {token!r}",
            where=where,
            expected="a spelling that can't be taken for GPT-2's stand-ins of bytes",
            mend=f"add it with the space before it, {' ' + token!r}",
        )
