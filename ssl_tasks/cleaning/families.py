"""Which rows can be stored together: the most frequent family stays, the rows of others are rejected by name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ssl_tasks.cleaning.quarantine import Found

if TYPE_CHECKING:
    from ssl_tasks.modalities.base import Kind  # imports torch


class Families:
    """Is shown every row's kind, in the order of the rows; holds four bytes a row."""

    def __init__(self, num_rows: int) -> None:
        self._numbers = np.full(num_rows, -1, np.int32)
        self._kinds: dict[Kind, int] = {}
        self._counts: Counter[Kind] = Counter()

    def see(self, rows: NDArray[np.int64], kinds: Sequence[Kind]) -> None:
        """Rows that can be used."""
        self._counts.update(kinds)
        self._numbers[rows] = [self._kinds.setdefault(kind, len(self._kinds)) for kind in kinds]

    def unlike(self) -> NDArray[np.bool_]:
        """(N,) which rows are of another family than most; of equally frequent ones the first row's counts as that."""
        main = self._main()
        odd = np.array([*(kind.family != main for kind in self._kinds), False])  # the last one: rows without a kind
        found: NDArray[np.bool_] = odd[self._numbers]
        return found

    def found(self, noun: str) -> Iterator[tuple[int, Found]]:
        """What to say of each of these rows, ascending.

        Args:
            noun: what the rows are, for messages.
        """
        main = self._main()
        usual = {kind: count for kind, count in self._counts.most_common() if kind.family == main}
        share = 100 * sum(usual.values()) // max(1, self._counts.total())
        theirs = f"{share}% of the {noun} have {' or '.join(kind.short for kind in usual)}"
        kinds = list(self._kinds)
        for row in np.flatnonzero(self.unlike()):
            yield int(row), Found("unlike_others", f"{kinds[self._numbers[row]].name}; {theirs}")

    def _main(self) -> str | None:
        sizes: Counter[str] = Counter()
        for kind in self._kinds:  # in the order in which they appeared, which decides where sizes are equal
            sizes[kind.family] += self._counts[kind]
        return max(sizes, key=lambda family: sizes[family], default=None)
