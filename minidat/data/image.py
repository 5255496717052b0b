"""Image files to arrays, and arrays to what a model takes."""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import BinaryIO, Protocol

import numpy as np
from PIL import Image

from ..errors import ImageError, ShapeError
from ..files.shipped import IMAGES, shipped_file
from ..runtime.locks import Lock
from ._checks import check_images

PNG_END = b"IEND\xaeB`\x82"
FORMATS = (
    "JPEG",
    "PNG",
    "GIF",
    "BMP",
    "WEBP",
    "TIFF",
)  # nothing else: Pillow's other readers are many, and some run programs
SIGNATURES = (b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"BM", b"RIFF", b"II*\0", b"MM\0*")  # what they begin with
DAMAGED = "the image is damaged or cut short, expected a whole one; get another copy"

# RGB means and standard deviations over ImageNet, of values in [0, 1]: every published model was trained with them.
MEAN = np.array((0.485, 0.456, 0.406), dtype=np.float32)
STD = np.array((0.229, 0.224, 0.225), dtype=np.float32)

# What undoes each EXIF orientation (tag 0x0112; 1 is upright), by the EXIF standard, section 4.6.4.
ORIENTATION_TAG = 0x0112
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

Convert = Callable[[Image.Image], np.ndarray]  # what to make of an opened image

WORTH_A_THREAD = 3 * 128 * 128  # numbers in a picture; below, threads mostly wait for the interpreter's lock

PIXELS_AT_ONCE = 1 << 26  # that several threads decode together, however many they are

_warning_filters = Lock()  # they belong to the whole process


class Preprocessing(Protocol):
    """The two fields of `minidat.models.config.ModelConfig` that `preprocess` reads."""

    @property
    def image_size(self) -> tuple[int, int]: ...

    @property
    def resize_size(self) -> int: ...


def load_image(path: str | os.PathLike[str]) -> np.ndarray:
    """Read a JPEG, PNG, WebP, GIF (its first frame), TIFF (its first page) or BMP file as an (H, W, 3) uint8 RGB array.

    The array is upright (EXIF orientation is applied) and every kind of pixel becomes 8-bit RGB: gray and palettes are
    expanded; what is transparent shows white; CMYK, YCbCr and CIELAB are converted (embedded color profiles are not
    applied); 16 bits keep their upper 8. 32-bit integers and floats have no agreed white: it is 1, 255 or 65535, the
    first that no value exceeds; if none is, or a value is negative, the smallest value becomes black and the largest
    white.

    Raises ImageError for a file that is missing, damaged, cut short (no half-decoded picture is returned), of another
    kind, or that has more pixels than Pillow's guard against decompression bombs allows (`PIL.Image.MAX_IMAGE_PIXELS`).
    For a damaged TIFF the libtiff library may print lines of its own to stderr before that.
    """
    with _image_warnings():
        return _read(path, path, upright_rgb)


def example_image(name: str) -> np.ndarray:
    """A photograph that comes with minidat, as `load_image` returns it: (H, W, 3) uint8 RGB.

    name: "horse", "cat", "dog", "blood_cells", "street"; authors and licenses are in `examples/images/README.md`.
    Raises MinidatError, with the names there are, for another one.
    """
    return load_image(shipped_file(IMAGES, name, ".jpg"))


class _PixelBudget:
    """So many pixels may be decoded at the same time; a larger picture, while no other is."""

    def __init__(self, pixels: int) -> None:
        self.all = self.free = pixels
        self.changed = threading.Condition()

    @contextmanager
    def take(self, pixels: int) -> Iterator[None]:
        pixels = min(pixels, self.all)
        with self.changed:
            self.changed.wait_for(lambda: self.free >= pixels)
            self.free -= pixels
        try:
            yield
        finally:
            with self.changed:
                self.free += pixels
                self.changed.notify_all()


def load_images(
    names: Sequence[str], source: Callable[[str], str | BinaryIO] = str, convert: Convert | None = None
) -> list[np.ndarray | ImageError]:
    """As `load_image` for many files, which several threads share unless they are small, and no bad one stops it.

    source: the file of a name, as a path or opened; it may raise ImageError. convert: what to make of an image, if not
    what `load_image` does. Returns (H, W, 3) uint8 arrays, or what `convert` does, in the order of the names; in the
    place of an image that cannot be read there is the ImageError.
    """
    from ..runtime.threads import parallel  # here, since one image needs no threads and no operators

    images: list[np.ndarray | ImageError] = [ImageError("not read")] * len(names)
    budget = _PixelBudget(PIXELS_AT_ONCE)

    def read_some(start: int, stop: int) -> None:
        for i in range(start, stop):
            try:
                images[i] = _read(source(names[i]), names[i], convert or upright_rgb, budget)
            except ImageError as error:
                images[i] = error

    with _image_warnings():
        read_some(0, min(1, len(names)))
        if any(isinstance(image, np.ndarray) and image.size < WORTH_A_THREAD for image in images[:1]):
            read_some(1, len(names))
        else:
            parallel(lambda start, stop: read_some(1 + start, 1 + stop), max(0, len(names) - 1))
    return images


