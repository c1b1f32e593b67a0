"""Images and captions from a list to an encoder, through all stages, by one worker and by two."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests_captioned import captioned, sections

from ssl_tasks.store import Store

pytestmark = pytest.mark.usefixtures("ray_session")


def test_two_workers_learn_what_one_does_and_the_tokenizer_travels(store: Store, tmp_path: Path, chain: Any) -> None:
    recipe = sections(captioned(tmp_path / "data"))
    recipe["pretrain"] |= {"precision": "fp64", "max_steps": 4}
    made = chain(store, recipe, until="pretrain")
    recipe["pretrain"]["num_workers"] = 2
    one, two = (
        made["pretrain"],
        chain(Store.open(str(tmp_path / "other")), recipe, until="pretrain")["pretrain"],
    )
    assert one.fingerprint == two.fingerprint
    for name in ("loss", "recall_at_1"):
        first, second = (artifact.table("metrics.parquet")[name].to_pylist() for artifact in (one, two))
        assert len(first) == 4
        np.testing.assert_allclose(second, first, rtol=0, atol=1e-8)
    assert one.path("tokenizer.json").read_bytes() == made["normalize"].path("tokenizer.json").read_bytes()
