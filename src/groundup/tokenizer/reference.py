"""Byte-level BPE in plain Python, for reading: what the fast engines compute, made to check them by.

Byte pair encoding began as compression (Gage 1994, "A New Algorithm for Data Compression"): replace the most
frequent pair of neighbours by one new symbol, and again. Sennrich, Haddow and Birch (2016, arXiv:1508.07909)
made it a vocabulary: frequent words become one token, rare ones a few pieces. Radford et al. (2019, GPT-2)
start from the 256 bytes instead of characters, so that no text is ever unknown.

    words and counts   low 5, lower 2, newest 6, widest 3
    merged so far      e+s (6 + 3 = 9 times), es+t (9), l+o (5 + 2 = 7)
    what is left       lo w,  lo w e r,  n e w est,  w i d est
    next comes         lo+w (7), since no other pair of neighbours is seen more than 6 times

Three steps make a tokenizer. `count_words` cuts texts into words, across whose borders nothing is merged.
`learn` finds the merges, in an order that says how early each was learned. `encode_word` repeats them on a
new word, earliest first, and the tokens that are left are looked up in the vocabulary.
"""

import heapq
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from itertools import pairwise

from groundup.run import UserError
from groundup.tokenizer.patterns import split_words

BYTES = [bytes([value]) for value in range(256)]  # the tokens before the first merge
KNOWN_WORDS = 2**16  # how many words a tokenizer remembers the ids of

Pair = tuple[bytes, bytes]  # two tokens, each as the bytes it stands for


def count_words(texts: Iterable[str], pattern: str) -> Counter[bytes]:
    """How often each word occurs in the texts: its UTF-8 bytes → count. `pattern` is the regex of a word."""
    return Counter(word.encode("utf-8") for text in texts for word in _words(text, pattern))


