"""groundup builds a large language model from the ground up.

Data flows one way through the rooms of this package, and each room is a folder, a chapter of the book,
a section of the recipe and a stage of the build: storyworld and corpus give text, tokenizer turns it into
ids, model and training learn from them, posttraining aligns, evaluation measures, interchange exports,
book explains. Read each room's ``__init__.py`` to know the whole system.
"""

__all__ = ["__version__"]


def __getattr__(name: str) -> str:
    if name != "__version__":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib.metadata import PackageNotFoundError, version  # here, since each worker would wait for it: 50 ms

    try:
        return version("groundup")
    except PackageNotFoundError:  # a source tree on sys.path that was never installed
        return "0.0.0"
