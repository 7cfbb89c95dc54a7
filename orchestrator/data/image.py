"""Reads one image file: whether it is whole, how large it is, and the pixels that PIL's convert("RGB") makes of it.

Orientation tags are ignored, as by every ImageNet pipeline. Only formats that PIL and DALI are known to read to the
same pixels are accepted; what a file is called doesn't matter, what it holds does.
"""

import hashlib
import os
import stat
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

from PIL import Image, UnidentifiedImageError

from orchestrator.data.jpeg import jpeg_read_differently

_JPEG_END = b"\xff\xd9"
_PNG_BIT_DEPTH_OFFSET = 24  # in the header chunk, which the format puts first
_OS2_HEADER_SIZE = 12
_HEAD_BYTES = 66  # as far as the colour masks of a BMP
_BMP_RUNS_OF_4_BITS, _BMP_MASKS = 2, 3
_BMP_READ_MASKS = {(0xFF0000, 0xFF00, 0xFF), (0xFF, 0xFF00, 0xFF0000)}

ACCEPTED_MODES = {
    "JPEG": {"L", "RGB", "CMYK"},
    "MPO": {"L", "RGB", "CMYK"},  # a JPEG followed by further pictures; the first one is read
    "PNG": {"1", "L", "LA", "P", "RGB", "RGBA"},
    "WEBP": {"RGB", "RGBA"},
    "BMP": {"1", "L", "P", "RGB", "RGBA"},
}
"""The PIL modes of each PIL format that both loaders read alike."""


class BadImageError(Exception):
    """A file that can't be trained on. Its message completes a sentence that begins with the file's name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageHeader:
    """What is known of an image without its pixels."""

    width: int
    height: int
    num_bytes: int
    sha256: bytes = b""
    """Of the file; of one that was inspected and decoded in full."""


def inspect_image(path: str | Path, *, full_decode: bool) -> ImageHeader:
    """Check an image and return its size, or raise BadImageError.

    Always checked: it can be read, isn't empty, is of an accepted format, and is whole. A JPEG that ends with its end
    marker is taken for whole unless `full_decode`; any other image is decoded to know.
    """
    with _reading(path) as (file, num_bytes):
        return _inspected(file, num_bytes, full_decode)


def inspect_encoded(encoded: bytes, *, full_decode: bool) -> ImageHeader:
    """Check an image that is in memory in the same way."""
    with _translated_faults():
        if not encoded:
            raise BadImageError("is empty")
        return _inspected(BytesIO(encoded), len(encoded), full_decode)


def _inspected(file: BinaryIO, num_bytes: int, full_decode: bool) -> ImageHeader:
    ends_as_jpeg = _ends_as_jpeg(file, num_bytes)
    image = Image.open(file)
    found = image.format or "unknown"
    if found not in ACCEPTED_MODES:
        raise BadImageError(f"is a {found} image; the loaders agree on JPEG, PNG, WebP and BMP alone")
    if kind := _read_differently(image, file):
        raise BadImageError(f"is a {found} image {kind}, which the loaders don't read alike")
    if full_decode or not (found in ("JPEG", "MPO") and ends_as_jpeg):
        image.load()
    if found == "PNG":
        _check_sums(file)
    sha256 = _sha256(file) if full_decode else b""
    return ImageHeader(width=image.width, height=image.height, num_bytes=num_bytes, sha256=sha256)


def read_encoded(path: str | Path, expected: ImageHeader) -> bytes:
    """The bytes of an image file, or raise BadImageError if there aren't as many as the manifest says."""
    with _reading(path) as (file, num_bytes):
        if num_bytes != expected.num_bytes:
            raise BadImageError(changed_size(num_bytes, expected.num_bytes))
        return file.read()


def decode_rgb(encoded: bytes, expected: ImageHeader) -> Image.Image:
    """The image in mode RGB, or raise BadImageError if it is damaged or not what the manifest says."""
    with _translated_faults():
        image = Image.open(BytesIO(encoded))
        if image.size != (expected.width, expected.height):
            raise BadImageError(
                f"has changed since it was indexed: it is {image.width}x{image.height} pixels "
                f"and was {expected.width}x{expected.height}"
            )
        return image.convert("RGB")


