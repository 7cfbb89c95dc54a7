"""Valid images that aren't what their names say, or of unusual kinds and sizes; and such as are to be refused."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms

from tests import odd_jpegs
from tests.photographs import photograph

WIDTH, HEIGHT = 61, 47


def write_odd_images(folder: Path) -> None:
    """Write all that are to be read, each as NAME.JPEG."""
    folder.mkdir(parents=True)
    for images in (jpegs(), pngs(), webps(), bmps()):
        for name, data in images.items():
            (folder / f"{name}.JPEG").write_bytes(data)


def jpegs() -> dict[str, bytes]:
    image, cmyk = photograph(0, WIDTH, HEIGHT), photograph(0, WIDTH, HEIGHT).convert("CMYK")
    sizes = ((5, 3), (200, 1), (1, 200), (1, 1), (17, 16), (500, 375))
    made = {f"{size[0]}x{size[1]}": encoded(photograph(2, *size), "JPEG") for size in sizes}
    for sampling in ("4:4:4", "4:2:2", "4:2:0", "4:1:1"):
        made[f"jpeg {sampling}"] = encoded(image, "JPEG", subsampling=sampling)
        made[f"progressive {sampling}"] = encoded(image, "JPEG", progressive=True, subsampling=sampling)
    for orientation in (2, 3, 6, 8):
        exif = Image.Exif()
        exif[0x112] = orientation
        made[f"jpeg, turned {orientation}"] = encoded(image, "JPEG", exif=exif)
    made["jpeg L"] = encoded(image.convert("L"), "JPEG")
    made["jpeg of 1 bit"] = encoded(image.convert("1"), "JPEG")
    made["jpeg CMYK"] = encoded(cmyk, "JPEG")
    made["jpeg CMYK 4:2:0"] = encoded(cmyk, "JPEG", subsampling="4:2:0")
    made["jpeg YCCK"] = with_adobe_transform(made["jpeg CMYK"], 2)
    made["jpeg of RGB"] = encoded(image, "JPEG", keep_rgb=True)
    made["jpeg with restarts"] = encoded(image, "JPEG", restart_marker_blocks=1)
    made["jpeg with a profile"] = encoded(image, "JPEG", icc_profile=profile())
    made["two jpegs"] = encoded(image, "MPO", save_all=True, append_images=[photograph(3, WIDTH, HEIGHT)])
    whole = encoded(image, "JPEG")
    made |= {"żółw 雪": whole, "trailing bytes": whole + bytes(100), "trailing jpeg": whole + whole}
    bad_exif = b"Exif\0\0II*\0" + struct.pack("<I", 2**31 - 1)
    segment = b"\xff\xe1" + struct.pack(">H", 2 + len(bad_exif)) + bad_exif
    made["unreadable exif"] = whole[:2] + segment + whole[2:]
    return made | odd_jpegs.unusual(encoded, photograph(0, 64, 64), image, photograph(1, 500, 375))


def pngs() -> dict[str, bytes]:
    image = photograph(0, WIDTH, HEIGHT)
    made = {f"png {mode}": encoded(image.convert(mode), "PNG") for mode in ("1", "L", "LA", "P", "RGB")}
    made["png RGBA"] = encoded(with_alpha(), "PNG")
    made["png, transparent palette"] = encoded(image.convert("P"), "PNG", transparency=bytes(range(256)))
    made["png with a profile"] = encoded(image, "PNG", icc_profile=profile())
    made["png, moving"] = encoded(image, "PNG", save_all=True, append_images=[photograph(5, WIDTH, HEIGHT)])
    grey = np.asarray(image.convert("L"))
    for depth in (1, 2, 4, 8):
        rows = [packed(row >> (8 - depth), depth) for row in grey]
        palette = np.random.default_rng(1).integers(0, 256, (2**depth, 3)).astype(np.uint8).tobytes()
        made[f"png, grey of {depth} bits"] = png(depth, 0, rows)
        made[f"png, grey of {depth} bits, one transparent"] = png(depth, 0, rows, tRNS=b"\0\1")
        made[f"png, palette of {depth} bits"] = png(depth, 3, rows, PLTE=palette)
        made[f"png, palette of {depth} bits, two transparent"] = png(depth, 3, rows, PLTE=palette, tRNS=b"\0\x80")
    rows = [row.tobytes() for row in np.asarray(image)]
    made["png, linear"] = png(8, 2, rows, gAMA=struct.pack(">I", 100_000))
    made["png, one colour transparent"] = png(8, 2, rows, tRNS=b"\0\1\0\2\0\3")
    made["png, turned"] = png(8, 2, rows, eXIf=b"MM\0*\0\0\0\x08\0\1\1\x12\0\3\0\0\0\1\0\6\0\0\0\0\0\0")
    made["png, interlaced"] = interlaced_png(np.asarray(image), 2)
    made["png, interlaced grey with alpha"] = interlaced_png(np.dstack([grey, grey[::-1]]), 4)
    made["png, grey with a gamma"] = png(8, 0, [row.tobytes() for row in grey], gAMA=struct.pack(">I", 22_222))
    made["png RGBA with a gamma and a background"] = png(
        8,
        6,
        [row.tobytes() for row in np.asarray(with_alpha())],
        gAMA=struct.pack(">I", 22_222),
        bKGD=struct.pack(">3H", 1, 2, 3),
    )
    made["png, a palette that is too short"] = png(8, 3, [row.tobytes() for row in grey], PLTE=bytes(range(48)))
    made["png, trailing bytes"] = made["png RGB"] + bytes(100)
    return made


def webps() -> dict[str, bytes]:
    image = photograph(0, WIDTH, HEIGHT)
    exif = Image.Exif()
    exif[0x112] = 6
    return {
        "webp of a palette": encoded(image.convert("P"), "WEBP"),
        "webp of 500x375": encoded(photograph(1, 500, 375), "WEBP", quality=90),
        "webp lossy": encoded(with_alpha(), "WEBP", quality=80),
        "webp lossless": encoded(with_alpha(), "WEBP", lossless=True),
        "webp lossless, exact": encoded(with_alpha(), "WEBP", lossless=True, exact=True),
        "webp, turned": encoded(image, "WEBP", exif=exif),
        "webp, moving": encoded(image, "WEBP", save_all=True, append_images=[photograph(5, WIDTH, HEIGHT)]),
    }


def bmps() -> dict[str, bytes]:
    image = photograph(0, WIDTH, HEIGHT)
    bgr = np.asarray(image)[:, :, ::-1]
    grey = np.asarray(image.convert("L"))
    made = {f"bmp {mode}": encoded(image.convert(mode), "BMP") for mode in ("1", "L", "P", "RGB")}
    made["bmp RGBA"] = encoded(with_alpha(), "BMP")
    made["bmp from the top"] = bmp(24, bgr, height=-HEIGHT)
    made["bmp of 32 bits"] = bmp(32, np.dstack([bgr, np.full_like(grey, 7)])[::-1])
    colours = np.random.default_rng(2).integers(0, 256, (256, 4)).astype(np.uint8)
    made["bmp, 256 colours"] = bmp(8, grey[::-1], palette=colours)
    runs = b"".join(b"".join(bytes([1, value]) for value in row) + b"\0\0" for row in grey[::-1].tolist()) + b"\0\1"
    made["bmp, run lengths"] = bmp(8, runs, palette=colours, compression=1)
    made["bmp of 4 bits"] = bmp(4, rows_of_4_bits(grey), palette=colours[:16])
    made["bmp of 8 bits, from the top"] = bmp(8, grey, height=-HEIGHT, palette=colours)
    masks = {"bmp of masks": (0xFF0000, 0xFF00, 0xFF), "bmp of masks, red first": (0xFF, 0xFF00, 0xFF0000)}
    bgra = np.dstack([bgr, grey])[::-1]
    # PIL knows the second one with a mask for alpha alone, which is in a longer header.
    made |= {name: bmp(32, bgra, masks=(*mask, 0xFF000000), header_size=108) for name, mask in masks.items()}
    made["bmp of OS 2"] = os2_bmp(bgr[::-1])
    return made


def rows_of_4_bits(grey: np.ndarray) -> bytes:
    packed_rows = [packed(row >> 4, 4) for row in grey[::-1]]
    return b"".join(row + bytes(-len(row) % 4) for row in packed_rows)


def os2_bmp(rows: np.ndarray) -> bytes:
    content = b"".join(row.tobytes() + bytes(-row.nbytes % 4) for row in rows)
    header = struct.pack("<IHHHH", 12, WIDTH, HEIGHT, 1, 24)
    return b"BM" + struct.pack("<IHHI", 26 + len(content), 0, 0, 26) + header + content


def refused() -> dict[str, tuple[bytes, str]]:
    """Images that the loaders don't read alike, and how each is called when it is refused."""
    image = photograph(0, WIDTH, HEIGHT)
    deep = np.random.default_rng(0).integers(0, 2**16, (HEIGHT, WIDTH)).astype(np.uint16)
    twice = [np.repeat(row, 2).tobytes() for row in np.asarray(image)]
    made = {name: (encoded(image, name), f"is a {name} image") for name in ("GIF", "TIFF", "PPM", "DIB", "JPEG2000")}
    made["grey of 16 bits"] = (encoded(Image.fromarray(deep), "PNG"), "is a PNG image with 16 bits a channel")
    made["colours of 16 bits"] = (png(16, 2, twice), "is a PNG image with 16 bits a channel")
    for name, masks in (("555", ()), ("565", (0xF800, 0x7E0, 0x1F))):
        data = bmp(16, deep[:, :, None].view(np.uint8), masks=masks)
        made[f"bmp of {name}"] = (data, "is a BMP image with 16 bits a pixel")
    plain = without_adobe(encoded(image.convert("CMYK"), "JPEG"))
    made["CMYK without Adobe"] = (plain, "is a JPEG image in CMYK without Adobe's marker")
    whole = encoded(image, "PNG")
    sum_of_pixels = len(whole) - 13  # the last byte before the chunk that ends a PNG
    flipped = whole[:sum_of_pixels] + bytes([whole[sum_of_pixels] ^ 1]) + whole[sum_of_pixels + 1 :]
    made["png, a wrong sum"] = (flipped, "is damaged: broken PNG file")
    made["png without an end"] = (whole[:-12], "is damaged: truncated PNG file")
    runs = b"".join(bytes([2, value >> 4 << 4 | value >> 4]) for value in range(31)) + b"\0\0"
    colours = np.zeros((16, 4), np.uint8)
    made["bmp, runs of 4 bits"] = (
        bmp(4, runs * HEIGHT + b"\0\1", palette=colours, compression=2),
        "is a BMP image of runs of 4 bits",
    )
    pixels = np.dstack([np.asarray(image), np.zeros((HEIGHT, WIDTH), np.uint8)])
    made["bmp, colours in front"] = (
        bmp(32, pixels, masks=(0xFF000000, 0xFF0000, 0xFF00)),
        "is a BMP image with its colours in another order",
    )
    return made | odd_jpegs.read_differently(encoded, image)