def _words(text: str, pattern: str) -> list[str]:
    """The words of a text. A lone surrogate, which no UTF-8 text can hold, counts as U+FFFD."""
    return split_words(text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace"), pattern)


def learn(counts: Mapping[bytes, int], merges: int, min_frequency: int = 2) -> list[Pair]:
    """The first `merges` merges of words that occur `counts` times, in the order in which they are learned.

    A token's id is its byte's value, or 256 + the number of the merge that made it. A pair's count is how often
    its two tokens stand side by side in all words; "aaa" has the pair (a, a) twice. The pair with the highest
    count is merged next; among equals the one of the smallest left id, then of the smallest right id.

    Nothing is left to merge when every word is one token. Nor does a pair count that is made too seldom: the
    result ends with the last merge that was made at least `min_frequency` times. A merge can be made fewer
    times than its pair was counted, since places that overlap can't both be merged: "aaa" gives "aa", "a".

    The time goes into the words that a merge changes, not into all of them: `holders` knows where a pair is.
    """
    words = [list(word) for word in counts]  # of ids; iterating over bytes gives numbers 0 to 255
    weights = list(counts.values())
    tokens = list(BYTES)
    pair_counts: Counter[tuple[int, int]] = Counter()
    holders: defaultdict[tuple[int, int], set[int]] = defaultdict(set)  # words that hold a pair, or once did
    for number, word in enumerate(words):
        for pair in pairwise(word):
            pair_counts[pair] += weights[number]
            holders[pair].add(number)
    # The smallest entry comes out first: the highest count, then the smallest ids.
    queue = [(-count, pair) for pair, count in pair_counts.items()]
    heapq.heapify(queue)

    learned: list[Pair] = []
    kept = 0  # merges up to the last one that was made often enough
    while queue and len(learned) < merges:
        negative, pair = heapq.heappop(queue)
        count = pair_counts[pair]
        if count < -negative:  # other merges have taken some of its places since: queue again with what is left
            heapq.heappush(queue, (-count, pair))
            continue
        if count < max(1, min_frequency):  # counts only fall from here: a new pair stands where merges were made
            break
        token = len(tokens)
        tokens.append(tokens[pair[0]] + tokens[pair[1]])
        learned.append((tokens[pair[0]], tokens[pair[1]]))
        made = 0
        born: set[tuple[int, int]] = set()  # the pairs that the new token is part of
        for number in holders.pop(pair):
            before, weight = words[number], weights[number]
            after = words[number] = _merged(before, pair, token)
            if len(after) == len(before):
                continue  # another merge took the pair's place in this word
            made += weight * (len(before) - len(after))
            for old in pairwise(before):
                pair_counts[old] -= weight
            for new in pairwise(after):
                pair_counts[new] += weight
                if token in new:
                    holders[new].add(number)
                    born.add(new)
        for new in born:
            heapq.heappush(queue, (-pair_counts[new], new))
        if made >= min_frequency:
            kept = len(learned)
    return learned[:kept]


def _merged(word: list[int], pair: tuple[int, int], token: int) -> list[int]:
    """The word with every occurrence of the pair replaced by the token, from left to right."""
    left, right = pair
    result: list[int] = []
    place = 0
    while place < len(word):
        if word[place] == left and place + 1 < len(word) and word[place + 1] == right:
            result.append(token)
            place += 2
        else:
            result.append(word[place])
            place += 1
    return result


def vocabulary(merges: Iterable[Pair], first_id: int = 0) -> dict[bytes, int]:
    """Tokens and their ids, from `first_id`: the 256 bytes by value, then what each merge makes, in order."""
    made = (left + right for left, right in merges)
    return {token: first_id + rank for rank, token in enumerate([*BYTES, *made])}


def encode_word(word: bytes, ranks: Mapping[Pair, int]) -> list[bytes]:
    """The tokens of a word; `ranks` numbers the merges in the order in which they were learned.

    Of all pairs of neighbours, the one of the lowest rank is merged, the leftmost one where it occurs more than
    once; then all are looked at again, until no pair is a merge. Hugging Face's BPE follows the same rule, which
    holds for any list of merges, learned here or not. The time grows with the square of the word's length.
    """
    tokens = [BYTES[value] for value in word]
    while True:
        found = [(ranks[pair], place) for place, pair in enumerate(pairwise(tokens)) if pair in ranks]
        if not found:
            return tokens
        _, place = min(found)
        tokens[place : place + 2] = [tokens[place] + tokens[place + 1]]


class ReferenceTokenizer:
    """Text to ids and back by a list of merges.

    It knows no special tokens: `<|end|>` in a text is seven characters like any others.

    Args:
        merges: pairs of tokens, earliest learned first.
        ids: the id of every byte and of every token that a merge makes, as `vocabulary` numbers them.
        pattern: the regex of a word.

    Raises UserError where a token has no id.
    """

    def __init__(self, merges: Sequence[Pair], ids: Mapping[bytes, int], pattern: str) -> None:
        missing = [token for token in vocabulary(merges) if token not in ids]
        if missing:
            raise UserError(
                f"{len(missing)} tokens have no id, the first is {missing[0]!r}",
                expected="an id for each of the 256 bytes and for the token of each merge",
            )
        self._ranks = {pair: rank for rank, pair in enumerate(merges)}
        self._ids = ids
        self._pattern = pattern
        self._contents = {number: token for token, number in ids.items()}
        self._encode_known = lru_cache(KNOWN_WORDS)(self._encode_word)  # most words of a text come again

    def encode(self, text: str) -> list[int]:
        """The ids of a text. A lone surrogate, which no UTF-8 text can hold, counts as U+FFFD."""
        return [number for word in _words(text, self._pattern) for number in self._encode_known(word)]

    def decode(self, ids: Iterable[int]) -> str:
        """The text of ids; bytes that are no UTF-8 become U+FFFD. Raises ValueError for an unknown id."""
        return self.decode_bytes(ids).decode("utf-8", "replace")

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """The bytes of ids, one token's after the other's. Raises ValueError for an unknown id."""
        try:
            return b"".join(self._contents[number] for number in ids)
        except KeyError as error:
            raise ValueError(f"id {error} is outside the vocabulary of {len(self._contents)}") from None

    def _encode_word(self, word: str) -> list[int]:
        return [self._ids[token] for token in encode_word(word.encode("utf-8"), self._ranks)]
