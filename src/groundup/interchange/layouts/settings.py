"""A foreign config.json while it is read: what was asked for is noted, what we cannot do is refused by name."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from groundup.run import UserError

HARMLESS = {
    *("_name_or_path", "architectures", "auto_map", "bos_token_id", "dtype", "eos_token_id", "groundup", "model_type"),
    *("output_attentions", "output_hidden_states", "output_router_logits", "pad_token_id", "problem_type"),
    *("return_dict", "task_specific_params", "torch_dtype", "transformers_version", "use_cache", "id2label"),
    *("label2id", "chunk_size_feed_forward", "is_encoder_decoder", "is_decoder", "tokenizer_class", "sep_token_id"),
}
"""Keys that say nothing about the numbers that the model computes, or are read elsewhere."""

MOST_LAYERS = 10_000
_MISSING = object()


class Settings:
    """The keys and values of a config.json.

    Args:
        values: of the file, or of the part that describes the text model.
        where: what errors name.
        defaults: values of keys that are absent, as the family's class has them.
    """

    def __init__(self, values: Mapping[str, Any], where: str, defaults: Mapping[str, Any] | None = None) -> None:
        self.values, self.where, self.defaults = values, where, defaults or {}
        self.read: set[str] = set()

    def get(self, *keys: str, default: Any = None) -> Any:
        """The value of the first of these keys that the file has; ``default`` for null, the family's value where there
        is no such key, and ``default`` where the family has none."""
        self.read.update(keys)
        for place in (self.values, self.defaults):
            present = [place[key] for key in keys if key in place]
            if present:
                return next((value for value in present if value is not None), default)
        return default

    def whole(self, *keys: str, default: Any = _MISSING) -> Any:
        """A whole number, or the default where it is absent or null."""
        return self._typed(keys, (int,), "a whole number", default)

    def layers(self, *keys: str) -> int:
        """How many layers there are; of so many are lists made that a wrong one would take all memory."""
        found: int = self.whole(*keys)
        if not 1 <= found <= MOST_LAYERS:
            raise UserError(f"{keys[0]} = {found}", where=self.where, expected=f"1 to {MOST_LAYERS:,}")
        return found

    def number(self, *keys: str, default: Any = _MISSING) -> Any:
        """A number, or the default."""
        found = self._typed(keys, (int, float), "a number", default)
        return float(found) if isinstance(found, int) else found

    def flag(self, *keys: str, default: Any = False) -> Any:
        """True or false."""
        return self._typed(keys, (bool,), "true or false", default)

    def table(self, *keys: str) -> dict[str, Any]:
        """An object; empty where absent."""
        found: dict[str, Any] = self._typed(keys, (dict,), "an object", {})
        return found

    def choice(self, key: str, known: Mapping[str, str]) -> str:
        """What a word stands for. Raises UserError for an unknown one."""
        found = self.get(key)
        if not isinstance(found, str) or found not in known:
            raise self.refusal(key, found, f"one of {', '.join(known)}")
        return known[found]

    def only(self, key: str, allowed: Collection[Any], default: Any = None) -> None:
        """Raise UserError unless the value is one of these."""
        found = self.get(key, default=default)
        if found not in allowed:
            raise self.refusal(key, found, " or ".join(sorted({str(value) for value in allowed})))

    def refusal(self, key: str, value: Any, expected: str | None = None) -> UserError:
        """The error for a value that this package has no part for."""
        return UserError(f"{key} = {value!r} is not supported", where=self.where, expected=expected)

    def unread(self) -> list[str]:
        """Keys that nothing has asked for."""
        return [key for key in self.values if key not in self.read and key not in HARMLESS]

    def _typed(self, keys: tuple[str, ...], kinds: tuple[type, ...], name: str, default: Any) -> Any:
        found = self.get(*keys, default=default)
        if found is _MISSING:
            raise UserError(f"no {keys[0]}", where=self.where, expected=name)
        if found is not default and (not isinstance(found, kinds) or (bool not in kinds and isinstance(found, bool))):
            raise UserError(f"{keys[0]} = {found!r}", where=self.where, expected=name)
        return found
