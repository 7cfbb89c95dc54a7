"""Looks at how a JPEG is built, for kinds that PIL and DALI don't read alike though both take them for images.

Found by trying: DALI finds no image behind bytes that belong to no segment, which PIL passes over; PIL reads arithmetic
coding up to 64 KB alone; and where a progressive image lacks its last scans, libjpeg smooths over what is missing,
which comes out otherwise when a part of the image is decoded than when all of it is.
"""

import re
import struct
from typing import BinaryIO

_START, _START_OF_SCAN, _END = 0xD8, 0xDA, 0xD9
_SEQUENTIAL, _EXTENDED, _PROGRESSIVE = 0xC0, 0xC1, 0xC2
_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}  # which are tables, and a reserved marker
_ARITHMETIC = {*range(0xC9, 0xD0)}
_NUM_COEFFICIENTS = 64
_MARKER = re.compile(rb"\xff+([^\x00\xff\xd0-\xd7])")  # restart markers and stuffed zeros are part of a scan


def jpeg_read_differently(file: BinaryIO) -> str:
    """What makes a JPEG one that isn't read alike, "" if nothing does. Leaves the file at its start."""
    try:
        return _problem(file)
    except (IndexError, struct.error):
        return "that ends in the middle of a segment"
    finally:
        file.seek(0)


def _problem(file: BinaryIO) -> str:
    file.seek(2)
    progressive = False
    while (marker := _next_marker(file)) != _START_OF_SCAN:
        if marker is None:
            return "with bytes between its segments that belong to none"
        segment = _segment(file)
        if marker in _FRAMES:
            if marker in _ARITHMETIC:
                return "with arithmetic coding"
            if marker not in (_SEQUENTIAL, _EXTENDED, _PROGRESSIVE):
                return "of the lossless or the hierarchical kind"
            progressive = marker == _PROGRESSIVE
            components = segment[6::3]
    return "whose last scans are missing" if progressive and _lacks_scans(file, components) else ""


def _next_marker(file: BinaryIO) -> int | None:
    """The next segment's marker, None if there is something else."""
    if file.read(1) != b"\xff":
        return None
    marker = file.read(1)[0]
    while marker == 0xFF:  # any number of these may stand in front
        marker = file.read(1)[0]
    return None if marker <= 1 or _START - 8 <= marker <= _END else marker


def _segment(file: BinaryIO) -> bytes:
    (length,) = struct.unpack(">H", file.read(2))
    return file.read(length - 2)


def _lacks_scans(file: BinaryIO, components: bytes) -> bool:
    """Whether a progressive image's coefficients aren't all known to the last bit. The file is behind an SOS marker."""
    missing_bits = {component: [-1] * _NUM_COEFFICIENTS for component in components}
    data = file.read()
    position = 0
    while True:
        length, count = struct.unpack_from(">HB", data, position)
        first, last, bits = data[position + 3 + 2 * count : position + 6 + 2 * count]
        for component in data[position + 3 : position + 3 + 2 * count : 2]:
            missing_bits[component][first : last + 1] = [bits & 0xF] * (last + 1 - first)
        position += length
        while (found := _MARKER.search(data, position)) and found[1][0] not in (_START_OF_SCAN, _END):
            position = found.end() + struct.unpack_from(">H", data, found.end())[0]
        if found is None or found[1][0] == _END:
            return any(bits != 0 for known in missing_bits.values() for bits in known)
        position = found.end()
