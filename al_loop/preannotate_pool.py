"""Every image of the pool, as the active pair sees it, into SQL."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from al_loop.context import Loop
from backend.errors import CellloopError
from backend.serving import PairCache, Served, predict_and_store
from db import predictions
from db.models import Image

log = logging.getLogger("cellloop.preannotate")


def preannotate_pool(loop: Loop, on_progress: Callable[[int, int], None] = lambda done, total: None) -> int:
    """Predict what the active pair has not predicted yet; how many images. Killed and repeated, it goes on.

    An image that cannot be read is logged and left out; the others are predicted. Raises NoTrainedModel.
    """
    served = PairCache(loop.database, loop.store, loop.settings.device).current()
    with loop.database.session(read_only=True) as session:
        missing = predictions.missing(session, served.row.id)
    return preannotate_images(loop, served, missing, on_progress)


def preannotate_images(
    loop: Loop, served: Served, images: Sequence[Image], on_progress: Callable[[int, int], None]
) -> int:
    """Predict these images by this pair; how many could be."""
    predicted = 0
    for done, image in enumerate(images, start=1):
        try:
            predict_and_store(loop.database, loop.store, served, image)
            predicted += 1
        except CellloopError as error:
            log.warning("image %s is left out of the pre-annotations: %s", image.name, error)
        with loop.database.session() as session:
            predictions.fulfil(session, image.id)
        on_progress(done, len(images))
    return predicted
