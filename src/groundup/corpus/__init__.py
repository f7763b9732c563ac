"""The corpus: whatever text the recipe names becomes one clean, deduplicated, split collection of documents.

In come built-in texts, files, folders and globs of .txt, .md and .jsonl, each plain or .gz; out go
documents/{train,validation}-NNNNN.parquet, funnel.json (what each step kept and refused, source by source)
and rejected/*.parquet (a sample of the refused). The way is read by `readers` and `python_docs` →
`text.normalise` → `text.passages` → exact deduplication → split by hash → `store`. This room promises:

* no bad byte, broken line or empty file stops a build, and each is counted with its file and line;
* the texts stream: memory is bounded but for about 100 bytes a document for deduplication (`build`);
* equal inputs give equal bytes, and a text is on the same side of the split in every corpus;
* a missing source is an error that says which one and what was looked for (`sources`).
"""

import importlib
from typing import Any

_HOMES = {
    "build_corpus": "build",
    "external_files": "sources",
    "external_identities": "sources", "resolve_sources": "sources",
    "Document": "store",
    "read_documents": "store",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"groundup.corpus.{_HOMES[name]}"), name)
    raise AttributeError(name)
