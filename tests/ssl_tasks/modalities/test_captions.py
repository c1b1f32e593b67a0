"""Captions to tokens: what is learned, what is stored, what is cut."""

import json
import random

import numpy as np
import pytest
from pydantic import ValidationError

from ssl_tasks.modalities.captions import END, PAD, START, CaptionTokenizer, TokenizerConfig, fit

WORDS = ("a", "photo", "of", "the", "red", "blue", "cat", "dog", "Größe", "日本", "ship", "and")


def sentences(count: int = 300) -> list[str]:
    draw = random.Random(0)
    return [" ".join(draw.choices(WORDS, k=draw.randint(2, 7))) for _ in range(count)]


def fitted(captions: list[str], **options: int) -> CaptionTokenizer:
    return fit(lambda: iter(captions), TokenizerConfig(**options))


def test_tokens_read_back_as_the_caption_in_small_letters() -> None:
    tokenizer = fitted(sentences())
    captions = ["the Größe of 日本", "A photo of a CAT", "zebra!"]
    tokens, num_cut = tokenizer.encode(captions)
    assert (tokens.dtype, tokens.shape, num_cut) == (np.uint16, (3, tokenizer.shape.length), 0)
    for row, caption in zip(tokens.tolist(), captions, strict=True):
        end = row.index(END)
        assert row[0] == START
        assert set(row[end + 1 :]) <= {PAD}
        assert tokenizer.tokenizer.decode(row[1:end]).strip() == caption.lower()
    assert tokens.max() < tokenizer.shape.vocabulary


def test_equal_captions_give_an_equal_tokenizer_in_any_order() -> None:
    captions = sentences()
    first = fitted(captions).json()
    assert fitted(captions[::-1]).json() == first
    assert fitted([*captions[1:], "one more"]).json() != first


def test_frequent_words_are_one_token_and_the_vocabulary_is_bounded() -> None:
    whole, tight = fitted(sentences()), fitted(sentences(), vocabulary_size=262)
    assert whole.encode(["cat dog"])[0][0, :4].tolist()[3] == END
    assert whole.shape.vocabulary < 400  # no more merges than the captions give
    assert tight.shape.vocabulary == 262
    assert len(json.loads(tight.json())["model"]["merges"]) == 3  # besides 256 bytes and the three marks


def test_what_is_too_long_is_cut_and_counted() -> None:
    captions = ["cat", "cat dog", "cat dog ship red"]
    tokenizer = fitted([*sentences(), *captions], length=5)
    tokens, num_cut = tokenizer.encode(captions)
    assert tokenizer.shape.length == 5
    assert num_cut == 1
    assert tokens[2, 4] == END
    assert tokens[2, 1] == tokens[0, 1]


def test_rows_are_as_long_as_the_longest_train_caption() -> None:
    tokenizer = fitted(["cat dog", "cat dog ship"] * 20)
    assert tokenizer.shape.length == 5
    assert tokenizer.encode(["cat dog ship cat"])[1] == 1


def test_a_caption_cannot_spell_the_marks() -> None:
    tokenizer = fitted([*sentences(), " ".join(WORDS * 3)])  # long rows
    row = tokenizer.encode(["<end> <pad> <start>"])[0][0].tolist()
    assert (row.count(START), row.count(END)) == (1, 1)
    assert PAD not in row[: row.index(END)]
    assert tokenizer.tokenizer.decode(row[1 : row.index(END)]).strip() == "<end> <pad> <start>"


def test_the_file_gives_the_same_tokens_to_others() -> None:
    from tokenizers import Tokenizer

    tokenizer = fitted(sentences())
    other = Tokenizer.from_str(tokenizer.json())
    assert other.encode("a photo of a cat").ids == tokenizer.encode(["a photo of a cat"])[0][0].tolist()


@pytest.mark.parametrize("options", [{"vocabulary_size": 258}, {"vocabulary_size": 70_000}, {"length": 2}])
def test_sizes_that_cannot_be_are_refused_by_name(options: dict[str, int]) -> None:
    with pytest.raises(ValidationError, match=next(iter(options))):
        TokenizerConfig(**options)
