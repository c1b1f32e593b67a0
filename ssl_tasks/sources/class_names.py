"""Class names as Hugging Face `datasets` describes them, in JSON files and in Arrow and Parquet schemas."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pyarrow as pa


def schema_class_names(schema: pa.Schema) -> dict[str, list[str]]:
    """By column, the names of its classes, as they stand in an Arrow or Parquet schema."""
    try:
        described = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
        return class_names(described["info"]["features"])
    except (ValueError, KeyError, TypeError):  # other programs may write what they like
        return {}


def class_names(features: Mapping[str, Any]) -> dict[str, list[str]]:
    """Names of the classes of each column of type ClassLabel, or of lists of these."""
    found: dict[str, list[str]] = {}
    for column, feature in features.items():
        while isinstance(feature, list) or (isinstance(feature, dict) and "feature" in feature):
            feature = feature[0] if isinstance(feature, list) else feature["feature"]
        if isinstance(feature, dict) and feature.get("_type") == "ClassLabel":
            found[column] = [str(name) for name in feature.get("names") or []]
    return found
