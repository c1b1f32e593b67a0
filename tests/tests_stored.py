"""Pictures as normalize stores them, and thumbnails decoded again."""

import base64
import io

import numpy as np
import pyarrow as pa
from PIL import Image
from tests_planted import commit

from ssl_tasks.artifact import Artifact
from ssl_tasks.shards import ShardWriter, tensor_array
from ssl_tasks.store import Output, Store


def normalized(
    store: Store, payload: np.ndarray, low: float = 0, high: float = 255, modality: str = "image"
) -> Artifact:
    channels = payload.shape[-1]

    def write(out: Output) -> None:
        writer = ShardWriter(out, "payload", max_rows=2)
        writer.write(pa.table({"row": np.arange(len(payload)), "payload": tensor_array(payload)}))
        writer.flush()
        out.json("stats.json", {"modality": modality, "low": [low] * channels, "high": [high] * channels})

    return commit(store, "normalize", write, len(payload))


def shown(uri: str) -> np.ndarray:
    assert uri.startswith("data:image/jpeg;base64,")
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1]))))
