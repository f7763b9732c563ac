"""groundup builds a large language model from the ground up.

Data flows one way through the rooms of this package, and each room is a folder, a chapter of the book,
a section of the recipe and a stage of the build: storyworld and corpus give text, tokenizer turns it into
ids, model and training learn from them, posttraining aligns, evaluation measures, interchange exports,
book explains. Read each room's ``__init__.py`` to know the whole system.
"""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("groundup")
except PackageNotFoundError:  # a source tree on sys.path that was never installed
    __version__ = "0.0.0"

__all__ = ["__version__"]
