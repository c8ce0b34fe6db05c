"""Label Studio's brush masks: bit-packed run lengths of RGBA bytes (the `rle-pack` format), nothing like COCO's.

Only `regions.py` uses this; inside, masks are COCO encodings.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

RUN_BITS = (3, 4, 8, 16)  # the four lengths of a run's length field that Label Studio's encoder chooses from
LONGEST_RUN = 1 << 16


def encode_brush(mask: NDArray[np.bool_]) -> list[int]:
    """Label Studio's brush encoding of a mask (h, w) bool: the very bytes its SDK gives for 0 and 255, but faster."""
    pixels = np.ascontiguousarray(mask, dtype=bool).reshape(-1)
    starts = np.concatenate([[0], np.flatnonzero(pixels[1:] != pixels[:-1]) + 1])
    runs = np.diff(np.concatenate([starts, [pixels.size]])) * 4  # a pixel is four equal bytes
    values = pixels[starts].astype(np.uint64) * 255
    pieces = (runs - 1) // LONGEST_RUN + 1  # a longer run goes as several
    lengths = np.full(int(pieces.sum()), LONGEST_RUN, dtype=np.uint64)
    lengths[np.cumsum(pieces) - 1] = runs - (pieces - 1) * LONGEST_RUN
    values = np.repeat(values, pieces)
    choice = np.searchsorted([1 << bits for bits in RUN_BITS], lengths)
    choice[np.repeat(pieces > 1, pieces)] = len(RUN_BITS) - 1  # as the SDK does, however short the last piece
    size = np.array(RUN_BITS, dtype=np.uint64)[choice]
    # One code: 1, two bits choosing the field, the length less one, the byte. Left-aligned in 32 bits, then packed.
    code = (((np.uint64(4) + choice.astype(np.uint64)) << size | (lengths - 1)) << np.uint64(8)) | values
    bits = size + np.uint64(11)
    aligned = (code << (np.uint64(32) - bits)).astype(">u4")
    unpacked = np.unpackbits(aligned.view(np.uint8).reshape(-1, 4), axis=1)
    body = unpacked[np.arange(32)[None, :] < bits[:, None]]
    head = f"{pixels.size * 4:032b}" + f"{7:05b}" + "".join(f"{bits - 1:04b}" for bits in RUN_BITS)
    packed = np.concatenate([np.frombuffer(head.encode(), dtype=np.uint8) - ord("0"), body])
    padding = np.zeros(8 - packed.size % 8, dtype=np.uint8)  # a whole byte when it fits already, as in the SDK
    return np.packbits(np.concatenate([packed, padding])).tolist()


def decode_brush(rle: Sequence[int], image_size: tuple[int, int]) -> NDArray[np.bool_]:
    """Mask (h, w) bool of Label Studio's brush encoding: where the alpha byte is not 0.

    Raises ValueError when it is damaged, or of an image of another size.
    """
    data = bytes(rle) + bytes(8)  # ValueError beyond 0..255; eight bytes so that the last read stays inside
    position, end = 0, len(rle) * 8

    def read(bits: int) -> int:
        nonlocal position
        if position + bits > end:
            raise ValueError("a brush mask: expected more bytes, got a truncated encoding")
        byte, offset = divmod(position, 8)
        position += bits
        return (int.from_bytes(data[byte : byte + 5], "big") >> (40 - offset - bits)) & ((1 << bits) - 1)

    total, expected = read(32), image_size[0] * image_size[1] * 4
    if total != expected:
        raise ValueError(f"a brush mask: expected {expected} bytes of RGBA for {image_size} (h, w) px, got {total}")
    word = read(5) + 1
    sizes = [read(4) + 1 for _ in range(4)]
    out = np.zeros(total, dtype=np.uint32)
    at = 0
    while at < total:
        repeated = read(1)
        stop = min(at + 1 + read(sizes[read(2)]), total)
        if repeated:
            out[at:stop] = read(word)
        else:
            out[at:stop] = [read(word) for _ in range(stop - at)]
        at = stop
    return (out.reshape(*image_size, 4)[:, :, 3] > 0).astype(bool)