def upright_rgb(image: Image.Image) -> np.ndarray:
    """An image as `load_image` returns it, (H, W, 3) uint8: EXIF orientation is applied."""
    upright = UPRIGHT.get(_orientation(image))
    rgb = _to_rgb(image)
    return np.array(rgb if upright is None else rgb.transpose(upright))


def numbers_or_colors(image: Image.Image) -> np.ndarray:
    """The numbers in an image with a palette or of gray values, as they stand, (H, W); RGB of any other, (H, W, 3)."""
    return np.array(_to_rgb(image) if len(image.getbands()) > 1 else image)


def preprocess(image: np.ndarray, config: Preprocessing) -> np.ndarray:
    """Turn an (H, W, 3) uint8 RGB image into the (h, w, 3) float32 input of a model, (h, w) = `config.image_size`.

    As the authors do at test time: resize *both* sides to `config.resize_size` (the aspect ratio is not kept; Pillow's
    bicubic filter), cut out the center, divide by 255, subtract ImageNet's mean and divide by its standard deviation.
    For a model whose images are not square, `resize_size` is the longer side and the other one is in proportion. A
    picture that already has the size resized to is taken as it is. `np.stack` makes a batch, (B, h, w, 3).

    Raises ShapeError for anything but a uint8 array of three channels.
    """
    check_image(image)
    return _crop_and_normalize(resize_image(image, resized(config)), config)


def preprocess_batch(images: np.ndarray, config: Preprocessing) -> np.ndarray:
    """As `preprocess` for an array of pictures of one size: (N, H, W, 3) uint8 -> (N, h, w, 3) float32.

    Pictures that already have the size `preprocess` would resize them to, such as CIFAR-10's for a model of 32 x 32
    pixels, are normalized all at once. The result is the same. Raises ShapeError for another kind of array.
    """
    check_images(images)
    if images.shape[1:3] == resized(config):
        return _crop_and_normalize(images, config)
    output = np.empty((len(images), *config.image_size, 3), np.float32)
    for i, image in enumerate(images):
        output[i] = preprocess(image, config)
    return output


def check_image(image: np.ndarray) -> None:
    """Raise ShapeError unless `image` is an (H, W, 3) array of uint8, as `load_image` returns it."""
    if not isinstance(image, np.ndarray):
        raise ShapeError(f"image: found {type(image).__name__}, expected an array (see minidat.load_image)")
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[-1] != 3 or 0 in image.shape:
        raise ShapeError(
            f"image: found shape {image.shape} of {image.dtype}, expected (height, width, 3) of uint8 "
            "(see minidat.load_image)"
        )


