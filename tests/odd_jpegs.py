"""JPEGs whose segments are other than usual, made by surgery on ordinary ones; `sof` is the segment of the frame."""

import struct
from collections.abc import Callable

import numpy as np


def unusual(encode: Callable[..., bytes], square: object, image: object, large: object) -> dict[str, bytes]:
    """JPEGs that are to be read. square: an image of 64x64 pixels."""
    whole, photograph = encode(image, "JPEG"), encode(large, "JPEG", quality=93)
    bare = without_application_segments(whole)
    made = {
        "jpeg 4:4:0": with_sampling(encode(square, "JPEG", subsampling="4:2:2"), (0x12, 0x11, 0x11)),
        "jpeg of 1 by 4": with_sampling(encode(square, "JPEG", subsampling="4:2:0"), (0x14, 0x11, 0x11)),
        "jpeg L, sampled twice": with_sampling(encode(image.convert("L"), "JPEG"), (0x22,)),
        "jpeg, extended sequential": with_frame(whole, 0xC1),
        "jpeg without JFIF": bare,
        "jpeg, components called RGB": with_components(bare, b"RGB"),
        "jpeg with JFIF, components called RGB": with_components(whole, b"RGB"),
        "jpeg, components called 34, 35, 36": with_components(bare, bytes([34, 35, 36])),
        "jpeg, fill bytes": whole[:2] + b"\xff\xff\xff" + whole[2:],
        "jpeg, an empty comment": inserted(whole, segment(0xFE, b"")),
        "jpeg, a thumbnail": inserted(whole, segment(0xE1, b"Exif\0\0" + exif_with_thumbnail(encode(square, "JPEG")))),
        "jpeg, a thumbnail of JFXX": inserted(whole, segment(0xE0, b"JFXX\0\x10" + encode(square, "JPEG"))),
        "jpeg, a profile of 300 kB": inserted(
            whole, *(segment(0xE2, b"ICC_PROFILE\0" + bytes([part, 5]) + bytes(60_000)) for part in range(1, 6))
        ),
        "jpeg, cut and ended": photograph[: len(photograph) // 2] + b"\xff\xd9",
        "jpeg, wrong bits": with_wrong_bits(photograph),
        "jpeg, restarts that count wrongly": with_wrong_restarts(encode(large, "JPEG", restart_marker_blocks=7)),
        "progressive with restarts": encode(large, "JPEG", progressive=True, restart_marker_blocks=5),
        "progressive CMYK": encode(image.convert("CMYK"), "JPEG", progressive=True),
    }
    for transform in range(3):
        made[f"jpeg, Adobe's {transform}"] = inserted(bare, adobe(transform))
        made[f"jpeg with JFIF, Adobe's {transform}"] = inserted(whole, adobe(transform))
        cmyk = without_application_segments(encode(image.convert("CMYK"), "JPEG"))
        made[f"CMYK, Adobe's {transform}"] = inserted(cmyk, adobe(transform))
    return made


def read_differently(encode: Callable[..., bytes], image: object) -> dict[str, tuple[bytes, str]]:
    """JPEGs that PIL or DALI takes for an image and the other doesn't, or for another one; and what is said of them."""
    whole, progressive = encode(image, "JPEG"), encode(image, "JPEG", progressive=True)
    cmyk = without_application_segments(encode(image.convert("CMYK"), "JPEG"))
    scans = [n for n in range(len(progressive)) if progressive.startswith(b"\xff\xda", n)]
    table = whole.index(b"\xff\xc4")
    strays = "is a JPEG image with bytes between its segments that belong to none"
    scans_missing = "is a JPEG image whose last scans are missing"
    return {
        "arithmetic coding": (with_frame(whole, 0xC9), "is a JPEG image with arithmetic coding"),
        "arithmetic coding, progressive": (with_frame(whole, 0xCA), "is a JPEG image with arithmetic coding"),
        "lossless": (with_frame(whole, 0xC3), "is a JPEG image of the lossless or the hierarchical kind"),
        "12 bits": (with_precision(whole, 12), "is no image that can be read"),
        "progressive, one scan": (progressive[: scans[1]] + b"\xff\xd9", scans_missing),
        "progressive, last scan missing": (progressive[: scans[-1]] + b"\xff\xd9", scans_missing),
        "stray bytes": (whole[:table] + b"abc" + whole[table:], strays),
        "two starts": (b"\xff\xd8" + whole, strays),
        "CMYK, Adobe's marker cut short": (
            inserted(cmyk, segment(0xEE, b"Adobe\0\x64")),
            "is a JPEG image in CMYK without Adobe's marker",
        ),
    }


def segment(marker: int, content: bytes) -> bytes:
    return bytes([0xFF, marker]) + struct.pack(">H", len(content) + 2) + content


def adobe(transform: int) -> bytes:
    return segment(0xEE, b"Adobe\0\x64\0\0\0\0" + bytes([transform]))


def inserted(data: bytes, *segments: bytes) -> bytes:
    return data[:2] + b"".join(segments) + data[2:]


def sof(data: bytes) -> int:
    position = 2
    while data[position + 1] not in (0xC0, 0xC2):
        position += 2 + struct.unpack_from(">H", data, position + 2)[0]
    return position


def with_frame(data: bytes, marker: int) -> bytes:
    return data[: sof(data) + 1] + bytes([marker]) + data[sof(data) + 2 :]


def with_precision(data: bytes, bits: int) -> bytes:
    return data[: sof(data) + 4] + bytes([bits]) + data[sof(data) + 5 :]


def with_sampling(data: bytes, factors: tuple[int, ...]) -> bytes:
    changed = bytearray(data)
    for component, factor in enumerate(factors):
        changed[sof(data) + 11 + 3 * component] = factor
    return bytes(changed)


def with_components(data: bytes, names: bytes) -> bytes:
    """With other names, in a sequential image of one scan, in which they come in order."""
    changed = bytearray(data)
    scan = data.index(b"\xff\xda")
    for component, name in enumerate(names):
        changed[sof(data) + 10 + 3 * component] = changed[scan + 5 + 2 * component] = name
    return bytes(changed)


def without_application_segments(data: bytes) -> bytes:
    kept, position = data[:2], 2
    while data[position + 1] != 0xDA:
        end = position + 2 + struct.unpack_from(">H", data, position + 2)[0]
        kept += b"" if 0xE0 <= data[position + 1] <= 0xEF else data[position:end]
        position = end
    return kept + data[position:]


def exif_with_thumbnail(thumbnail: bytes) -> bytes:
    entries = struct.pack("<HHIIHHII", 0x201, 4, 1, 44, 0x202, 4, 1, len(thumbnail))
    return b"II*\0\x08\0\0\0" + b"\0\0" + struct.pack("<I", 14) + b"\2\0" + entries + b"\0\0\0\0" + thumbnail


def with_wrong_bits(data: bytes) -> bytes:
    changed = bytearray(data)
    for position in range(len(data) // 2, len(data) // 2 + 5000, 977):
        changed[position] ^= 0x55
    return bytes(changed)


def with_wrong_restarts(data: bytes) -> bytes:
    values = np.frombuffer(data, np.uint8).copy()
    (markers,) = np.nonzero((values[:-1] == 0xFF) & (values[1:] >= 0xD0) & (values[1:] <= 0xD7))
    values[markers[10:40:3] + 1] = 0xD0
    return values.tobytes()
