"""Every format, depth and mode comes back as the pixels that were written, upright; what is damaged is told apart."""

import io
import struct
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps
from tests_pictures import DEEP, GREY, RGB, SMOOTH, array, encoded, png, scene

from ssl_tasks.modalities.image import readers
from ssl_tasks.modalities.image.decoding import decode, partly, quietly
from ssl_tasks.modalities.image.readers import UnusableError

RANDOM = np.random.default_rng(0)


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


def test_tiffs_of_floats() -> None:
    values = RANDOM.normal(size=(7, 9)).astype(np.float32)
    assert np.array_equal(decode(encoded(Image.fromarray(values), "TIFF")).pixels[:, :, 0], values)


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
