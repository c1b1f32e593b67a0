"""Tables for a terminal: without borders; in a narrow window the last column goes below each line."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from rich.cells import cell_len
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

ENOUGH = 26
"""Characters in which the last column, where the long texts stand, can still be read beside the others."""
GAP = 2


def print_table(console: Console, names: Sequence[str], rows: list[list[str]], right: Collection[str] = ()) -> None:
    """`right` are the columns of numbers. The first column is never folded: ids are there to be copied."""
    longest = [max(cell_len(text) for text in column) for column in zip(names, *rows, strict=True)]
    beside = console.width - sum(longest[:-1]) - GAP * (len(names) - 1)
    if len(names) < 3 or beside >= min(ENOUGH, longest[-1]):
        table = _table(names, right)
        for row in rows:
            table.add_row(*map(Text, row))
        console.print(table)
        return
    widths = _widths(names[:-1], rows, longest[:-1], console.width)
    console.print(_table(names[:-1], right, widths))
    for row in rows:
        line = _table(names[:-1], right, widths, header=False)
        line.add_row(*map(Text, row[:-1]))
        console.print(line)
        if row[-1] not in ("", "-"):
            console.print(Padding(Text(f"{names[-1]}: {row[-1]}" if names[-1] else row[-1]), (0, 0, 0, GAP)))


def _table(
    names: Sequence[str], right: Collection[str], widths: Sequence[int] | None = None, header: bool = True
) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False, show_header=header)
    for place, name in enumerate(names):
        table.add_column(
            Text(name),
            overflow="fold",
            justify="right" if name in right else "left",
            no_wrap=place == 0,
            width=widths[place] if widths else None,
        )
    return table


def _widths(names: Sequence[str], rows: list[list[str]], longest: Sequence[int], room: int) -> list[int]:
    """As wide as the texts are; where that is too much, the widest columns but the first shrink to their words."""
    words = [
        max(cell_len(word) for text in column for word in text.split() or [""])
        for column in zip(names, *(row[:-1] for row in rows), strict=True)
    ]
    widths = list(longest)
    while sum(widths) + GAP * (len(widths) - 1) > room:
        open_ones = [place for place in range(1, len(widths)) if widths[place] > words[place]]
        if not open_ones:
            break
        widths[max(open_ones, key=widths.__getitem__)] -= 1
    return widths