def resize_image(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize (H, W, 3) uint8 to `size`, (height, width), with Pillow's bicubic filter: (height, width, 3) uint8.

    The filter widens as the picture shrinks, so that every pixel counts. A picture of that size stays as it is.
    """
    if image.shape[:2] == size:
        return image
    return np.asarray(Image.fromarray(image).resize(size[::-1], Image.Resampling.BICUBIC))


def seen_part(image: np.ndarray, config: Preprocessing) -> np.ndarray:
    """The part of a picture that `preprocess` keeps, in its own resolution: (H, W, 3) -> (h, w, 3), a view."""
    bounds = []
    for side, whole, kept in zip(image.shape[:2], resized(config), config.image_size, strict=True):
        first = round((whole - kept) / 2)
        bounds.append(slice(round(first / whole * side), round((first + kept) / whole * side)))
    return image[tuple(bounds)]


def resized(config: Preprocessing) -> tuple[int, int]:
    """(height, width) that a model's pictures are resized to before the center is cut out."""
    height, width = config.image_size
    longest = max(height, width)
    return round(config.resize_size * height / longest), round(config.resize_size * width / longest)


def _crop_and_normalize(resized: np.ndarray, config: Preprocessing) -> np.ndarray:
    """(..., H, W, 3) uint8 -> (..., h, w, 3) float32, (h, w) = `config.image_size`."""
    height, width = config.image_size
    top, left = round((resized.shape[-3] - height) / 2), round((resized.shape[-2] - width) / 2)
    pixels = resized[..., top : top + height, left : left + width, :].astype(np.float32)
    return (pixels / 255 - MEAN) / STD


@contextmanager
def _image_warnings() -> Iterator[None]:
    """What Pillow warns of is ignored inside this block, in every thread, but a decompression bomb is an error."""
    with _warning_filters, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about metadata: what damages the pixels is an error in Pillow too
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield


def _read(
    source: str | os.PathLike[str] | BinaryIO,
    name: str | os.PathLike[str],
    convert: Convert,
    budget: _PixelBudget | None = None,
) -> np.ndarray:
    """The picture in a file, a path or an opened one, called `name`. To be used within `_image_warnings`."""
    if isinstance(source, str | os.PathLike):
        _check_file(source)
    try:
        with (
            Image.open(source, formats=FORMATS) as image,
            nullcontext() if budget is None else budget.take(image.width * image.height),
        ):
            image.load()
            if image.format == "PNG" and not _ends_as_png(source):  # Pillow is content with complete pixels
                raise ImageError(f"{name}: {DAMAGED} (the end of the PNG is missing)")
            return convert(image)
    except ImageError:
        raise
    except Image.UnidentifiedImageError:
        raise ImageError(f"{name}: {_unidentified(source)}") from None
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        raise ImageError(
            f"{name}: the image has more than {Image.MAX_IMAGE_PIXELS:,} pixels, the limit against "
            "decompression bombs; make it smaller first"
        ) from None
    except MemoryError:
        raise ImageError(f"{name}: there is not enough memory for this image; make it smaller first") from None
    except Exception as error:  # Pillow's decoders raise nearly anything on a damaged file
        if isinstance(error, OSError) and error.strerror:  # the system's own, such as a missing permission
            raise ImageError(f"{name}: cannot be read: {error.strerror}; expected an image file") from None
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ImageError(f"{name}: {DAMAGED} ({reason})") from None


def _ends_as_png(source: str | os.PathLike[str] | BinaryIO) -> bool:
    """Whether the last chunk of a PNG, IEND with its checksum, is there (anything may follow it)."""
    if isinstance(source, str | os.PathLike):
        with open(source, "rb") as file:
            return PNG_END in file.read()
    source.seek(0)
    return PNG_END in source.read()


def _check_file(path: str | os.PathLike[str]) -> None:
    """Raise ImageError unless `path` is a file with something in it."""
    if not os.path.exists(path):
        raise ImageError(f"{path}: no such file; expected an image")
    if os.path.isdir(path):
        raise ImageError(f"{path}: this is a folder; expected an image file")
    if not os.path.isfile(path):
        raise ImageError(f"{path}: not a regular file; expected an image file, save the image to one first")
    if os.path.getsize(path) == 0:
        raise ImageError(f"{path}: the file is empty; expected an image")


def _unidentified(source: str | os.PathLike[str] | BinaryIO) -> str:
    """What is wrong with a file that no reader of FORMATS makes sense of."""
    if isinstance(source, str | os.PathLike):
        with open(source, "rb") as file:
            beginning = file.read(16)
    else:
        source.seek(0)
        beginning = source.read(16)
    if not beginning:
        return "the file is empty; expected an image"
    if beginning.startswith(SIGNATURES):
        return DAMAGED
    return f"not a JPEG, PNG, WebP, GIF, TIFF or BMP image, it begins with {beginning!r}; expected one of these"


def _to_rgb(image: Image.Image) -> Image.Image:
    """Convert an opened image of any of Pillow's modes to RGB."""
    if image.mode.startswith("I;16") or (
        image.mode == "I" and image.format == "PNG"
    ):  # Pillow 10 opens 16-bit PNG as I
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    elif image.mode in ("I", "F"):
        image = Image.fromarray(_to_8_bits(np.asarray(image)))
    elif image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image if image.mode == "RGB" else image.convert("RGB")


def _to_8_bits(values: np.ndarray) -> np.ndarray:
    """Map 32-bit values to uint8, by the rule in `load_image`. NaN and infinities become 0."""
    values = np.nan_to_num(values.astype(np.float64), posinf=0.0, neginf=0.0)
    smallest, largest = values.min(), values.max()
    whites = [white for white in (1, 255, 65535) if smallest >= 0 and largest <= white]
    black, white = (0, whites[0]) if whites else (smallest, largest)
    return np.round((values - black) * (255 / (white - black or 1))).astype(np.uint8)


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 (upright) to 8. Damaged EXIF data are as good as none: the pixels are fine."""
    try:
        return image.getexif().get(ORIENTATION_TAG, 1)
    except Exception:
        return 1
