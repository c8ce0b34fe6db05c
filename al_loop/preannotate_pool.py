"""Every image of the pool, as the active pair sees it, into SQL."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from al_loop.context import Loop
from backend.errors import CellloopError, FileStoreUnavailable
from backend.logs import about
from backend.serving import PairCache, Served, active_pair, predict_and_store
from db import predictions
from db.answers import ServingPair
from db.errors import NotFound
from db.models import Image

log = logging.getLogger("cellloop.preannotate")


def waiting(loop: Loop) -> tuple[ServingPair | None, Sequence[Image]]:
    """The active pair, None before there is one, and the images of the pool that it has not predicted yet."""
    pair = active_pair(loop.database)
    if pair is None:
        return None, []
    with loop.database.session(read_only=True) as session:
        return pair, predictions.missing(session, pair.id)


def preannotate_pool(loop: Loop, on_progress: Callable[[int, int], None] = lambda done, total: None) -> int:
    """Predict what the active pair has not predicted yet; how many images. Killed and repeated, it goes on.

    An image that cannot be read is logged and left out; the others are predicted. Raises NoTrainedModel, and
    FileStoreUnavailable: then no image is at fault.
    """
    pairs = PairCache(loop.database, loop.store, loop.settings.device)
    pair, missing = waiting(loop)
    if pair is None:
        pairs.current()  # says what to do
    if pair is None or not missing:
        return 0  # without loading anything
    return preannotate_images(loop, pairs.of(pair), missing, on_progress)


def preannotate_images(
    loop: Loop, served: Served, images: Sequence[Image], on_progress: Callable[[int, int], None]
) -> int:
    """Predict these images by this pair; how many could be. Raises FileStoreUnavailable."""
    predicted = 0
    for done, image in enumerate(images, start=1):
        with about(image=image.id):
            try:
                predict_and_store(loop.database, loop.store, served, image)
                predicted += 1
            except FileStoreUnavailable:
                raise
            except (CellloopError, NotFound) as error:  # not found: forgotten meanwhile
                log.warning("image %s is left out of the pre-annotations: %s", image.name, error)
        with loop.database.session() as session:
            predictions.fulfil(session, image.id)
        on_progress(done, len(images))
    return predicted
