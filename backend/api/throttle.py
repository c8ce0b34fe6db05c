"""Wrong tokens cost time: each makes the next attempt from there wait longer, and very many make everybody wait.

Nobody guesses a token (`backend/tokens.py`); this bounds the work and the lines of log that trying makes. It lives in
memory: a restart forgives.
"""

from __future__ import annotations

import ipaddress
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

FREE = 5  # wrong tokens of one address before it waits
LONGEST_S = 300.0
FREE_OVERALL = 50
LONGEST_OVERALL_S = 30.0  # short: who has a token must get in while others try
FORGOTTEN_S = 3600.0  # without any wrong token
ADDRESSES = 10_000  # remembered at most; the one that was wrong longest ago goes first


@dataclass
class _Count:
    wrong: int = 0
    last: float = 0.0

    def wait(self, moment: float, free: int, longest: float) -> float:
        """Seconds until the next attempt: 1 after the first wrong token too many, then twice as long each time."""
        if self.wrong < free or self._forgotten(moment):
            return 0.0
        return max(0.0, self.last + min(longest, 2.0 ** min(self.wrong - free, 30)) - moment)

    def add(self, moment: float) -> None:
        """One more wrong token."""
        self.wrong = 1 if self._forgotten(moment) else self.wrong + 1
        self.last = moment

    def _forgotten(self, moment: float) -> bool:
        return moment - self.last > FORGOTTEN_S


class Throttle:
    """Counts wrong tokens by address, and all together. Thread-safe."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._by_address: OrderedDict[str, _Count] = OrderedDict()
        self._overall = _Count()

    def wait_s(self, address: str) -> float:
        """Seconds that this address has to wait before its next attempt; 0: none."""
        with self._lock:
            moment = self._clock()
            own = self._by_address.get(_network(address), _Count())
            overall = self._overall.wait(moment, FREE_OVERALL, LONGEST_OVERALL_S)
            return max(overall, own.wait(moment, FREE, LONGEST_S))

    def wrong(self, address: str) -> None:
        """This address came with a wrong token."""
        with self._lock:
            name = _network(address)
            own = self._by_address.setdefault(name, _Count())
            self._by_address.move_to_end(name)
            for count in (own, self._overall):
                count.add(self._clock())
            while len(self._by_address) > ADDRESSES:
                self._by_address.popitem(last=False)

    def right(self, address: str) -> None:
        """This address came with a good token: its mistakes are forgiven."""
        with self._lock:
            self._by_address.pop(_network(address), None)


def _network(address: str) -> str:
    """The address; of IPv6 its /64, all of which one machine can have."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(found, ipaddress.IPv6Address):
        return str(found.ipv4_mapped or ipaddress.ip_network((found, 64), strict=False))
    return str(found)
