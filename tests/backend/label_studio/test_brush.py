"""Our brush encoding against the SDK's: the same bytes, both ways."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from label_studio_sdk.converter import brush as sdk

from backend.label_studio.brush import decode_brush, encode_brush

MASKS = arrays.arrays(
    dtype=bool,
    shape=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    elements=st.booleans(),
    fill=st.booleans(),
)


@settings(max_examples=150, deadline=None)
@given(MASKS)
def test_encoding_is_byte_for_byte_the_sdks(mask: np.ndarray) -> None:
    encoded = encode_brush(mask)
    assert encoded == sdk.mask2rle(mask.astype(np.uint8) * 255)
    assert (decode_brush(encoded, mask.shape) == mask).all()


@settings(max_examples=100, deadline=None)
@given(MASKS, st.integers(0, 2**32 - 1))
def test_decoding_reads_any_rgba_the_sdk_writes(mask: np.ndarray, seed: int) -> None:
    """The editor stores colours and soft edges, not only 0 and 255."""
    rgba = np.random.default_rng(seed).integers(0, 256, (*mask.shape, 4), dtype=np.uint8)
    rgba[..., 3] *= mask
    encoded = sdk.encode_rle(rgba.reshape(-1))
    expected = sdk.decode_rle(encoded).reshape(*mask.shape, 4)[..., 3] > 0
    assert (decode_brush(encoded, mask.shape) == expected).all()


def test_long_runs_are_split_as_the_sdk_does() -> None:
    for pixels in (1 << 14, (1 << 14) + 1, 1 << 15, 3 * (1 << 14) + 7):
        mask = np.ones((1, pixels), dtype=bool)
        assert encode_brush(mask) == sdk.mask2rle(mask.astype(np.uint8) * 255)
        assert decode_brush(encode_brush(mask), mask.shape).all()


def test_a_literal_series_is_read() -> None:
    # One pixel as one series of four literal bytes: 0, index 0, length - 1 = 3, then the bytes.
    bits = f"{4:032b}" + f"{7:05b}" + "".join(f"{n - 1:04b}" for n in (3, 4, 8, 16)) + "0" + "00" + "011"
    bits += "".join(f"{value:08b}" for value in (1, 2, 3, 9))
    bits += "0" * (-len(bits) % 8)
    assert decode_brush([int(bits[i : i + 8], 2) for i in range(0, len(bits), 8)], (1, 1)).all()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda rle: rle[: len(rle) // 2], "truncated"),
        (lambda rle: [], "truncated"),
        (lambda rle: [0, 0, 0, 9, *rle[4:]], "expected 1600 bytes"),
        (lambda rle: [999, *rle], "range"),
    ],
)
def test_damaged_encodings_are_refused(damage: object, message: str) -> None:
    rle = encode_brush(np.eye(20, dtype=bool))
    with pytest.raises(ValueError, match=message):
        decode_brush(damage(rle), (20, 20))  # type: ignore[operator]


def test_a_full_field_is_encoded_in_milliseconds() -> None:
    mask = np.zeros((1200, 1600), dtype=bool)
    for i in range(100):
        mask[110 * (i // 10) + 20 : 110 * (i // 10) + 90, 150 * (i % 10) + 20 : 150 * (i % 10) + 90] = True
    began = time.perf_counter()
    encoded = encode_brush(mask)
    assert time.perf_counter() - began < 0.5  # 15 ms idle
    assert (decode_brush(encoded, mask.shape) == mask).all()
