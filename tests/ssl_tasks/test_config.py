"""Semantic and execution fields, overrides, readable errors."""

import datetime
import re

import pytest
from pydantic import Field, ValidationError

from ssl_tasks.config import Config, deep_merge, digest, execution, explain, parse_override, semantic
from ssl_tasks.errors import RequestError
from ssl_tasks.training.config import PretrainConfig


class Inner(Config):
    rate: float = 0.1


class Before(Config):
    size: int = 8
    inner: Inner = Inner()
    workers: int = execution(1)


class After(Before):
    new: str = "default"


def test_only_semantic_fields_off_their_defaults_are_hashed() -> None:
    assert semantic(Before()) == {}
    assert semantic(Before(workers=7)) == {}
    assert semantic(Before(size=9, inner=Inner(rate=0.2))) == {"size": 9, "inner": {"rate": 0.2}}


def test_a_new_field_at_its_default_changes_no_hash() -> None:
    assert digest(semantic(Before(size=9))) == digest(semantic(After(size=9)))
    assert digest(semantic(Before(size=9))) != digest(semantic(After(size=9, new="other")))


def test_a_method_and_its_options_are_hashed_without_importing_it() -> None:
    config = PretrainConfig.model_validate({"method": {"name": "simclr", "temperature": 0.5}, "num_workers": 4})
    assert semantic(config) == {"method": {"temperature": 0.5}}


def test_any_json_value_may_be_a_method_option() -> None:
    options = {"name": "simclr", "a": [1, 2.5, True, None], "b": {"c": "text"}}
    assert PretrainConfig.model_validate({"method": options}).method.options() == options


@pytest.mark.parametrize("value", [float("nan"), [float("inf")], datetime.date(2026, 11, 22), b"bytes", {1: 2}])
def test_a_method_option_that_cannot_be_hashed_is_refused(value: object) -> None:
    with pytest.raises(ValidationError) as wrong:
        PretrainConfig.model_validate({"method": {"name": "simclr", "temperature": value}})
    assert {error["loc"][:2] for error in wrong.value.errors()} == {("method", "temperature")}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a.b=3", {"a": {"b": 3}}),
        ("a.b=[1, 2]", {"a": {"b": [1, 2]}}),
        ("a=x=y", {"a": "x=y"}),
        ("a.b=", {"a": {"b": None}}),
        ("ingest.path=/data/my photos #1", {"ingest": {"path": "/data/my photos #1"}}),
        ("ingest.path=2024", {"ingest": {"path": "2024"}}),
        ("ingest.path=/data/a: b", {"ingest": {"path": "/data/a: b"}}),
        ("ingest.path='2024-01-01'", {"ingest": {"path": "2024-01-01"}}),
        ("ingest.path=null", {"ingest": {"path": None}}),
        ("a.b='x #1'", {"a": {"b": "x #1"}}),
        ("a.b=['x #1', y#2]", {"a": {"b": ["x #1", "y#2"]}}),
    ],
)
def test_overrides(text: str, expected: dict) -> None:
    assert parse_override(text) == expected


@pytest.mark.parametrize("text", ["a.b", "=3", "a..b=1", "a=[1", "a=2026-02-30", "a.b=x #1", "a={b: 1, b: 2}"])
def test_wrong_overrides_are_refused(text: str) -> None:
    with pytest.raises(RequestError, match="--set"):
        parse_override(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a.b=my photos #1", """--set a.b='"my photos #1"'"""),
        ("a.b=#1", """--set a.b='"#1"'"""),
        ("a.b='x' #1", "takes what follows # for a comment"),
        ("ingest={path: a, path: b}", "the key 'path' stands twice"),
    ],
)
def test_what_yaml_would_drop_is_refused_with_advice(text: str, message: str) -> None:
    with pytest.raises(RequestError, match=re.escape(message)):
        parse_override(text)


def test_merging_changes_neither_side() -> None:
    base = {"a": {"b": 1, "c": 2}}
    assert deep_merge(base, {"a": {"b": 3}}) == {"a": {"b": 3, "c": 2}}
    assert base == {"a": {"b": 1, "c": 2}}


class Small(Config):
    batch_size: int = Field(4, ge=1)


def test_errors_name_the_key_and_the_near_one() -> None:
    with pytest.raises(ValidationError) as wrong:
        Small.model_validate({"batch_sise": 2, "batch_size": "many"})
    message = str(explain(wrong.value, Small, "recipe.yaml"))
    assert "recipe.yaml" in message
    assert "batch_sise: unknown key, did you mean 'batch_size'?" in message
    assert "batch_size: Input should be a valid integer" in message
    assert "'many'" in message
