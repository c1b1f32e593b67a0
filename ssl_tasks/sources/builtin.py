"""Data sets that ship with scikit-learn, written out once as a user's would be."""

from __future__ import annotations

import csv
import shutil
import uuid
from pathlib import Path

from ssl_tasks.errors import RequestError
from ssl_tasks.store.cache import cache_home

BUILTIN = "builtin:"


def builtin(name: str) -> Path:
    """Folder of a data set that ships with scikit-learn, written out once as a user's would be.

    Raises:
        RequestError: there is none of that name.
    """
    writers = {"digits": _write_digits, "cancer": _write_cancer}
    if name not in writers:
        raise RequestError(f"ingest.path: no built-in data {BUILTIN}{name}; there are {', '.join(writers)}")
    target = cache_home() / "data" / name
    if not target.exists():
        temporary = target.with_name(f".{uuid.uuid4().hex}")
        temporary.mkdir(parents=True)
        writers[name](temporary)
        try:
            temporary.rename(target)  # whole or not at all
        except OSError:
            shutil.rmtree(temporary)  # another process was first
    return target


def _write_digits(folder: Path) -> None:
    from PIL import Image
    from sklearn.datasets import load_digits

    digits = load_digits()
    for number, (pixels, label) in enumerate(zip(digits.images, digits.target, strict=True)):
        place = folder / str(label)
        place.mkdir(exist_ok=True)
        Image.fromarray((pixels * 255 / 16).round().astype("uint8")).save(place / f"{number:04d}.png")


def _write_cancer(folder: Path) -> None:
    from sklearn.datasets import load_breast_cancer

    cancer = load_breast_cancer()
    with open(folder / "breast_cancer.csv", "w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow([*(name.replace(" ", "_") for name in cancer.feature_names), "diagnosis"])
        for values, label in zip(cancer.data, cancer.target, strict=True):
            writer.writerow([*(repr(float(value)) for value in values), cancer.target_names[label]])
