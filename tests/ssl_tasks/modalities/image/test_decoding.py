"""Every format, depth and mode comes back as the pixels that were written, upright; what is damaged is told apart."""

import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from ssl_tasks.modalities.image import readers
from ssl_tasks.modalities.image.decoding import decode, partly, quietly
from ssl_tasks.modalities.image.readers import UnusableError

RANDOM = np.random.default_rng(0)
RGB = RANDOM.integers(0, 256, (11, 17, 3), dtype=np.uint8)
SMOOTH = np.asarray(Image.fromarray(RGB).resize((85, 55), Image.Resampling.BICUBIC))
GREY = RGB[:, :, 0]
DEEP = RANDOM.integers(0, 65536, (11, 17), dtype=np.uint16)


def encoded(image: Image.Image, form: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


def png(pixels: np.ndarray) -> bytes:
    """A PNG of 16 bits with any number of channels, which Pillow cannot write."""
    height, width, channels = pixels.shape
    kind = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    lines = b"".join(b"\0" + line.astype(">u2").tobytes() for line in pixels)

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")


def array(values: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, values)
    return stream.getvalue()


@pytest.mark.parametrize("form", ["PNG", "BMP", "TIFF", "PPM", "TGA"])
def test_colour_without_loss(form: str) -> None:
    picture = decode(encoded(Image.fromarray(RGB), form))
    assert np.array_equal(picture.pixels, RGB)
    assert (picture.frames, picture.oddity) == (1, None)


def test_webp_without_loss_and_gif_of_few_colours() -> None:
    assert np.array_equal(decode(encoded(Image.fromarray(RGB), "WEBP", lossless=True)).pixels, RGB)
    few = Image.fromarray(RGB // 128 * 255)
    assert np.array_equal(decode(encoded(few, "GIF")).pixels, np.asarray(few))


@pytest.mark.parametrize("grey", [False, True])
def test_jpeg_is_decoded_as_pillow_does(grey: bool) -> None:
    image = Image.fromarray(SMOOTH[:, :, 0] if grey else SMOOTH)
    data = encoded(image, "JPEG", quality=90)
    theirs = np.asarray(Image.open(io.BytesIO(data))).reshape(55, 85, -1)
    assert np.array_equal(decode(data).pixels, theirs)


def test_jpeg_is_decoded_smaller_where_little_is_needed() -> None:
    data = encoded(Image.fromarray(SMOOTH).resize((800, 600)), "JPEG")
    assert decode(data, least=100).pixels.shape == (150, 200, 3)  # a quarter: an eighth would have 75 lines
    assert decode(data, least=2000).pixels.shape == (600, 800, 3)


@pytest.mark.parametrize("mode", ["1", "L", "P", "CMYK", "YCbCr", "LAB"])
def test_other_modes_become_grey_or_colour(mode: str) -> None:
    image = ImageOps.posterize(Image.fromarray(SMOOTH), 3).convert("RGB" if mode == "LAB" else mode)
    if mode == "LAB":
        from PIL import ImageCms

        profiles = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
        image = ImageCms.profileToProfile(image, *profiles, outputMode="LAB")
    form = "TIFF" if mode in ("CMYK", "YCbCr", "LAB") else "PNG"
    pixels = decode(encoded(image, form)).pixels
    expected = image.convert("L" if mode in ("1", "L") else "RGB")
    assert pixels.dtype == np.uint8
    assert np.abs(pixels.astype(int) - np.asarray(expected).reshape(pixels.shape)).max() <= 1


def test_cmyk_jpegs_keep_their_colours() -> None:
    red = Image.new("RGB", (16, 16), (220, 10, 20))
    pixels = decode(encoded(red.convert("CMYK"), "JPEG", quality=95)).pixels
    assert np.abs(pixels.astype(int) - (220, 10, 20)).max() < 12


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "PA"])
def test_what_is_transparent_stands_on_white(mode: str) -> None:
    image = Image.fromarray(np.dstack([np.full((9, 8, 3), 40, np.uint8), np.zeros((9, 8), np.uint8)]))
    image.paste((40, 40, 40, 255), (0, 0, 4, 9))
    form = "TIFF" if mode == "PA" else "PNG"
    pixels = decode(encoded(image.convert(mode) if mode != "PA" else image, form)).pixels
    assert (pixels[:, 4:] == 255).all()
    assert (pixels[:, :4] == 40).all()


