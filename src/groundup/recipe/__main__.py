"""``python -m groundup.recipe [FILE]`` writes the recipe's page, docs/recipe.md unless told otherwise."""

from __future__ import annotations

import sys
from pathlib import Path

from groundup.recipe.docs import recipe_markdown


def main() -> None:
    """Write the page."""
    path = Path(sys.argv[1] if len(sys.argv) > 1 else "docs/recipe.md")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(recipe_markdown(), encoding="utf-8")


if __name__ == "__main__":
    main()
