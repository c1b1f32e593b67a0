"""Tables whose columns are the features: here only their files, for the modality knows what their values mean."""

from __future__ import annotations

from collections.abc import Iterator

from ssl_tasks.sources.base import Source
from ssl_tasks.sources.listing import unchanged


class Tables(Source):
    """The tables below a folder, or one of them."""

    kind = "tables"
    what = "tables of features"
    keys = frozenset(
        {"label_column", "group_column", "domain_column", "split_column", "drop_columns"}
        | {"labels_column", "labels_separator", "class_columns", "number_column"}
    )

    def files(self) -> Iterator[tuple[str, str]]:
        """Path and relative name of each table; it must rest until the next one is asked for.

        Raises:
            StageError: it changed before that.
        """
        for part in self.listed():
            for name, path in zip(part.keys, part.paths, strict=True):
                with unchanged(path):
                    yield path, name