@pytest.mark.parametrize("form", ["PNG", "TIFF"])
def test_sixteen_bits_of_grey_are_kept(form: str) -> None:
    pixels = decode(encoded(Image.fromarray(DEEP), form)).pixels
    assert pixels.dtype == np.uint16
    assert np.array_equal(pixels[:, :, 0], DEEP)


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


def test_tiffs_of_floats() -> None:
    values = RANDOM.normal(size=(7, 9)).astype(np.float32)
    assert np.array_equal(decode(encoded(Image.fromarray(values), "TIFF")).pixels[:, :, 0], values)


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


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
def test_every_orientation_is_undone(orientation: int, form: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(Image.fromarray(SMOOTH), form, exif=exif)
    theirs = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")
    assert np.array_equal(decode(data).pixels, np.asarray(theirs))
    assert decode(data).pixels.shape[:2] == ((85, 55) if orientation > 4 else (55, 85))


def test_a_broken_exif_block_does_no_harm() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(Image.fromarray(SMOOTH), "JPEG", exif=exif)
    at = data.index(b"Exif\0\0")
    assert decode(data[: at + 6] + b"?" * 8 + data[at + 14 :]).pixels.shape == (55, 85, 3)


def test_the_first_of_several_frames_is_read() -> None:
    frames = [Image.fromarray(np.full((8, 8), value, np.uint8)) for value in (10, 200)]
    picture = decode(encoded(frames[0], "GIF", save_all=True, append_images=frames[1:]))
    assert picture.frames == 2
    assert (picture.pixels == 10).all()


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


def test_bombs_are_refused_from_the_header() -> None:
    huge = png(np.zeros((1, 1, 3), np.uint16)).replace(struct.pack(">II", 1, 1), struct.pack(">II", 60_000, 60_000), 1)
    flat = encoded(Image.new("1", (30_000, 30_000)), "PNG")
    jpeg = bytearray(encoded(Image.fromarray(RGB), "JPEG"))
    at = jpeg.index(b"\xff\xc0") + 5
    jpeg[at : at + 4] = struct.pack(">HH", 60_000, 60_000)
    for data in (huge, flat, bytes(jpeg)):
        with pytest.raises(UnusableError, match=r"(60000 x 60000|30000 x 30000) pixels") as refused:
            decode(data, max_pixels=1_000_000)
        assert refused.value.reason == "too_large"


def test_pillows_own_limit_is_none() -> None:
    line = encoded(Image.new("1", (200_000, 1_000)), "PNG")  # more than twice the limit that Pillow has by itself
    assert decode(line, max_pixels=200_000_000).pixels.shape == (1000, 200_000, 1)


def test_memory_that_is_not_there_is_not_the_files_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(data: bytes, max_pixels: int | None) -> Any:
        raise MemoryError

    monkeypatch.setattr(readers, "_array", full)
    with pytest.raises(MemoryError):
        decode(array(GREY))


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


WHOLE = encoded(Image.fromarray(SMOOTH).resize((200, 150)), "JPEG", quality=95)
CUT = WHOLE[: len(WHOLE) // 2]
HOLE = WHOLE[: len(WHOLE) // 2] + WHOLE[len(WHOLE) // 2 + 400 :]


@pytest.mark.parametrize(
    ("data", "reasons"),
    [
        (CUT, {"truncated"}),
        (HOLE, {"truncated", "corrupt"}),
        (encoded(Image.fromarray(RGB), "PNG")[:200], {"truncated"}),
        (b"I am no picture", {"unreadable"}),
        (b"", {"unreadable"}),
        (b"\xff\xd8\xff\xe0 not a picture", {"unreadable"}),
        (b"\x93NUMPY\x01\0nonsense", {"unreadable"}),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", {"unreadable"}),
    ],
)
def test_damaged_files_are_told_by_reason(data: bytes, reasons: set[str]) -> None:
    with pytest.raises(UnusableError) as refused:
        decode(data)
    assert refused.value.reason in reasons
    assert refused.value.detail


def scene(bands: int, side: int, **options: Any) -> bytes:
    """A TIFF by GDAL; its blocks are left out where nothing is written."""
    from rasterio.io import MemoryFile

    with quietly(), MemoryFile() as memory:  # rasterio misses a georeference
        with memory.open(driver="GTiff", width=side, height=side, count=bands, dtype="uint8", **options) as sink:
            if not options.get("sparse_ok"):
                sink.write(RANDOM.integers(0, 256, (bands, side, side), dtype=np.uint8))
        return bytes(memory.read())


def test_what_is_said_of_damaged_files_is_the_same_in_every_run() -> None:
    tiff = scene(5, 64, compress="deflate")
    files = [
        b"I am no picture",
        tiff[: len(tiff) // 2],
        b"II*\0" + b"garbage" * 20,
        png(DEEP[:, :, None].repeat(3, 2))[:200],
    ]
    said = []
    for data in files * 2:
        with pytest.raises(UnusableError) as refused, quietly():
            decode(data)
        said.append(refused.value.detail)
    assert said[: len(files)] == said[len(files) :]
    assert said[0] == "it is in no image format that is known"
    assert said[1].startswith("RasterioIOError: it, band 1: IReadBlock failed")
    assert said[2].startswith("RasterioIOError: it: TIFFReadDirectory")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("cannot seek <_io.BytesIO object at 0x7f00ab>", "ValueError: cannot seek <_io.BytesIO object>"),
        (
            "/vsimem/0c1d2e3f-0000-4985-a308-b8b696d6b424/0c1d2e3f-0000-4985-a308-b8b696d6b424.tif: no",
            "ValueError: it: no",
        ),
        ("'0c1d2e3f-0000-4985-a308-b8b696d6b424.tif' not recognized", "ValueError: 'it' not recognized"),
    ],
)
def test_addresses_and_random_names_are_left_out(monkeypatch: pytest.MonkeyPatch, text: str, said: str) -> None:
    def broken(data: bytes, max_pixels: int | None) -> Any:
        raise ValueError(text)

    monkeypatch.setattr(readers, "_array", broken)
    with pytest.raises(UnusableError) as refused:
        decode(array(GREY))
    assert refused.value.detail == said


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


def test_a_huge_jpeg_is_turned_as_its_exif_says() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(Image.new("L", (20_000, 9_000)), "JPEG", exif=exif)  # more than Pillow takes by itself
    assert decode(data, max_pixels=200_000_000, least=8).pixels.shape == (2_500, 1_125, 1)


def test_memory_that_is_not_there_turns_no_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(Image.fromarray(SMOOTH), "JPEG", exif=exif)

    def full(*_: Any) -> Any:
        raise MemoryError

    monkeypatch.setattr(Image.Exif, "load", full)
    with pytest.raises(MemoryError):
        decode(data)


def test_padding_between_segments_is_read_over_and_told() -> None:
    at = WHOLE.index(b"\xff\xdb")
    picture = decode(WHOLE[:at] + b"\0\0" + WHOLE[at:])
    assert "2 extraneous bytes" in str(picture.oddity)
    assert np.array_equal(picture.pixels, decode(WHOLE).pixels)


def test_a_damaged_file_still_shows_what_it_has() -> None:
    shown = partly(CUT)
    assert shown is not None
    assert shown.shape == (150, 200, 3)
    top, whole = shown[:40].astype(int), decode(WHOLE).pixels[:40]
    assert np.abs(top - whole).max() <= 2
    assert partly(b"I am no picture") is None


def test_readers_are_found_by_content_and_not_by_name() -> None:
    assert readers.find(encoded(Image.fromarray(RGB), "TIFF")) is None
    assert readers.find(encoded(Image.fromarray(DEEP), "TIFF")) is None
    assert readers.find(png(np.zeros((2, 2, 1), np.uint16))) is None  # 16-bit grey: Pillow holds it
    assert readers.find(array(GREY)) is not None
