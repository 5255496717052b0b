"""minidat.data.image: every kind of picture becomes upright 8-bit RGB, and every bad file one clear line."""

import io
import os
import struct
import types
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms, ImageOps

from minidat.data.image import load_image, preprocess
from minidat.data.labels import cifar10_labels, imagenet_labels, load_labels
from minidat.errors import ImageError, MinidatError, ShapeError
from minidat.models.config import get_config

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP")


def picture(height=37, width=53, seed=0):
    """A smooth color picture with an unmistakable orientation, which lossy formats keep within a few levels."""
    y, x = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    phases = np.random.default_rng(seed).uniform(0, 3, 3)
    channels = [np.sin(3 * x + 5 * y * y + phase) for phase in phases]
    return np.round(127.5 + 110 * np.stack(channels, axis=-1)).astype(np.uint8)


def difference(found, expected):
    """Largest difference of two uint8 images, without wrapping around."""
    assert found.shape == expected.shape
    return np.abs(found.astype(int) - expected.astype(int)).max()


def encode(image, file_format, **options):
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


@pytest.fixture
def save(tmp_path):
    """Write bytes, or an image with Pillow's options, to a file and return its path."""

    def save(name, content, **options):
        path = tmp_path / name
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            content.save(path, **options)
        return path

    return save


def fails(path):
    """load_image must raise ImageError: one line that names the file. Returns the line."""
    with pytest.raises(ImageError) as caught:
        load_image(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    return message


def load_or_fail(path):
    """The image, or None if load_image raises ImageError as it should; any other exception fails the test."""
    try:
        return load_image(path)
    except ImageError:
        fails(path)
        return None


# --- formats and kinds of pixels --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "options", "tolerance"),
    [
        ("a.png", {}, 0),
        ("a.PNG", {}, 0),
        ("a.bmp", {}, 0),
        ("a.tif", {}, 0),
        ("a.tiff", {"compression": "tiff_lzw"}, 0),
        ("a.tiff", {"compression": "tiff_adobe_deflate"}, 0),
        ("a.webp", {"lossless": True}, 0),
        ("a.webp", {"quality": 95}, 25),
        ("a.jpg", {"quality": 98, "subsampling": 0}, 8),
        ("a.jpg", {"quality": 98, "subsampling": 0, "progressive": True}, 8),
        ("a.tiff", {"compression": "jpeg"}, 40),
    ],
)
def test_formats(save, name, options, tolerance):
    pixels = picture()
    loaded = load_image(save(name, Image.fromarray(pixels), **options))
    assert loaded.dtype == np.uint8
    assert loaded.flags.writeable
    assert loaded.flags.c_contiguous
    assert difference(loaded, pixels) <= tolerance


def test_the_path_may_be_a_string_and_the_name_may_lie(save):
    pixels = picture()
    path = save("really_a_png.jpg", encode(Image.fromarray(pixels), "PNG"))
    assert np.array_equal(load_image(str(path)), pixels)


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.bmp", "a.tiff", "a.webp", "a.gif"])
def test_gray(save, name):
    gray = picture()[..., 0]
    loaded = load_image(save(name, Image.fromarray(gray), **({"lossless": True} if name == "a.webp" else {})))
    assert difference(loaded, np.repeat(gray[..., None], 3, axis=-1)) <= (12 if name == "a.jpg" else 0)
    assert np.array_equal(loaded[..., 0], loaded[..., 1])


@pytest.mark.parametrize("name", ["a.png", "a.bmp", "a.tiff", "a.gif"])
def test_one_bit(save, name):
    bits = picture()[..., 0] > 127
    loaded = load_image(save(name, Image.fromarray(bits)))
    assert np.array_equal(loaded, np.repeat(np.where(bits, 255, 0)[..., None], 3, axis=-1))


