"""The corpus: whatever text the recipe names becomes one clean, deduplicated, split collection of documents.

In come built-in texts, files, folders, globs and addresses of text, pages, records, archives of crawls and programs,
compressed or not; out go documents/{train,validation}-NNNNN.parquet, funnel.json (what each step kept and refused,
source by source) and rejected/*.parquet (a sample of the refused). `build` runs phases of tasks over the `engine`:

    harvest   a unit of files: `units` → `readers` → `extract` → `clean` → `policy` (filters, personal data, tests)
    settle    equal documents and repeated lines, by ranges of hashes (`dedup`, `keys`)
    refine    only where lines are removed: texts without them
    pair, cluster    near-duplicates, by ranges of bands
    write     passages, split and files

This room promises:

* no bad byte, broken line or hostile archive stops a build; each is counted with its place, and a sample is kept;
* every record read is either kept or counted under the rule that refused it (`funnel`);
* memory is bounded by a unit and by a range, not by the corpus; any process may be killed at any moment and the same
  call goes on (`plan`);
* equal inputs give equal bytes on one process, many or a cluster, and a text is on the same side of the split in every
  corpus;
* a missing source is an error that says which one and what was looked for (`sources`).
"""

from groundup.corpus.build import build_corpus
from groundup.corpus.sources import external_files, external_identities, resolve_sources
from groundup.corpus.store import Document, read_documents

__all__ = [
    "Document",
    "build_corpus",
    "external_files",
    "external_identities",
    "read_documents",
    "resolve_sources",
]
