"""Embeddings and codes: distances kept, the same for ever, and like cells alike."""

from __future__ import annotations

import numpy as np
import pytest

from al_loop.render import render_smear
from backend.embed import CODE_BITS, EMBEDDING_SIZE, codes, embed
from backend.instances import CLASS_INDEX, INFECTED_INDEX
from backend.pairs import load_pair


def test_every_embedding_has_unit_length_and_nothing_has_none() -> None:
    features = np.random.default_rng(0).normal(size=(50, 128)).astype(np.float32)
    features[7] = 0
    found = embed(features)
    assert (found.shape, found.dtype) == ((50, EMBEDDING_SIZE), np.float32)
    np.testing.assert_allclose(np.linalg.norm(np.delete(found, 7, axis=0), axis=1), 1, atol=1e-6)
    assert not found[7].any()
    assert embed(np.zeros((0, 128), dtype=np.float32)).shape == (0, EMBEDDING_SIZE)
    np.testing.assert_allclose(embed(3.0 * features), found, atol=1e-6)  # direction, not size


@pytest.mark.parametrize("channels", [128, 256])
def test_angles_survive_the_projection(channels: int) -> None:
    """Johnson and Lindenstrauss: of 32 numbers, a cosine is off by some (1 - cos^2) / sqrt(32)."""
    rng = np.random.default_rng(1)
    one = rng.normal(size=(400, channels)).astype(np.float32)
    other = one + rng.uniform(0, 2, (400, 1)).astype(np.float32) * rng.normal(size=one.shape).astype(np.float32)
    true = (one * other).sum(axis=1) / np.linalg.norm(one, axis=1) / np.linalg.norm(other, axis=1)
    kept = (embed(one) * embed(other)).sum(axis=1)
    assert np.abs(kept - true).mean() < 0.1
    assert abs((kept - true).mean()) < 0.03


def test_codes_differ_as_often_as_the_angle_says() -> None:
    """SimHash: each bit of two codes differs with probability angle / pi."""
    rng = np.random.default_rng(2)
    one = embed(rng.normal(size=(3000, 128)).astype(np.float32))
    near = one + 0.05 * rng.normal(size=one.shape) / np.sqrt(EMBEDDING_SIZE)
    angle = np.arccos(np.clip((one * near).sum(axis=1) / np.linalg.norm(near, axis=1), -1, 1)).mean()
    differing = np.mean([bin(a ^ b).count("1") for a, b in zip(codes(one), codes(near), strict=True)]) / CODE_BITS
    assert differing == pytest.approx(angle / np.pi, rel=0.35)


def test_codes_fit_two_bytes_and_use_all_their_bits() -> None:
    found = codes(embed(np.random.default_rng(3).normal(size=(5000, 128)).astype(np.float32)))
    assert found.dtype == np.uint16
    assert found.max() < 2**CODE_BITS
    bits = (found[:, None] >> np.arange(CODE_BITS)) & 1
    assert ((bits.mean(axis=0) > 0.05) & (bits.mean(axis=0) < 0.95)).all()
    assert codes(np.zeros((0, EMBEDDING_SIZE), dtype=np.float32)).shape == (0,)


def test_stored_embeddings_stay_true() -> None:
    """Another projection or other hyperplanes would silently make everything stored incomparable."""
    features = (np.arange(4 * 128).reshape(4, 128) % 17 - 8).astype(np.float32)
    found = embed(features)
    np.testing.assert_allclose(found[0, :6], [-0.1493, 0.0037, -0.0952, -0.0962, 0.0038, 0.2606], atol=2e-4)
    assert codes(found).tolist() == [804, 3094, 685, 3205]


def test_cells_that_look_alike_are_of_one_kind() -> None:
    """With the weights we ship: the nearest of an infected cell, in another field, is mostly infected."""
    sight = load_pair().all_cells.look
    fields = [render_smear(seed, (480, 640), 30, infected=0.4) for seed in (1, 2, 3)]
    embeddings = np.concatenate([sight(field.image).embeddings(field.cells.boxes) for field in fields])
    labels = np.concatenate([field.cells.labels for field in fields])
    field = np.repeat(np.arange(3), [len(each.cells) for each in fields])
    likeness = np.where(field[:, None] == field[None, :], -2.0, embeddings @ embeddings.T)
    infected = np.isin(labels, INFECTED_INDEX)
    assert infected[likeness.argmax(axis=1)][infected].mean() > 0.7
    assert (labels == CLASS_INDEX["red blood cell"]).sum() > infected.sum()
