"""Packed files (.gz, .bz2, .xz) as streams of what they hold."""

import io
import lzma
import zlib
from bz2 import BZ2Decompressor
from collections.abc import Callable, Iterator
from typing import Any

UNREADABLE = (OSError, EOFError, lzma.LZMAError, zlib.error)
"""What reading a missing, cut or damaged file raises."""
PACKED: dict[str, tuple[Callable[[], Any], int]] = {
    ".gz": (lambda: zlib.decompressobj(wbits=31), 1),
    ".bz2": (BZ2Decompressor, 0),
    ".xz": (lzma.LZMADecompressor, 4),
}
"""For each ending, what unpacks one stream, and the unit of the zeros that may follow a stream; 0: none may."""
PACKED_CHUNK_BYTES = 1 << 16


def unpacked(stream: io.BufferedReader, suffix: str) -> io.BufferedReader:
    """Returns the content of a packed file as a stream; the stream itself where the ending of its name is another."""
    if suffix not in PACKED:
        return stream
    return io.BufferedReader(_Chunks(_unpack(stream, *PACKED[suffix])))


class _Chunks(io.RawIOBase):
    """Chunks of bytes as a stream."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self.chunks = chunks
        self.ready = memoryview(b"")

    def readable(self) -> bool:
        """Returns True."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fills a buffer from the chunk that is being read; returns the number of bytes, 0 at the end."""
        while not self.ready:
            chunk = next(self.chunks, None)
            if chunk is None:
                return 0
            self.ready = memoryview(chunk)
        count = min(len(buffer), len(self.ready))
        buffer[:count] = self.ready[:count]
        self.ready = self.ready[count:]
        return count


def _unpack(stream: io.BufferedReader, new_decompressor: Callable[[], Any], padding_unit: int) -> Iterator[bytes]:
    """Yields what a packed file holds: all its streams, one after the other.

    The standard library's readers end silently at a second stream of .bz2 and .xz whose first bytes are damaged.
    """
    decompressor = new_decompressor()
    is_between = False
    num_zeros = 0  # since the last stream
    while chunk := stream.read(PACKED_CHUNK_BYTES):
        while chunk:
            if is_between:
                rest = chunk.lstrip(b"\0") if padding_unit else chunk
                num_zeros += len(chunk) - len(rest)
                if not rest:
                    break
                _require_whole_padding(num_zeros, padding_unit)
                chunk, decompressor, num_zeros = rest, new_decompressor(), 0
            yield decompressor.decompress(chunk)
            is_between = decompressor.eof
            chunk = decompressor.unused_data
    if not is_between:
        raise EOFError("it ends before the end of its packed data")
    _require_whole_padding(num_zeros, padding_unit)


def _require_whole_padding(num_zeros: int, unit: int) -> None:
    if num_zeros and num_zeros % unit:
        raise OSError(f"{num_zeros} zeros follow its packed data; allowed: multiples of {unit}")
