"""Pixels as a PNG file whose bytes are a function of the pixels alone.

The deflate stream holds one stored block. So the file is as large as its pixels, which for 32x32 is less than a block
of a filesystem, and it doesn't depend on which zlib compressed it: data sets that were prepared on different machines
have the same fingerprint.
"""

import struct
import zlib

import numpy as np
import numpy.typing as npt

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_ZLIB_HEADER = b"\x78\x01"
_LAST_STORED_BLOCK = b"\x01"
_MAX_STORED_BYTES = 0xFFFF
_FRAME_BYTES = 68  # all but the rows: signature, three chunks and their 13 bytes of header, and the stream's ends
_8_BIT_RGB = (8, 2, 0, 0, 0)  # bit depth, colour type, and the only compression, filters and no interlace


def stored_png(pixels: npt.NDArray[np.uint8]) -> bytes:
    """The PNG file of an image. pixels: uint8[height, width, 3], of at most 64 KB."""
    height, width, channels = pixels.shape
    rows = np.zeros((height, 1 + width * channels), dtype=np.uint8)  # each begins with the number of its filter: none
    rows[:, 1:] = pixels.reshape(height, -1)
    raw = rows.tobytes()
    if channels != 3 or len(raw) > _MAX_STORED_BYTES:
        raise ValueError(f"no small RGB image: {pixels.shape}")
    length = struct.pack("<HH", len(raw), len(raw) ^ _MAX_STORED_BYTES)
    stream = _ZLIB_HEADER + _LAST_STORED_BLOCK + length + raw + struct.pack(">I", zlib.adler32(raw))
    header = struct.pack(">II5B", width, height, *_8_BIT_RGB)
    return _SIGNATURE + _chunk(b"IHDR", header) + _chunk(b"IDAT", stream) + _chunk(b"IEND", b"")


def stored_png_bytes(height: int, width: int) -> int:
    """The size of such a file."""
    return _FRAME_BYTES + height * (1 + 3 * width)


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
