"""Formats that Pillow does not hold: arrays, DICOM, TIFFs of many bands, colour of 16 bits."""

import struct
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tests_pictures import DEEP, GREY, RGB, array, encoded, png, scene

from ssl_tasks.modalities.image import readers
from ssl_tasks.modalities.image.decoding import decode, quietly
from ssl_tasks.modalities.image.readers import UnusableError

RANDOM = np.random.default_rng(0)


@pytest.mark.parametrize("channels", [2, 3, 4])
def test_sixteen_bits_of_colour_are_kept(channels: int) -> None:
    values = RANDOM.integers(0, 65536, (6, 5, channels), dtype=np.uint16)
    if channels != 3:
        values[:, :, -1] = 65535
    with quietly():  # rasterio misses a georeference
        pixels = decode(png(values)).pixels
    assert np.array_equal(pixels, values[:, :, : 1 if channels == 2 else 3])
    if channels != 3:
        values[:, :, -1] = 0
        with quietly():
            assert (decode(png(values)).pixels == 65535).all()


@pytest.mark.parametrize("shape", [(6, 5), (6, 5, 1), (6, 5, 7)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_arrays_of_any_number_of_channels(shape: tuple[int, ...], dtype: Any) -> None:
    values = (RANDOM.random(shape) * 200).astype(dtype)
    pixels = decode(array(values)).pixels
    assert pixels.dtype == dtype
    assert np.array_equal(pixels, values.reshape(6, 5, -1))


@pytest.mark.parametrize("values", [np.zeros(4, np.uint8), np.zeros((2, 2, 2, 2), np.uint8), np.zeros((3, 3), "i8")])
def test_other_arrays_are_refused(values: np.ndarray) -> None:
    with pytest.raises(UnusableError, match="not \\(H, W\\)"):
        decode(array(values))


def dicom() -> Any:
    """A header of 4 x 6 pixels of 16 bits."""
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

    meta = FileMetaDataset()
    meta.TransferSyntaxUID, meta.MediaStorageSOPClassUID = ExplicitVRLittleEndian, CTImageStorage
    meta.MediaStorageSOPInstanceUID = "1.2.3"
    found = FileDataset("x.dcm", {}, file_meta=meta, preamble=b"\0" * 128)
    found.Rows, found.Columns, found.SamplesPerPixel, found.PhotometricInterpretation = 4, 6, 1, "MONOCHROME2"
    found.BitsAllocated = found.BitsStored = 16
    found.HighBit, found.PixelRepresentation = 15, 0
    return found


def test_a_dicom_file_in_hounsfield_units(tmp_path: Any) -> None:
    found = dicom()
    stored = RANDOM.integers(0, 4096, (4, 6), dtype=np.uint16)
    found.PixelData = stored.tobytes()
    found.save_as(tmp_path / "plain.dcm")
    assert np.array_equal(decode((tmp_path / "plain.dcm").read_bytes()).pixels[:, :, 0], stored)
    found.RescaleSlope, found.RescaleIntercept = 1, -1024
    found.save_as(tmp_path / "ct.dcm")
    pixels = decode((tmp_path / "ct.dcm").read_bytes()).pixels
    assert pixels.dtype == np.float32
    assert np.array_equal(pixels[:, :, 0], stored.astype(np.float32) - 1024)
    found.PhotometricInterpretation = "MONOCHROME1"
    found.save_as(tmp_path / "inverse.dcm")
    inverse = decode((tmp_path / "inverse.dcm").read_bytes()).pixels
    assert np.array_equal(inverse.max() - inverse, pixels - pixels.min())


def test_the_first_of_a_dicom_files_frames_is_read_alone(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from pydicom.pixels.decoders.base import Decoder

    found = dicom()
    frames = RANDOM.integers(0, 4096, (3, 4, 6), dtype=np.uint16)
    found.PixelData, found.NumberOfFrames = frames.tobytes(), 3
    found.save_as(tmp_path / "several.dcm")
    asked: list[Any] = []
    given = Decoder.as_array

    def watched(self: Any, source: Any, **options: Any) -> Any:
        asked.append(options.get("index"))
        return given(self, source, **options)

    monkeypatch.setattr(Decoder, "as_array", watched)
    picture = decode((tmp_path / "several.dcm").read_bytes())
    assert np.array_equal(picture.pixels[:, :, 0], frames[0])
    assert picture.frames == 3
    assert asked == [0]


@pytest.mark.parametrize(("bands", "dtype"), [(5, np.uint8), (3, np.uint16), (4, np.float32), (2, np.int16)])
def test_a_geotiff_of_many_bands(tmp_path: Any, bands: int, dtype: Any) -> None:
    import rasterio
    from rasterio.transform import from_origin

    values = (RANDOM.random((bands, 9, 7)) * 200).astype(dtype)
    with quietly():
        place = {"crs": "EPSG:32633", "transform": from_origin(0, 0, 10, 10), "compress": "deflate"}
    path = tmp_path / "scene.tif"
    with quietly():  # rasterio's own
        with rasterio.open(path, "w", "GTiff", 7, 9, bands, dtype=dtype, **place) as sink:
            sink.write(values)
        pixels = decode(path.read_bytes()).pixels
    assert np.array_equal(pixels, values.transpose(1, 2, 0))
    assert pixels.dtype == (np.float32 if dtype == np.int16 else dtype)


def bands(count: int, extra: tuple[int, ...], *, photometric: int = 2, placed: bool = False) -> tuple[bytes, Any]:
    """A TIFF of `count` samples of 8 bits a pixel, and these; Pillow writes no samples that it does not know."""
    values = RANDOM.integers(0, 200, (6, 5, count), dtype=np.uint8)
    tags: dict[int, tuple[str, tuple[int, ...]]] = {
        256: ("H", (5,)),
        257: ("H", (6,)),
        258: ("H", (8,) * count),
        259: ("H", (1,)),
        262: ("H", (photometric,)),
        273: ("I", (0,)),
        277: ("H", (count,)),
        278: ("H", (6,)),
        279: ("I", (values.size,)),
    }
    if extra:
        tags[338] = ("H", extra)
    if placed:
        tags |= {33550: ("d", (10, 10, 0)), 33922: ("d", (0, 0, 0, 0, 0, 0))}
    start = 8 + 2 + 12 * len(tags) + 4
    rest, lines = b"", b""
    tags[273] = ("I", (start + 256,))
    for tag, (kind, numbers) in sorted(tags.items()):
        data = struct.pack(f"<{len(numbers)}{kind}", *numbers)
        if len(data) > 4:
            data, rest = struct.pack("<I", start + len(rest)), rest + data
        lines += struct.pack("<HHI", tag, {"H": 3, "I": 4, "d": 12}[kind], len(numbers)) + data.ljust(4, b"\0")
    head = b"II*\0" + struct.pack("<IH", 8, len(tags)) + lines + b"\0" * 4
    return head + rest.ljust(256, b"\0") + values.tobytes(), values


@pytest.mark.parametrize(
    ("count", "extra", "photometric", "placed"),
    [
        (4, (0,), 2, False),
        (4, (0,), 2, True),
        (4, (1,), 2, True),
        (4, (2,), 2, True),
        (4, (0, 0, 0), 1, False),
        (2, (0,), 1, False),
        (2, (2,), 1, True),
    ],
)
def test_a_band_that_is_no_alpha_is_kept(count: int, extra: tuple[int, ...], photometric: int, placed: bool) -> None:
    data, values = bands(count, extra, photometric=photometric, placed=placed)
    with quietly():  # rasterio misses a georeference
        assert np.array_equal(decode(data).pixels, values)


def test_a_band_of_zeros_hides_no_other(tmp_path: Any) -> None:
    """GDAL writes that the fourth band is alpha, and near infrared of 0 is a measurement."""
    import rasterio
    from rasterio.transform import from_origin

    values = RANDOM.integers(1, 200, (4, 9, 7), dtype=np.uint8)
    values[3, :4] = 0
    path = tmp_path / "scene.tif"
    with quietly():  # rasterio's own
        place = {"crs": "EPSG:32633", "transform": from_origin(0, 0, 10, 10)}
        with rasterio.open(path, "w", "GTiff", 7, 9, 4, dtype=np.uint8, **place) as sink:
            sink.write(values)
        assert np.array_equal(decode(path.read_bytes()).pixels, values.transpose(1, 2, 0))


def test_alpha_and_inks_of_a_tiff_are_pillows() -> None:
    assert readers.find(bands(4, (2,))[0]) is None
    assert readers.find(bands(4, (1,))[0]) is None
    assert readers.find(bands(2, (2,), photometric=1)[0]) is None
    assert readers.find(bands(4, (), photometric=5)[0]) is None
    assert readers.find(bands(3, (), placed=True)[0]) is None


@pytest.mark.parametrize(
    ("name", "extra", "data"),
    [
        ("pydicom", "dicom", b"\0" * 128 + b"DICM"),
        ("rasterio.io", "geotiff", b"II*\0" + b"\0" * 20),
        ("rasterio.io", "geotiff", png(np.zeros((2, 2, 3), np.uint16))),
    ],
)
def test_a_missing_extra_is_a_message_and_no_quarantine(
    monkeypatch: pytest.MonkeyPatch, name: str, extra: str, data: bytes
) -> None:
    from ssl_tasks.errors import RequestError

    monkeypatch.setitem(__import__("sys").modules, name, None)
    with pytest.raises(RequestError, match=rf"pip install 'pretextflow\[{extra}\]'"):
        decode(data)


def test_an_array_that_asks_for_more_than_it_has_is_truncated() -> None:
    data = array(np.zeros((10, 10), np.uint8)).replace(b"(10, 10), }", b"(10, 9999999999999), }"[:22])
    with pytest.raises(UnusableError, match="99999") as refused:
        decode(data)
    assert refused.value.reason == "truncated"


@pytest.mark.parametrize("shape", [(0, 5), (5, 0, 3), (5, 4, 0)])
def test_an_array_without_values_has_a_wrong_shape(shape: tuple[int, ...]) -> None:
    with pytest.raises(UnusableError) as refused:
        decode(array(np.zeros(shape, np.uint8)))
    assert refused.value.reason == "wrong_shape"


@pytest.mark.parametrize(
    ("bands", "side", "said"), [(1025, 4, "1025 bands"), (300, 1000, "300 bands take 300000000 bytes")]
)
def test_bands_that_a_small_file_only_announces_are_refused(bands: int, side: int, said: str) -> None:
    data = scene(bands, side, sparse_ok=True, tiled=True, blockxsize=1024, blockysize=1024, interleave="pixel")
    assert len(data) < 20_000
    with pytest.raises(UnusableError, match=said) as refused, quietly():
        decode(data, max_pixels=2_000_000)
    assert refused.value.reason == "too_large"


def test_many_bands_of_few_pixels_are_read() -> None:
    with quietly():
        assert decode(scene(1024, 4), max_pixels=1024).pixels.shape == (4, 4, 1024)


def test_readers_are_found_by_content_and_not_by_name() -> None:
    assert readers.find(encoded(Image.fromarray(RGB), "TIFF")) is None
    assert readers.find(encoded(Image.fromarray(DEEP), "TIFF")) is None
    assert readers.find(png(np.zeros((2, 2, 1), np.uint16))) is None  # 16-bit grey: Pillow holds it
    assert readers.find(array(GREY)) is not None