@pytest.mark.parametrize("name", ["a.png", "a.bmp", "a.tiff", "a.gif"])
def test_palette(save, name):
    image = Image.fromarray(picture()).quantize(50)
    assert np.array_equal(load_image(save(name, image)), np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("name", ["a.png", "a.gif"])
def test_palette_with_a_transparent_entry_shows_white(save, name):
    image = Image.new("P", (4, 3))
    image.putdata([i % 3 for i in range(12)])
    image.putpalette([10, 20, 30, 200, 0, 0, 0, 0, 200])
    loaded = load_image(save(name, image, transparency=1))
    palette = np.array([[10, 20, 30], [255, 255, 255], [0, 0, 200]])
    assert np.array_equal(loaded, palette[np.arange(12).reshape(3, 4) % 3])


def test_palette_with_half_transparent_entries(save):
    image = Image.new("P", (3, 1))
    image.putdata([0, 1, 2])
    image.putpalette([0, 0, 0, 0, 0, 0, 0, 0, 0])
    loaded = load_image(save("a.png", image, transparency=bytes([255, 51, 0])))
    assert loaded[0, :, 0].tolist() == [0, 204, 255]


@pytest.mark.parametrize("name", ["a.png", "a.webp", "a.tiff"])
def test_alpha_is_composited_on_white(save, name):
    color = picture()
    alpha = picture(seed=1)[..., 0]
    alpha[:10], alpha[-10:] = 0, 255
    image = Image.fromarray(np.dstack([color, alpha]))
    loaded = load_image(save(name, image, **({"lossless": True, "exact": True} if name == "a.webp" else {})))
    opacity = alpha[..., None] / 255
    assert difference(loaded, np.round(color * opacity + 255 * (1 - opacity))) <= 1
    assert (loaded[:10] == 255).all()
    assert np.array_equal(loaded[-10:], color[-10:])


def test_gray_with_alpha(save):
    image = Image.new("LA", (2, 1))
    image.putdata([(100, 255), (100, 0)])
    assert load_image(save("a.png", image))[0].tolist() == [[100] * 3, [255] * 3]


@pytest.mark.parametrize(("mode", "key"), [("RGB", (10, 20, 30)), ("L", 10), ("1", 1)])
def test_a_transparent_color_shows_white(save, mode, key):
    image = Image.new(mode, (2, 1), 0)
    image.putpixel((0, 0), key)
    assert load_image(save("a.png", image, transparency=key))[0].tolist() == [[255] * 3, [0] * 3]


# What Pillow and everybody calls "Adobe inverted": a CMYK JPEG stores 255 - ink. A TIFF stores the ink.
@pytest.mark.parametrize(("name", "options"), [("a.jpg", {"quality": 98}), ("a.tiff", {})])
def test_cmyk(save, name, options):
    ink = np.zeros((16, 48, 4), np.uint8)
    ink[:, :16, 0], ink[:, 16:32, 3], ink[:, 32:, 1:3] = 255, 255, 255  # cyan, black, red
    loaded = load_image(save(name, Image.frombytes("CMYK", (48, 16), ink.tobytes()), **options))
    for column, rgb in ((8, (0, 255, 255)), (24, (0, 0, 0)), (40, (255, 0, 0))):
        assert np.abs(loaded[8, column].astype(int) - rgb).max() <= 8


def test_a_cmyk_jpeg_holds_255_minus_ink(save):
    """The same bytes read as they are: if Pillow or we stopped inverting, white paper would come out black."""
    data = encode(Image.new("CMYK", (16, 16), (0, 0, 0, 0)), "JPEG")
    assert b"Adobe" in data
    assert (load_image(save("a.jpg", data)) == 255).all()


def test_ycbcr(save):
    pixels = picture()
    path = save("a.tiff", Image.fromarray(pixels).convert("YCbCr"), compression="tiff_lzw")
    assert difference(load_image(path), pixels) <= 4


def test_lab(save):
    to_lab = ImageCms.buildTransform(
        ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB", ImageCms.Intent.PERCEPTUAL
    )
    colors = np.array([[[255, 255, 255], [0, 0, 0], [200, 30, 60], [40, 90, 160]]], np.uint8)
    path = save("a.tiff", ImageCms.applyTransform(Image.fromarray(colors), to_lab))
    with Image.open(path) as image:
        assert image.mode == "LAB"
    assert difference(load_image(path), colors) <= 10  # a step of 1 in 8-bit Lab is up to 8 in sRGB


@pytest.mark.parametrize("name", ["a.png", "a.tiff"])
@pytest.mark.parametrize("byte_order", ["<", ">"])
def test_16_bit_gray_keeps_its_upper_8_bits(save, name, byte_order):
    values = np.linspace(0, 65535, 600).astype(np.uint16).reshape(20, 30)
    image = Image.frombytes(
        "I;16" if byte_order == "<" else "I;16B", (30, 20), values.astype(f"{byte_order}u2").tobytes()
    )
    loaded = load_image(save(name, image))
    assert np.array_equal(loaded, np.repeat((values // 256)[..., None], 3, axis=-1))


def test_dark_16_bit_png_stays_dark(save):
    """No value above 255 of 65535: not an 8-bit picture."""
    image = Image.frombytes("I;16", (4, 4), np.full((4, 4), 200, "<u2").tobytes())
    assert (load_image(save("a.png", image)) == 0).all()


def png(bit_depth, color_type, rows, *extra_chunks):
    """A PNG file written by hand, for what Pillow cannot write."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    height, width = rows.shape[:2]
    header = struct.pack(">IIBBBBB", width, height, bit_depth, color_type, 0, 0, 0)
    scanlines = b"".join(b"\0" + row.astype(">u2" if bit_depth == 16 else "u1").tobytes() for row in rows)
    chunks = [chunk(b"IHDR", header), *(chunk(*c) for c in extra_chunks), chunk(b"IDAT", zlib.compress(scanlines))]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks) + chunk(b"IEND", b"")


def test_16_bit_color(save):
    values = np.random.default_rng(0).integers(0, 65536, (5, 7, 3))
    assert np.array_equal(load_image(save("a.png", png(16, 2, values))), values >> 8)


def test_16_bit_color_with_alpha(save):
    values = np.random.default_rng(0).integers(0, 65536, (5, 7, 4))
    values[..., 3] = 65535
    values[0, 0, 3] = 0
    loaded = load_image(save("a.png", png(16, 6, values)))
    assert loaded[0, 0].tolist() == [255] * 3
    assert np.array_equal(loaded[1:], values[1:, :, :3] >> 8)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.array([[0.0, 0.5, 1.0]], np.float32), [0, 128, 255]),  # white is 1
        (np.array([[0.0, 1.5, 200.0]], np.float32), [0, 2, 200]),  # white is 255
        (np.array([[0, 25700, 51400]], np.int32), [0, 100, 200]),  # white is 65535
        (np.array([[0, 50000, 100000]], np.int32), [0, 128, 255]),  # black and white are the extremes
        (np.array([[-1.0, 0.0, 1.0]], np.float32), [0, 128, 255]),
        (np.array([[-0.25, 0.0, 0.25]], np.float32), [0, 128, 255]),
        (np.array([[-7, -7, -7]], np.int32), [0, 0, 0]),
        (np.array([[np.nan, np.inf, 1.0]], np.float32), [0, 0, 255]),
        (np.array([[-3e38, 0, 3e38]], np.float32), [0, 128, 255]),
    ],
)
def test_32_bit_values(save, values, expected):
    loaded = load_image(save("a.tiff", Image.fromarray(values)))
    assert loaded[0, :, 0].tolist() == expected
    assert loaded[0, :, 2].tolist() == expected


def test_first_frame_of_an_animation_and_first_page(save):
    frames = [Image.new("RGB", (5, 4), color) for color in ("red", "blue", "green")]
    for name in ("a.gif", "a.webp", "a.tiff", "a.png"):
        options = {"lossless": True} if name == "a.webp" else {}
        path = save(name, frames[0], save_all=True, append_images=frames[1:], **options)
        assert (load_image(path) == (255, 0, 0)).all(), name


def test_a_gif_frame_smaller_than_its_canvas(save):
    image = Image.new("P", (2, 2), 1)
    image.putpalette([0, 0, 0, 255, 0, 0])
    data = bytearray(encode(image, "GIF"))
    data[6:10] = struct.pack("<HH", 6, 4)  # the logical screen is larger than its only frame
    loaded = load_image(save("a.gif", bytes(data)))
    assert loaded.shape == (4, 6, 3)
    assert (loaded[:2, :2] == (255, 0, 0)).all()


# --- orientation ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.webp", "a.tiff"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(save, name, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if name == "a.webp" else {}
    path = save(name, Image.fromarray(picture()), exif=exif, **options)
    with Image.open(path) as image:
        expected = np.asarray(ImageOps.exif_transpose(image))
    assert expected.shape[:2] == ((37, 53) if orientation < 5 else (53, 37))
    assert np.array_equal(load_image(path), expected)


def test_orientation_by_hand(save):
    """Orientation 6: the camera was held with its right side up, so the stored left column is the top row."""
    exif = Image.Exif()
    exif[0x0112] = 6
    pixels = picture()
    assert np.array_equal(load_image(save("a.png", Image.fromarray(pixels), exif=exif)), np.rot90(pixels, -1))


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_an_orientation_that_does_not_exist_is_upright(save, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    pixels = picture()
    assert np.array_equal(load_image(save("a.png", Image.fromarray(pixels), exif=exif)), pixels)


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.webp"])
@pytest.mark.parametrize(
    "exif", [b"Exif\0\0", b"Exif\0\0garbage", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0MM\0*\0\0"]
)
def test_damaged_exif_leaves_the_picture(save, name, exif):
    image = Image.fromarray(picture())
    assert np.array_equal(load_image(save(name, image, exif=exif)), load_image(save(f"without_{name}", image)))


# --- bad files --------------------------------------------------------------------------------------------------------


def test_missing_file(tmp_path):
    assert "no such file" in fails(tmp_path / "missing.jpg")


def test_folder(tmp_path):
    assert "a folder" in fails(tmp_path)


def test_empty_file(save):
    assert "the file is empty" in fails(save("a.jpg", b""))


def test_a_name_no_file_can_have():
    with pytest.raises(ImageError):
        load_image("a\0b.jpg")


def test_text_file_named_jpg(save):
    message = fails(save("a.jpg", b"dear reader\nthis is not a picture"))
    assert "not a JPEG" in message
    assert "dear reader" in message


@pytest.mark.parametrize(
    "beginning", [b"\xff\xd8\xff\xe0", b"\x89PNG\r\n", b"GIF89a", b"BM12", b"RIFF1234WEBP", b"II*\0"]
)
def test_only_a_beginning(save, beginning):
    assert "damaged or cut short" in fails(save("a", beginning))


@pytest.mark.parametrize("name", ["a.ppm", "a.ico", "a.tga", "a.eps", "a.pdf"])
def test_other_formats_are_not_read(save, name):
    assert "expected" in fails(save(name, Image.fromarray(picture())))


def test_what_the_system_refuses(save, monkeypatch):
    def refuse(*arguments, **settings):
        raise PermissionError(13, "Permission denied")

    path = save("a.png", Image.fromarray(picture()))
    monkeypatch.setattr(Image, "open", refuse)
    assert "cannot be read: Permission denied" in fails(path)


@pytest.mark.parametrize(
    ("error", "reason"), [(ValueError("this\nand that"), "(this and that)"), (KeyError(), "(KeyError)")]
)
def test_whatever_a_decoder_raises(save, monkeypatch, error, reason):
    def fail(*arguments, **settings):
        raise error

    path = save("a.png", Image.fromarray(picture()))
    monkeypatch.setattr(Image, "open", fail)
    assert reason in fails(path)


def test_a_pipe(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    assert "not a regular file" in fails(tmp_path / "pipe")


@pytest.mark.parametrize("file_format", ["JPEG", "PNG"])
@pytest.mark.parametrize("fraction", [0.1, 0.5, 0.9, 0.98])
def test_cut_short(save, file_format, fraction):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    data = encode(noise, file_format)
    assert "damaged or cut short" in fails(save("a", data[: int(fraction * len(data))]))


VARIANTS = {
    **{name: encode(Image.fromarray(picture()), name) for name in FORMATS},
    "progressive JPEG": encode(Image.fromarray(picture()), "JPEG", progressive=True, quality=95),
    "lossless WebP": encode(Image.fromarray(picture()), "WEBP", lossless=True),
    "LZW TIFF": encode(Image.fromarray(picture()), "TIFF", compression="tiff_lzw"),
    "deflate TIFF": encode(Image.fromarray(picture()), "TIFF", compression="tiff_adobe_deflate"),
    "animated GIF": encode(
        Image.fromarray(picture()), "GIF", save_all=True, append_images=[Image.fromarray(picture(seed=1))]
    ),
    "CMYK JPEG": encode(Image.fromarray(picture()).convert("CMYK"), "JPEG"),
    "16-bit PNG": encode(Image.frombytes("I;16", (40, 30), np.arange(1200, dtype="<u2").tobytes()), "PNG"),
    "palette PNG": encode(Image.fromarray(picture()).quantize(20), "PNG", transparency=3),
}


@pytest.fixture(scope="module")
def scratch(tmp_path_factory):
    return tmp_path_factory.mktemp("mutated") / "image"


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_file_cut_anywhere_is_an_error_or_whole(scratch, capfd, variant):
    """Whatever is missing from the end: an ImageError, or all pixels are there (only trailing bytes are missing)."""
    data = VARIANTS[variant]
    scratch.write_bytes(data)
    whole = load_image(scratch)

    @settings(max_examples=60, deadline=None, database=None)
    @given(st.integers(0, len(data) - 1))
    def check(length):
        scratch.write_bytes(data[:length])
        cut = load_or_fail(scratch)
        if cut is not None:
            assert np.array_equal(cut, whole)
            assert length > len(data) - 40 or variant == "animated GIF"  # whose first frame ends half-way

    check()
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_file_with_any_bytes_changed_is_read_or_an_error(scratch, capfd, variant):
    @settings(max_examples=60, deadline=None, database=None)
    @given(st.data())
    def check(draw):
        data = bytearray(VARIANTS[variant])
        positions = st.one_of(st.integers(0, min(99, len(data) - 1)), st.integers(0, len(data) - 1))
        for position in draw.draw(st.lists(positions, min_size=1, max_size=6)):
            data[position] = draw.draw(st.integers(0, 255))
        scratch.write_bytes(data)
        loaded = load_or_fail(scratch)
        assert loaded is None or (loaded.dtype == np.uint8 and loaded.ndim == 3)

    check()
    if "TIFF" not in variant:  # libtiff prints what is wrong itself
        assert capfd.readouterr() == ("", "")


# --- decompression bombs ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("side", [10_000, 60_000])  # above Pillow's warning, and above its error
@pytest.mark.parametrize("file_format", ["PNG", "GIF", "BMP", "TIFF", "JPEG"])
def test_decompression_bomb(save, file_format, side):
    """Files of some hundred bytes that claim 100 million to 3.6 billion pixels are refused by what they claim."""
    data = bytearray(encode(Image.new("L", (8, 8)), file_format))
    if file_format == "PNG":
        data[16:24] = struct.pack(">II", side, side)
        data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    elif file_format == "GIF":
        data[6:10] = struct.pack("<HH", side, side)
    elif file_format == "BMP":
        data[18:26] = struct.pack("<ii", side, side)
    elif file_format == "TIFF":
        (count,) = struct.unpack("<H", data[8:10])
        for entry in range(10, 10 + 12 * count, 12):
            tag, kind = struct.unpack("<HH", data[entry : entry + 4])
            if tag in (256, 257):
                data[entry + 8 : entry + 12] = struct.pack("<I" if kind == 4 else "<Hxx", side)
    else:
        at = data.index(b"\xff\xc0") + 5
        data[at : at + 4] = struct.pack(">HH", side, side)
    message = fails(save("a", bytes(data)))
    assert "89,478,485 pixels" in message


def test_a_bomb_inside_a_text_chunk(save):
    bomb = b"Comment\0\0" + zlib.compress(b"\0" * 20_000_000)
    fails(save("a.png", png(8, 0, np.zeros((4, 4)), (b"zTXt", bomb))))


# --- preprocessing ----------------------------------------------------------------------------------------------------

MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])


def wanted(image_size, resize_size):
    """All that `preprocess` needs of a config."""
    return types.SimpleNamespace(image_size=image_size, resize_size=resize_size)


def normalized(pixels):
    return (pixels / 255 - MEAN) / STD


def test_preprocess_by_the_rule():
    """256 x 256 whatever the aspect ratio, bicubic; rows and columns 16 to 239;
    normalized."""
    pixels = picture(300, 500)
    found = preprocess(pixels, get_config("dat_tiny"))
    assert found.shape == (224, 224, 3)
    assert found.dtype == np.float32
    assert found.flags.c_contiguous
    squashed = np.asarray(Image.fromarray(pixels).resize((256, 256), Image.Resampling.BICUBIC))
    np.testing.assert_allclose(found, normalized(squashed[16:240, 16:240]), atol=1e-6)


def test_preprocess_of_plain_colors():
    """Numbers worked out by hand: (1 - mean) / std and -mean / std."""
    white, black = (preprocess(np.full((9, 5, 3), v, np.uint8), get_config("dat_tiny"))[100, 7] for v in (255, 0))
    np.testing.assert_allclose(white, [2.2489083, 2.4285714, 2.6400000], atol=1e-6)
    np.testing.assert_allclose(black, [-2.1179039, -2.0357143, -1.8044444], atol=1e-6)


@pytest.mark.parametrize(("name", "resized"), [("dat_base_384", 438), ("datpp_base_384", 384), ("datpp_tiny", 256)])
def test_preprocess_of_published_models(name, resized):
    config = get_config(name)
    pixels = picture(64, 48)
    side = config.image_size[0]
    start = (resized - side) // 2
    squashed = np.asarray(Image.fromarray(pixels).resize((resized, resized), Image.Resampling.BICUBIC))
    expected = normalized(squashed[start : start + side, start : start + side])
    np.testing.assert_allclose(preprocess(pixels, config), expected, atol=1e-6)


def test_a_picture_of_the_right_size_is_taken_as_it_is():
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    np.testing.assert_allclose(preprocess(pixels, wanted((32, 32), 32)), normalized(pixels), atol=1e-6)


def test_preprocess_for_images_that_are_not_square():
    """The longer side is resized to resize_size, the other in proportion: 96 x 48 from 128 x 64."""
    pixels = picture(200, 200)
    squashed = np.asarray(Image.fromarray(pixels).resize((64, 128), Image.Resampling.BICUBIC))
    expected = normalized(squashed[16:112, 8:56])
    np.testing.assert_allclose(preprocess(pixels, wanted((96, 48), 128)), expected, atol=1e-6)
    transposed = preprocess(pixels.transpose(1, 0, 2), wanted((48, 96), 128))
    np.testing.assert_allclose(transposed, expected.transpose(1, 0, 2), atol=0.05)  # Pillow rounds between two passes


@given(st.integers(1, 60), st.integers(1, 60), st.integers(0, 40), st.integers(1, 70), st.integers(1, 70))
@settings(deadline=None, max_examples=60)
def test_preprocess_gives_the_size_of_the_config(height, width, margin, image_height, image_width):
    image = np.zeros((image_height, image_width, 3), np.uint8)
    found = preprocess(image, wanted((height, width), max(height, width) + margin))
    assert found.shape == (height, width, 3)


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((8, 8, 3)),
        np.zeros((8, 8), np.uint8),
        np.zeros((8, 8, 4), np.uint8),
        np.zeros((1, 8, 8, 3), np.uint8),
        np.zeros((0, 8, 3), np.uint8),
        "photo.jpg",
        [[[0, 0, 0]]],
    ],
    ids=["floats", "gray", "alpha", "batch", "empty", "path", "list"],
)
def test_preprocess_takes_uint8_images_alone(image):
    with pytest.raises(ShapeError, match=r"^image: found .*, expected .*load_image\)$"):
        preprocess(image, get_config("dat_tiny"))


# --- labels -----------------------------------------------------------------------------------------------------------


def test_imagenet_labels():
    labels = imagenet_labels()
    assert len(labels) == 1000
    assert len({label.lower() for label in labels}) == 1000
    assert all(label and label == label.strip() and label.isprintable() for label in labels)
    anchors = {
        0: "tench",
        1: "goldfish",
        134: "crane (bird)",
        207: "golden retriever",
        281: "tabby",
        282: "tiger cat",
        388: "giant panda",
        517: "crane (machine)",
        555: "fire engine",
        817: "sports car",
        954: "banana",
        999: "toilet tissue",
    }
    assert {index: labels[index] for index in anchors} == anchors


def test_cifar10_labels():
    labels = cifar10_labels()
    assert len(labels) == 10
    assert list(labels) == sorted(labels)
    assert (labels[0], labels[3], labels[9]) == ("airplane", "cat", "truck")


def test_labels_by_name_and_from_a_file(save):
    assert load_labels("imagenet") == imagenet_labels()
    assert load_labels("cifar10") == cifar10_labels()
    path = save("labels.txt", "apple\r\ncrème brûlée \nzebra\n".encode())
    assert load_labels(path) == ("apple", "crème brûlée", "zebra")


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "line 1 is empty"),
        (b"apple\n\nbear\n", "line 2 is empty"),
        (b"\xff\xfe\x00", "not UTF-8 text"),
        (None, "No such file or directory"),
    ],
)
def test_bad_label_files(tmp_path, content, problem):
    path = tmp_path / "labels.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(MinidatError) as caught:
        load_labels(path)
    assert str(caught.value).startswith(f"{path}: {problem}; expected ")


@pytest.mark.parametrize("missing", [1, 4, 8, 12, 16, 20])
def test_a_png_without_its_end_is_refused_although_its_pixels_are_there(missing, tmp_path):
    path = tmp_path / "cut.png"
    Image.new("RGB", (9, 7), "blue").save(path)
    path.write_bytes(path.read_bytes()[:-missing])
    with pytest.raises(ImageError, match=r"cut\.png"):
        load_image(path)
