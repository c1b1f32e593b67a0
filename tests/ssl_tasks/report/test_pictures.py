import numpy as np
import pytest
from tests_stored import normalized, shown

from ssl_tasks.report.pictures import Pictures
from ssl_tasks.store import Store


def test_each_position_gives_its_picture(store: Store) -> None:
    payload = np.stack([np.full((8, 8, 3), value, np.uint8) for value in (10, 90, 170, 250)])
    pictures = Pictures.of(normalized(store, payload))
    found = [shown(uri) for uri in pictures.take(np.array([3, 0, 2]), 32)]
    assert [image.shape for image in found] == [(32, 32, 3)] * 3  # 8 px grow by whole pixels
    assert [round(float(image.mean())) for image in found] == pytest.approx([250, 10, 170], abs=1)


def test_large_ones_shrink(store: Store) -> None:
    pictures = Pictures.of(normalized(store, np.zeros((1, 100, 50, 1), np.uint8)))
    assert shown(pictures.take(np.array([0]), 32)[0]).shape == (32, 16)


@pytest.mark.parametrize(
    ("dtype", "low", "high", "value", "grey"),
    [("uint16", 1000, 3000, 2000, 128), ("float32", -1.0, 1.0, 2.0, 255), ("float32", 0.0, 0.0, np.nan, 0)],
)
def test_stored_values_are_shown_between_black_and_white(
    store: Store, dtype: str, low: float, high: float, value: float, grey: int
) -> None:
    payload = np.full((1, 4, 4, 5), value, dtype)  # of five bands the first three are shown
    (uri,) = Pictures.of(normalized(store, payload, low, high)).take(np.array([0]), 4)
    assert shown(uri).shape == (4, 4, 3)
    assert float(shown(uri).mean()) == pytest.approx(grey, abs=1)


def test_a_table_has_none(store: Store) -> None:
    assert Pictures.of(normalized(store, np.zeros((1, 6), np.float32), modality="tabular")) is None
