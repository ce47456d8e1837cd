"""Whether an image file is whole. Decoders pass over much of what a broken download leaves, and show grey where nothing came."""

from __future__ import annotations

import re
from io import BytesIO

from PIL import Image

from corpora.images import Picture, decode, decode_from

MARKER = re.compile(rb"\xff+([^\x00\xff\xd0-\xd7])")
"""A JPEG marker other than those that stand inside a scan."""
END, SCAN, ALONE = 0xD9, 0xDA, 0x01
UNFILLED = {(128, 128, 128), (63, 63, 63), (64, 64, 64)}
"""What libjpeg gives where the bytes ran out, in RGB; the latter two come from CMYK."""
FILLING = bytes(number * number * 89 % 251 for number in range(1024))
"""Bytes of all kinds but 0xff, of which a decoder that lacks some makes a picture other than grey."""
HEIC = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"}


def verified(data: bytes, least: int = 1) -> Picture:
    """The picture (`decode_from`) of a file that is whole; ValueError with the reason, in a few words, if it is not.

    What no decoder can see stays unseen: bytes that changed inside the scan of a JPEG, which has no checksums, and a progressive
    JPEG that lacks its last scans and yet has an end marker.
    """
    if not data:
        raise ValueError("empty file")
    jpeg = data.startswith(b"\xff\xd8")
    if jpeg and not data.endswith(b"\xff\xd9"):
        _jpeg_end(data)
    try:
        picture = decode_from(data, least)
        if data.startswith(b"\x89PNG"):
            with Image.open(BytesIO(data), formats=("PNG",)) as image:
                image.verify()  # the checksums of all chunks, some of which decoding passes over
    except Image.UnidentifiedImageError:
        raise ValueError(_stranger(data)) from None
    except (OSError, ValueError, SyntaxError) as error:
        raise ValueError(f"cannot be decoded ({error})") from None
    if jpeg and _starved(data, picture.pixels):
        raise ValueError("truncated (a JPEG whose scan ends before the picture does)")
    return picture


def _stranger(data: bytes) -> str:
    """What a file may be instead of an image."""
    if data[4:8] == b"ftyp" and data[8:12] in HEIC:
        return "HEIC, which Pillow does not decode; convert it to JPEG"
    if not data.strip(b"\0"):
        return "nothing but zero bytes"
    return f"not a whole image of a kind that is decoded here (it begins with {data[:16]!r})"


def _jpeg_end(data: bytes) -> int:
    """Where the end marker of a JPEG stands; ValueError if it has none, as a file that was not downloaded to its end."""
    at = 2
    while found := MARKER.search(data, at):
        code = found[1][0]
        if code == END:
            return found.start()
        at = found.end()
        if code not in (SCAN, ALONE):  # the scan goes to the next marker, other segments tell their length
            at += int.from_bytes(data[at : at + 2], "big")
    raise ValueError("truncated (a JPEG without its end marker)")


def _starved(data: bytes, picture: Image.Image) -> bool:
    """Whether the decoder of a JPEG ran out of bytes before the end marker: it then fills up with grey and says nothing.

    Where the last corner is of just that grey, more bytes are put before the marker. They change the picture only if it lacked some.
    """
    right, bottom = picture.width - 1, picture.height - 1
    turned = b"Exif\0" in data[:65536]
    corners = [(right, bottom), (0, 0), (right, 0), (0, bottom)] if turned else [(right, bottom)]
    if not any(picture.getpixel(corner) in UNFILLED for corner in corners):
        return False
    end = _jpeg_end(data)
    return decode(data[:end] + FILLING + data[end:]).tobytes() != decode(data).tobytes()
