"""One small tokenizer for all tests of the room, trained on text this folder brings."""

from pathlib import Path

import pytest

from groundup.tokenizer import Tokenizer, train_bpe

TEXT = [path.read_text(encoding="utf-8") for path in sorted(Path(__file__).parent.glob("*.py"))]
TEXT += ["Grüße an die 世界! Ça va? Привет, мир. 12345 6.78 don't WE'LL \t\n\n  spaced   out 😀😀"] * 3


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    return Tokenizer(train_bpe(TEXT, 700).to_str())
