"""What `adopt.encoder` names: one of ours, or files of an encoder that was made elsewhere.

    <store>/objects/<fingerprint>        a pretrain artifact
    timm:<model>@<file>                  a model of timm, and its weights
    torchvision:<model>@<file>           the same of torchvision
    <folder>                             config.json and weights, as the Hugging Face hub has them

Imports no torch: plans are made from it.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ssl_tasks.errors import RequestError
from ssl_tasks.sources.hashes import content_hash_file

KEY = "adopt.encoder"
ROLE = "encoder"
"""Of the pretrain artifact, among the parents of what is made from one of ours."""
CONFIG_FILE = "config.json"
WEIGHTS_FILES = ("model.safetensors", "pytorch_model.bin")
"""Of a folder, the first that is there."""
LIBRARIES = ("timm", "torchvision")
FORMS = (
    "a run or a pretrain artifact, timm:<model>@<file of weights>, torchvision:<model>@<file of weights>, or a folder "
    f"with {CONFIG_FILE} and {' or '.join(WEIGHTS_FILES)}"
)


@dataclass(frozen=True)
class Outside:
    """An encoder that was made elsewhere."""

    kind: Literal["timm", "torchvision", "folder"]
    model: str
    """Its name in its library; empty for a folder, which says so itself."""
    path: Path
    """Of the weights, or the folder."""

    @property
    def files(self) -> list[Path]:
        """All that is read, the weights last.

        Raises:
            RequestError: one is missing.
        """
        if self.kind != "folder":
            if not self.path.is_file():
                raise RequestError(f"{KEY}: there is no file of weights {self.path}")
            return [self.path]
        found = [self.path / name for name in WEIGHTS_FILES if (self.path / name).is_file()]
        if not (self.path / CONFIG_FILE).is_file() or not found:
            missing = " or ".join(WEIGHTS_FILES) if (self.path / CONFIG_FILE).is_file() else CONFIG_FILE
            raise RequestError(f"{KEY}: the folder {self.path} has no {missing}")
        return [self.path / CONFIG_FILE, found[0]]

    def content_hash(self) -> str:
        """Of what is read and how: the same wherever the files stand."""
        hasher = hashlib.sha256(f"{self.kind} {self.model}\n".encode())
        for file in self.files:
            try:
                hasher.update(f"{file.name if self.kind == 'folder' else ''} {content_hash_file(file)}\n".encode())
            except OSError as error:
                raise RequestError(f"{KEY}: {file} cannot be read: {error.strerror}") from error
        return hasher.hexdigest()


def parse(text: str) -> Outside | None:
    """The encoder from elsewhere that is named; None where `text` can only mean one of ours.

    Raises:
        RequestError: it begins as one and goes on otherwise.
    """
    library, colon, rest = text.partition(":")
    if colon and library in LIBRARIES:
        model, at, file = rest.partition("@")
        if not at or not model or not file:
            raise RequestError(f"{text} names no weights; expected {library}:<model>@<file of weights>")
        return Outside("timm" if library == "timm" else "torchvision", model, _absolute(file))
    folder = _absolute(text) if text and "://" not in text else None
    if folder is not None and folder.is_dir() and not (folder / "manifest.json").is_file():
        return Outside("folder", "", folder)
    return None


def absolute(text: str) -> str:
    """`text` with its path made absolute: a later process may stand in another folder."""
    found = parse(text)
    if found is None:
        return text
    return str(found.path) if found.kind == "folder" else f"{found.kind}:{found.model}@{found.path}"


def _absolute(path: str) -> Path:
    return Path(path).expanduser().absolute()
