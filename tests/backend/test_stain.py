"""Optical density of a field."""

from __future__ import annotations

import numpy as np
import pytest

from backend.stain import stain_of


def test_density_is_the_logarithm_of_how_much_light_is_taken_away() -> None:
    image = np.full((64, 80, 3), 255, dtype=np.uint8)
    image[..., 1] = 127  # half the light
    image[::8, :, 2] = 0
    red, green, blue, sd_red, sd_green, sd_blue = stain_of(image)
    assert (red, sd_red) == (0.0, 0.0)
    assert green == pytest.approx(np.log10(2))
    assert sd_green == pytest.approx(0, abs=1e-9)
    assert blue == pytest.approx(np.log10(256) / 2)  # every other row that is looked at
    assert sd_blue == pytest.approx(np.log10(256) / 2)
