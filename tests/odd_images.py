"""Image files of every odd kind, for tests."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
from PIL import Image

RNG = np.random.default_rng(0)
SMOOTH = np.kron(RNG.integers(0, 256, (4, 6, 3)), np.ones((10, 10, 1))).astype(np.uint8)
COLOUR = Image.fromarray(np.clip(SMOOTH + RNG.normal(0, 9, SMOOTH.shape), 0, 255).astype(np.uint8))
"""60 x 40 pixels."""


def file_of(image: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def turned(orientation: int, kind: str = "JPEG") -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return file_of(COLOUR, kind, exif=exif)


def bomb() -> bytes:
    """A PNG of a few bytes that asks for 100,000 x 100,000 pixels."""
    header = b"IHDR" + struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + struct.pack(">I", 13)
        + header
        + struct.pack(">I", zlib.crc32(header))
        + b"\0\0\0\0IDAT\x35\xaf\x06\x1e"
    )


JPEG = file_of(COLOUR, "JPEG", quality=90)
PNG = file_of(COLOUR, "PNG")
HALF = JPEG[: len(JPEG) // 2]
FRAMES = [COLOUR, COLOUR.rotate(180)]

GOOD = {
    "jpeg": JPEG,
    "progressive": file_of(COLOUR, "JPEG", progressive=True),
    "restart markers": file_of(COLOUR, "JPEG", restart_marker_blocks=1),
    "grey jpeg": file_of(COLOUR.convert("L"), "JPEG"),
    "cmyk": file_of(COLOUR.convert("CMYK"), "JPEG"),
    "grey all over": file_of(Image.new("RGB", (60, 40), (128, 128, 128)), "JPEG"),
    "something after the end": JPEG + b"\0" * 100,
    "png": PNG,
    "palette": file_of(COLOUR.convert("P"), "PNG"),
    "palette with transparency": file_of(COLOUR.convert("P"), "PNG", transparency=3),
    "alpha": file_of(COLOUR.convert("RGBA"), "PNG"),
    "grey and alpha": file_of(COLOUR.convert("LA"), "PNG"),
    "black and white": file_of(COLOUR.convert("1"), "PNG"),
    "16 bit": file_of(Image.fromarray(np.arange(2400, dtype=np.uint16).reshape(40, 60) * 27), "PNG"),
    "turned": turned(3),
    "mirrored": turned(2),
    "animated gif": file_of(FRAMES[0], "GIF", save_all=True, append_images=FRAMES[1:]),
    "animated webp": file_of(FRAMES[0], "WEBP", save_all=True, append_images=FRAMES[1:]),
    "animated png": file_of(FRAMES[0], "PNG", save_all=True, append_images=FRAMES[1:]),
    "multi-picture": file_of(FRAMES[0], "MPO", save_all=True, append_images=FRAMES[1:]),
    "tiff": file_of(COLOUR, "TIFF"),
    "bmp": file_of(COLOUR, "BMP"),
    "webp": file_of(COLOUR, "WEBP"),
}
"""All of 60 x 40 pixels, and whole."""

SIDEWAYS = {f"turned {orientation}": turned(orientation) for orientation in (5, 6, 7, 8)}
"""To be shown with 40 x 60 pixels."""

BAD = {
    "half": (HALF, "truncated (a JPEG without its end marker)"),
    "half and zeros": (HALF + b"\0" * len(HALF), "truncated (a JPEG without its end marker)"),
    "half and an end marker": (HALF + b"\xff\xd9", "truncated (a JPEG whose scan ends before the picture does)"),
    "half of a CMYK": (GOOD["cmyk"][:1500] + b"\xff\xd9", "truncated (a JPEG whose scan ends before the picture does)"),
    "half, turned": (turned(3)[:1000] + b"\xff\xd9", "truncated (a JPEG whose scan ends before the picture does)"),
    "half a png": (PNG[: len(PNG) // 2], "cannot be decoded (image file is truncated"),
    "a png without its end": (PNG[:-12], "cannot be decoded (truncated PNG file)"),
    "a png with a changed byte": (PNG[:2000] + bytes([PNG[2000] ^ 1]) + PNG[2001:], "cannot be decoded ("),
    "half a gif": (GOOD["animated gif"][:1500], "cannot be decoded ("),
    "half a webp": (GOOD["webp"][:500], "cannot be decoded ("),
    "half a tiff": (GOOD["tiff"][:3000], "cannot be decoded ("),
    "zero bytes": (b"", "empty file"),
    "only zeros": (b"\0" * 5000, "nothing but zero bytes"),
    "a web page": (b"<html>404</html>", "not a whole image of a kind that is decoded here (it begins with b'<html>404</html>')"),
    "heic": (b"\0\0\0\x18ftypheic" + b"\0" * 50, "HEIC, which Pillow does not decode; convert it to JPEG"),
    "postscript": (
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n",
        "not a whole image of a kind that is decoded here",
    ),
    "a bomb": (bomb(), "cannot be decoded (huge: more than 89,478,485 pixels)"),
    "32 bit": (file_of(Image.new("F", (60, 40), 0.5), "TIFF"), "cannot be decoded (pixels of 32 bits (mode F))"),
}
"""And the reason that is given."""