def changed_size(num_bytes: int, expected_bytes: int) -> str:
    """What to say of a file whose size isn't the manifest's."""
    return f"has changed since it was indexed: it has {num_bytes} bytes and had {expected_bytes}"


@contextmanager
def quiet_pil() -> Iterator[None]:
    """Inside, PIL reports images that are too large as errors and says nothing of blemishes that it reads past.

    Python's warning filters belong to the process, so this is for the thread that starts the others, around them.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\.")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield


@contextmanager
def _reading(path: str | Path) -> Iterator[tuple[BinaryIO, int]]:
    """The open file and its size in bytes; whatever reading it raises becomes a BadImageError."""
    # Without O_NONBLOCK, a named pipe would wait for its writer.
    with _translated_faults(), os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise BadImageError("is no regular file")
        if status.st_size == 0:
            raise BadImageError("is empty")
        yield file, status.st_size


@contextmanager
def _translated_faults() -> Iterator[None]:
    """Whatever reading an image raises becomes a BadImageError."""
    try:
        yield
    except BadImageError:
        raise
    except UnidentifiedImageError:
        raise BadImageError("is no image that can be read") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise BadImageError(f"has more than {Image.MAX_IMAGE_PIXELS} pixels, the most that is read") from None
    except Exception as error:  # PIL's decoders raise nearly anything on damaged files
        if isinstance(error, OSError) and error.strerror is not None:
            raise BadImageError(f"can't be read: {error.strerror}") from None
        raise BadImageError(f"is damaged: {error or type(error).__name__}") from error


def _sha256(file: BinaryIO) -> bytes:
    file.seek(0)
    return hashlib.sha256(file.read()).digest()


def _head(file: BinaryIO) -> bytes:
    """The file's first bytes. Leaves it at its start."""
    file.seek(0)
    head = file.read(_HEAD_BYTES)
    file.seek(0)
    return head


def _read_differently(image: Image.Image, file: BinaryIO) -> str:
    """Which kind of an accepted format the loaders don't read alike an image is, "" if it is none.

    PIL's mode of a PNG or BMP is what it becomes, so the depth is looked up in the file. PIL inverts CMYK if Adobe's
    marker is there, DALI always. Leaves the file at its start.
    """
    head = _head(file)
    if head.startswith(b"\x89PNG") and head[_PNG_BIT_DEPTH_OFFSET] == 16:
        return "with 16 bits a channel"
    if image.mode not in ACCEPTED_MODES[image.format or ""]:
        return f"with PIL mode {image.mode}"
    if image.mode == "CMYK" and "adobe_transform" not in image.info:
        return "in CMYK without Adobe's marker"
    if head.startswith(b"BM"):
        return _bmp_read_differently(head)
    return jpeg_read_differently(file) if head.startswith(b"\xff\xd8") else ""


def _bmp_read_differently(head: bytes) -> str:
    header_size = int.from_bytes(head[14:18], "little")
    if header_size == _OS2_HEADER_SIZE:
        depth, compression = int.from_bytes(head[24:26], "little"), 0
    else:
        depth, compression = struct.unpack_from("<HI", head, 28)
    if depth == 16:
        return "with 16 bits a pixel"
    if compression == _BMP_RUNS_OF_4_BITS:
        return "of runs of 4 bits"
    if compression == _BMP_MASKS and struct.unpack_from("<3I", head, 54) not in _BMP_READ_MASKS:
        return "with its colours in another order"
    return ""


def _check_sums(file: BinaryIO) -> None:
    """Raise SyntaxError unless a PNG's chunks are whole, as its last one is: PIL shows such files, DALI fails."""
    file.seek(0)
    Image.open(file).verify()


def _ends_as_jpeg(file: BinaryIO, num_bytes: int) -> bool:
    """Whether the file's last bytes are a JPEG's end marker. Leaves it at its start."""
    file.seek(max(0, num_bytes - len(_JPEG_END)))
    tail = file.read()
    file.seek(0)
    return tail == _JPEG_END
