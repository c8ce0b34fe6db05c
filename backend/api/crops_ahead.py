"""Crops of the cells that wait, drawn before anybody asks: decoding a field takes longer than an expert should wait."""

from __future__ import annotations

import logging
import threading

from sqlalchemy.exc import DBAPIError

from backend.api.crops import draw_before_asked
from backend.api.deps import Server
from backend.errors import CellloopError
from db import cell_tasks, queue
from db.models import Way

log = logging.getLogger("cellloop.crops")

MOST = 256  # of the queue's head: what 64 experts answer in a quarter of a minute
LOOK_S = 2.0  # between two looks at the queue
REST_S = 0.01  # after each crop: whoever asks for something goes first


class CropsAhead(threading.Thread):
    """Runs beside the server until it stops. Trouble with one cell is told, and no other waits for it."""

    def __init__(self, server: Server) -> None:
        super().__init__(name="crops ahead", daemon=True)
        self.server = server
        self._seen: set[int] = set()  # items of the head that were looked at

    def run(self) -> None:
        """Look at the queue now and then."""
        while not self.server.stopping.wait(LOOK_S):
            try:
                self.look()
            except DBAPIError as error:
                log.warning("crops are drawn later: the database failed: %s", error.orig)

    def look(self) -> int:
        """Draw what is missing of the queue's head; how many crops."""
        with self.server.database.session(read_only=True) as session:
            head = [item.id for item in queue.pending(session, Way.cell, MOST)]
        drawn = 0
        for item_id in head:
            if item_id not in self._seen and not self.server.stopping.wait(REST_S):
                drawn += self._draw(item_id)
        self._seen = set(head)
        return drawn

    def _draw(self, item_id: int) -> bool:
        with self.server.database.session(read_only=True) as session:
            asked = cell_tasks.asked(session, item_id)
        try:
            return asked is not None and draw_before_asked(self.server, asked)
        except (CellloopError, OSError) as error:
            log.warning("the crop of item %d is not drawn ahead: %s", item_id, error)
            return False
