"""`builtin:python-docs`: the documentation inside the running Python's own standard library.

Every module becomes one document: its docstring, then its public classes and functions with their signatures
and docstrings, read from the source with `ast` (nothing is imported, nothing runs). The language reference's
topics that `help()` shows (`pydoc_data/topics.py`) are one document each. Every Python brings this text
along, so real English prose is there with no network.
"""

import ast
import os
import sysconfig
import tokenize
import warnings
from collections.abc import Iterator
from pathlib import Path

from groundup.corpus.documents import Raw, Refused
from groundup.run import UserError

_LEFT_OUT = {"site-packages", "dist-packages", "test", "tests", "idle_test", "__pycache__", "__phello__"}
_TOPICS = Path("pydoc_data", "topics.py")
_Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def library_files() -> list[Path]:
    """The standard library's source files, in the order of their module names, tests left out.

    Raises UserError where this Python keeps no sources (a zipped or stripped installation).
    """
    root = Path(sysconfig.get_path("stdlib"))
    files: list[Path] = []
    for folder, below, names in os.walk(root):
        below[:] = [name for name in below if name not in _LEFT_OUT]
        files += [Path(folder, name) for name in names if name.endswith(".py")]
    if not files:
        raise UserError(
            "corpus source builtin:python-docs found no source files of the standard library",
            where=str(root),
            expected="a Python that has its .py files on disk",
            mend="leave builtin:python-docs out of corpus.sources",
        )
    return sorted(files, key=lambda path: path.relative_to(root).parts)


def read_python_docs() -> Iterator[Raw | Refused]:
    """One document a module that documents anything, one a topic; a file that is no Python is refused.

    `Raw.file` is the module's path below the library; `Raw.record` the topic's number, else 0.
    """
    root = Path(sysconfig.get_path("stdlib"))
    for path in library_files():
        relative = path.relative_to(root)
        try:
            with tokenize.open(path) as file:  # honours the file's coding line
                source, encoding = file.read(), file.encoding
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # old escapes in literals are no concern of ours
                tree = ast.parse(source)
        except (SyntaxError, ValueError, RecursionError, OSError) as error:
            yield Refused("unparsable_python", str(relative), excerpt=str(error))
            continue
        if relative == _TOPICS:
            for number, text in enumerate(_topics(tree), start=1):
                yield Raw(text, str(relative), number, language="en", encoding=encoding)
        elif text := _module(tree, relative):
            yield Raw(text, str(relative), language="en", encoding=encoding)


def _topics(tree: ast.Module) -> list[str]:
    """The texts of the `topics = {name: text}` table."""
    for statement in tree.body:
        if isinstance(statement, ast.Assign) and isinstance(statement.value, ast.Dict):
            table = ast.literal_eval(statement.value)
            return [text for _, text in sorted(table.items()) if isinstance(text, str)]
    return []


def _module(tree: ast.Module, relative: Path) -> str:
    """The module's documentation as text, "" where it documents nothing."""
    parts = relative.with_suffix("").parts
    name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
    sections = list(_sections(tree.body, ""))
    described = ast.get_docstring(tree)
    if described is None and not sections:
        return ""
    return "\n\n".join([f"module {name}", *([described] if described else []), *sections])


def _sections(body: list[ast.stmt], prefix: str) -> Iterator[str]:
    """Signature and docstring of every public definition, methods after their class."""
    for node in body:
        if not isinstance(node, _Definition) or node.name.startswith("_"):
            continue
        described = ast.get_docstring(node)
        if described:
            yield f"{_signature(node, prefix)}\n\n{described}"
        if isinstance(node, ast.ClassDef):
            yield from _sections(node.body, f"{prefix}{node.name}.")


def _signature(node: _Definition, prefix: str) -> str:
    if isinstance(node, ast.ClassDef):
        bases = ", ".join(ast.unparse(base) for base in node.bases)
        return f"class {prefix}{node.name}({bases})" if bases else f"class {prefix}{node.name}"
    word = "async def" if isinstance(node, ast.AsyncFunctionDef) else "def"
    return f"{word} {prefix}{node.name}({ast.unparse(node.args)})"
