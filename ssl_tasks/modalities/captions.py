"""Captions as token ids: byte-level BPE, fitted on train rows, with the `tokenizers` package.

tokenizer = fit(lambda: iter(captions_of_train_rows), TokenizerConfig())
tokens, num_cut = tokenizer.encode(["a photo of a cat"])      # (1, L) uint16: START, ..., END, PAD, ...
"""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from ssl_tasks.config import Config

if TYPE_CHECKING:
    from tokenizers import Tokenizer

CAPTIONS = "captions"
"""What a method of images and texts needs, and the key under which `normalize` says what the captions became."""

PAD, START, END = range(3)
SPECIAL = ("<pad>", "<start>", "<end>")
NUM_BYTES = 256
PART_ROWS = 1024


class TokenizerConfig(Config):
    """How captions become tokens. The defaults are CLIP's (arXiv 2103.00020, section 2.4)."""

    vocabulary_size: int = Field(49_152, ge=NUM_BYTES + len(SPECIAL), le=1 << 16)
    """At most so many different tokens; few captions give fewer."""
    length: int = Field(76, ge=3)
    """At most so many tokens of a caption, with those for its start and end; the rest is cut off. All are stored as
    long as the longest of the train rows, where that is shorter."""


@dataclass(frozen=True)
class TextShape:
    """What a model of token ids must be built for."""

    vocabulary: int
    """Ids are below it."""
    length: int
    """Tokens of each row, L."""


@dataclass(frozen=True)
class CaptionTokenizer:
    """A fitted tokenizer, and the shape of what it gives."""

    tokenizer: Tokenizer
    shape: TextShape

    def encode(self, captions: Sequence[str]) -> tuple[NDArray[np.uint16], int]:
        """(N, L) token ids, and how many of the captions had to be cut."""
        encoded = _encode(self.tokenizer, captions)
        tokens = np.array([one.ids for one in encoded], np.uint16).reshape(-1, self.shape.length)
        return tokens, sum(bool(one.overflowing) for one in encoded)

    def json(self) -> str:
        """What `tokenizers.Tokenizer.from_str` reads; equal for equal tokenizers."""
        return self.tokenizer.to_str(pretty=True)


def fit(captions: Callable[[], Iterator[str]], config: TokenizerConfig) -> CaptionTokenizer:
    """Learn the vocabulary from the captions of train rows, which are gone through twice.

    Equal captions give an equal tokenizer, in whatever order they come. Lower case, as CLIP's.
    """
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)  # a first word is as any other
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=config.vocabulary_size,
        special_tokens=list(SPECIAL),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    with _in_this_thread():
        tokenizer.train_from_iterator(captions(), trainer)
    marks: list[Any] = [(SPECIAL[number], number) for number in (START, END)]
    tokenizer.post_processor = processors.TemplateProcessing(f"{SPECIAL[START]} $A {SPECIAL[END]}", None, marks)
    length = min(config.length, _longest(tokenizer, captions()))
    tokenizer.enable_truncation(length)
    tokenizer.enable_padding(pad_id=PAD, pad_token=SPECIAL[PAD], length=length)
    return CaptionTokenizer(tokenizer, TextShape(tokenizer.get_vocab_size(), length))


def _longest(tokenizer: Tokenizer, captions: Iterator[str]) -> int:
    longest = 0
    while part := list(itertools.islice(captions, PART_ROWS)):
        longest = max(longest, *(len(encoded.ids) for encoded in _encode(tokenizer, part)))
    return longest


def _encode(tokenizer: Tokenizer, captions: Sequence[str]) -> list[Any]:
    tokenizer.encode_special_tokens = True  # a caption that reads "<end>" is text
    with _in_this_thread():
        return list(tokenizer.encode_batch(list(captions)))


@contextlib.contextmanager
def _in_this_thread() -> Iterator[None]:
    """Threads of its own would make the package warn on standard error at every later fork of this process."""
    name = "TOKENIZERS_PARALLELISM"
    before = os.environ.get(name)
    os.environ[name] = "false"
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before