def encoded(image: Image.Image, image_format: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, format=image_format, **options)
    return file.getvalue()


def with_alpha() -> Image.Image:
    alpha = np.asarray(photograph(1, WIDTH, HEIGHT))[..., 0]
    return Image.fromarray(np.dstack([np.asarray(photograph(0, WIDTH, HEIGHT)), alpha]))


def profile() -> bytes:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def with_adobe_transform(data: bytes, transform: int) -> bytes:
    position = data.index(b"Adobe") + 11
    return data[:position] + bytes([transform]) + data[position + 1 :]


def without_adobe(data: bytes) -> bytes:
    position = data.index(b"Adobe") - 4  # the marker and its length
    return data[:position] + data[position + 16 :]


def packed(values: np.ndarray, depth: int) -> bytes:
    """A row of values of so many bits each."""
    bits = (values[:, None] >> np.arange(depth)[::-1]) & 1
    return np.packbits(bits.astype(np.uint8)).tobytes()


def png(depth: int, colour_type: int, rows: list[bytes], *, interlaced: bool = False, **chunks: bytes) -> bytes:
    header = struct.pack(">IIBBBBB", WIDTH, HEIGHT, depth, colour_type, 0, 0, interlaced)
    content = zlib.compress(b"".join(b"\0" + row for row in rows))
    parts = [(b"IHDR", header), *((name.encode(), data) for name, data in chunks.items()), (b"IDAT", content)]
    return b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(*part) for part in [*parts, (b"IEND", b"")])


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def interlaced_png(pixels: np.ndarray, colour_type: int) -> bytes:
    passes = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
    rows = [row.tobytes() for x, y, dx, dy in passes for row in pixels[y::dy, x::dx]]
    return png(8, colour_type, rows, interlaced=True)


def bmp(
    depth: int,
    rows: np.ndarray | bytes,
    *,
    height: int = HEIGHT,
    palette: np.ndarray | None = None,
    masks: tuple[int, ...] = (),
    compression: int = 0,
    header_size: int = 40,
) -> bytes:
    """rows: [height, width, …] of bytes, or the content as it is in the file."""
    if not isinstance(rows, bytes):
        rows = b"".join(row.tobytes() + bytes(-row.nbytes % 4) for row in rows)
    table = struct.pack(f"<{len(masks)}I", *masks).ljust(header_size - 40, b"\0")  # a longer header has room for them
    table += b"" if palette is None else palette.tobytes()
    compression = 3 if masks else compression
    start = 14 + 40 + len(table)
    colours = 0 if palette is None else len(palette)
    header = struct.pack(
        "<IiiHHIIiiII", header_size, WIDTH, height, 1, depth, compression, len(rows), 2835, 2835, colours, 0
    )
    return b"BM" + struct.pack("<IHHI", start + len(rows), 0, 0, start) + header + table + rows
