"""What users write into label, group, domain, split and text columns, as the rows table has it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from ssl_tasks.errors import RequestError
from ssl_tasks.schema import DOMAIN, GROUP_ID, LABEL, LABELS, NUMBER, SPLIT, SPLIT_NAMES
from ssl_tasks.sources.walk import is_utf8

ROLES = {LABEL: "label", GROUP_ID: "group", DOMAIN: "domain", SPLIT: "split", "text": "text"}
"""Columns of `schema.ROWS` that a column of a list may give, and their roles' names."""
TARGETS = {LABELS: "labels", NUMBER: "number"}
"""Further ones, which a column gives only where the config names it."""
YES, NO = ("1", "true"), ("0", "false")
NO_NUMBER = ("?", "na", "n/a", "nan", "null", "none")
"""What stands for a missing number, in small letters."""
SPLIT_HINT = "train, val or test (or training, unlabeled, valid, validation, dev, testing)"


def text_of(value: Any, where: str) -> str | None:
    """One value as text: trimmed, whole numbers without a point; None where it is empty or NaN.

    Raises:
        RequestError: it is no single value; the message begins with `where`.
    """
    if isinstance(value, bytes):
        try:
            value = value.decode()
        except UnicodeDecodeError as error:
            raise RequestError(f"{where}: {value[:40]!r} is not UTF-8 text") from error
    if isinstance(value, (dict, list, tuple)):
        raise RequestError(f"{where}: {str(value)[:80]} is not a single value")
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    text = str(value).strip()
    if not is_utf8(text):  # JSON can escape what is none
        raise RequestError(f"{where}: {text!r} is not UTF-8 text")
    return text or None


def number_of(value: Any, where: str) -> float | None:
    """One value as a finite number; None where it is empty, NaN, or one of `NO_NUMBER`.

    Raises:
        RequestError: it is no number; the message begins with `where`.
    """
    text = text_of(value, where)
    if text is None or text.lower() in NO_NUMBER:
        return None
    try:
        number = float(text)
    except ValueError as error:
        raise RequestError(f"{where}: {text[:40]!r} is not a number") from error
    if not math.isfinite(number):
        raise RequestError(f"{where}: {text[:40]!r} is not a finite number")
    return number


def several_of(value: Any, separator: str, names: Sequence[str] | None, where: str) -> list[str] | None:
    """The classes of one row, each once and in the order given; None where the value is empty.

    Raises:
        RequestError: one of them is no single value; the message begins with `where`.
    """
    if not isinstance(value, (list, tuple)):
        text = text_of(value, where)
        if text is None:
            return None
        value = [part for part in text.split(separator) if part.strip()]
    return list(dict.fromkeys(text for one in value if (text := _named(one, names, where)) is not None))


def classes_of(given: Mapping[str, Sequence[Any]], places: Sequence[str]) -> list[list[str] | None]:
    """The classes of each row, from a column for each class; None where all of a row's values are empty.

    Args:
        given: by class, a value for each row.
        places: where each row is, for messages.

    Raises:
        RequestError: a value is none of `YES` and `NO`.
    """
    found: list[list[str] | None] = []
    for row, place in enumerate(places):
        said = {name: _is_there(values[row], f"{place}: {name}") for name, values in given.items()}
        known = any(value is not None for value in said.values())
        found.append([name for name, value in said.items() if value] if known else None)
    return found


def _is_there(value: Any, where: str) -> bool | None:
    text = text_of(value, where)
    if text is None or text.lower() in (*YES, *NO):
        return None if text is None else text.lower() in YES
    raise RequestError(f"{where}: {text[:40]!r} is neither 1 nor 0, which say whether a row is of that class")


def role_columns(
    given: dict[str, list[Any]], names: dict[str, Sequence[str]], places: list[str], separator: str = ";"
) -> dict[str, Any]:
    """Columns of `schema.ROWS` from a source's values.

    Args:
        given: by column of `ROLES` and `TARGETS`, a value for each row; LABELS after LABEL.
        names: by column, the class names that stand for 0, 1, ...
        places: where each row is, for messages.
        separator: of the classes in a text of several.

    Raises:
        RequestError: a value is none of what its column takes; the message names the row.
    """
    columns: dict[str, Any] = {}
    for column, values in given.items():
        role = (ROLES | TARGETS)[column]
        called = names.get(column)
        if column == NUMBER:
            columns[column] = [number_of(value, f"{p}: {role}") for value, p in zip(values, places, strict=True)]
            continue
        if column == LABELS:
            pairs = zip(values, places, strict=True)
            columns[column] = [several_of(value, separator, called, f"{place}: {role}") for value, place in pairs]
            continue
        if column == LABEL and any(isinstance(value, (list, tuple)) for value in values):
            several = [value if isinstance(value, (list, tuple)) else None for value in values]
            columns[LABELS] = [
                value if value is None else [t for v in value if (t := _named(v, called, f"{place}: {role}"))]
                for value, place in zip(several, places, strict=True)
            ]
            values = [None if isinstance(value, (list, tuple)) else value for value in values]
        texts = [_named(value, called, f"{place}: {role}") for value, place in zip(values, places, strict=True)]
        columns[column] = [_split(t, p) for t, p in zip(texts, places, strict=True)] if column == SPLIT else texts
    return columns


def _named(value: Any, names: Sequence[str] | None, where: str) -> str | None:
    if names is None or not isinstance(value, int):
        return text_of(value, where)
    if value < 0:  # Hugging Face's mark of a row without a label
        return None
    if value >= len(names):
        raise RequestError(f"{where}: {value} is outside the {len(names)} class names that the data set has")
    return names[value]


def _split(name: str | None, where: str) -> str | None:
    if name is None:
        return None
    if name.lower() not in SPLIT_NAMES:
        raise RequestError(f"{where}: split {name!r} is not {SPLIT_HINT}")
    return SPLIT_NAMES[name.lower()]


def fill_split(columns: dict[str, Any], split: str | None, num_rows: int) -> None:
    """Give the rows without a split of their own that of their container."""
    if split is not None:
        columns[SPLIT] = [own or split for own in columns.get(SPLIT) or [None] * num_rows]
