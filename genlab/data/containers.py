"""Image files as containers: the end of the picture in a file, and its completeness.

Decoders take a file as far as it goes. Cameras write more than one picture into a file, or a film behind it; programs
write megabytes of text. So a file is walked segment by segment before it is decoded.
"""

import re
import zlib
from collections.abc import Iterator

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
# Chunks that change what is seen. Pillow refuses a file for others that are large or malformed.
_ANCILLARY_OF_PICTURE = (b"tRNS", b"acTL", b"fcTL", b"fdAT", b"eXIf")
_TEXTS = (b"tEXt", b"zTXt", b"iTXt")
_TEXTS_OF_ORIENTATION = (b"Raw profile type exif\0", b"XML:com.adobe.xmp\0")
_MAX_TEXT_BYTES = 1 << 20  # inflated, as Pillow has it

# A marker with its code; in entropy-coded data come stuffed zeros and restarts, which end nothing.
_JPEG_MARKER = re.compile(rb"\xff+([\x02-\xcf\xd8-\xfe])")
_START, _END, _SCAN = 0xD8, 0xD9, 0xDA
# Tables, comments and application data; anything else behind the first scan is no part of a picture.
_BETWEEN_SCANS = frozenset({_END, _SCAN, 0xC4, 0xCC, 0xDB, 0xDC, 0xDD, 0xFE, *range(0xE0, 0xF0)})


class RefusedImage(Exception):  # noqa: N818 - the file is at fault, not the program
    """A file that cannot be used; the message is the reason alone."""


class UnreadableImage(RefusedImage):
    """A file that the system did not let us read, which may change without a change of the file."""


def picture_in(content: bytes) -> bytes:
    """Return the complete first picture of a file, without parts that decoders do not need; other formats unchanged.

    Raises:
        RefusedImage: The picture is truncated, or a checksum is wrong.
    """
    if content.startswith(_PNG_SIGNATURE):
        return _PNG_SIGNATURE + b"".join(_chunks_of_png(content))
    if content.startswith(b"\xff\xd8\xff"):
        return content[: _end_of_jpeg(content)]
    if content.startswith(b"RIFF") and content[8:12] == b"WEBP":
        end = 8 + int.from_bytes(content[4:8], "little")
        if len(content) < end:
            raise RefusedImage("is truncated")
        return content[:end]
    return content


def _chunks_of_png(content: bytes) -> Iterator[bytes]:
    """Yield the chunks of the picture: length, name, data, checksum."""
    start, name, texts = len(_PNG_SIGNATURE), b"", set(_TEXTS_OF_ORIENTATION)
    while name != b"IEND":
        end = start + 12 + int.from_bytes(content[start : start + 4])
        if end > len(content):
            raise RefusedImage("is truncated")
        name, data, checksum = content[start + 4 : start + 8], content[start + 8 : end - 4], content[end - 4 : end]
        if zlib.crc32(data, zlib.crc32(name)) != int.from_bytes(checksum):
            raise RefusedImage(f"has a bad checksum (in its chunk {name.decode('ascii', 'backslashreplace')})")
        is_critical = not name[0] & 0x20
        text = next((keyword for keyword in texts if data.startswith(keyword)), None) if name in _TEXTS else None
        if text is not None and _is_small(name, data[len(text) :]):
            texts.remove(text)
            yield content[start:end]
        elif is_critical or name in _ANCILLARY_OF_PICTURE:
            yield content[start:end]
        start = end


def _is_small(name: bytes, text: bytes) -> bool:
    """Return True if a text chunk of a PNG, without its keyword, is small enough for Pillow."""
    if name == b"zTXt":
        packed = text[1:]
    elif name == b"iTXt" and text[:1] == b"\1":
        packed = text[2:].split(b"\0", 2)[-1]
    else:
        return len(text) <= _MAX_TEXT_BYTES
    inflating = zlib.decompressobj()
    try:
        inflating.decompress(packed, _MAX_TEXT_BYTES)
    except zlib.error:
        return False
    return not inflating.unconsumed_tail


def _end_of_jpeg(content: bytes) -> int:
    """Return the position after the first end-of-image marker, that of the first picture."""
    position, has_scan = 2, False
    while (marker := _JPEG_MARKER.search(content, position)) is not None:
        code = marker[1][0]
        if code == _END:
            return marker.end()
        if code == _START or (has_scan and code not in _BETWEEN_SCANS):
            break
        has_scan = has_scan or code == _SCAN
        position = marker.end() + max(2, int.from_bytes(content[marker.end() : marker.end() + 2]))
    raise RefusedImage("is truncated")
