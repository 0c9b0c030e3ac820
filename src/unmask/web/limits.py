"""How large, how long and how often a client's requests may be."""

from __future__ import annotations

import time
from collections import OrderedDict
from dataclasses import dataclass

_CLIENTS = 10_000
MINUTE = 60.0


@dataclass(frozen=True)
class Limits:
    """What a client may use.

    Args:
        size: bytes of one request.
        pixels: of one image.
        seconds: for one answer, and for a client to send its request.
        rate: requests a minute and client that cost work; 0 is no limit.
    """

    size: int = 10 << 20
    pixels: int = 25_000_000
    seconds: float = 30.0
    rate: int = 240

    @property
    def picture(self) -> int:
        """Bytes of the largest image in a request of the page, which sends it as text."""
        return int(0.7 * self.size)


class RefusedError(Exception):
    """A request that is refused.

    Args:
        status: the HTTP status.
        line: the reason, in one line.
    """

    def __init__(self, status: int, line: str) -> None:
        super().__init__(line)
        self.status = status


class RateLimiter:
    """Admits each client rate times a minute, in bursts of up to a quarter of that.

    It remembers a bounded number of clients, and forgets those it has not seen for longest.

    Args:
        rate: requests a minute and client; 0 is no limit.
    """

    def __init__(self, rate: int) -> None:
        self._rate = rate
        self._burst = max(1.0, rate / 4)
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def admit(self, client: str, now: float | None = None) -> float:
        """Return 0 and count a request, or the seconds after which one will be admitted.

        Args:
            client: its address.
            now: seconds of a monotonic clock, by default the system's.
        """
        if not self._rate:
            return 0.0
        now = time.monotonic() if now is None else now
        left, then = self._left.pop(client, (self._burst, now))
        left = min(self._burst, left + (now - then) * self._rate / MINUTE)
        admitted = left >= 1
        self._left[client] = (left - admitted, now)
        if len(self._left) > _CLIENTS:
            self._left.popitem(last=False)
        return 0.0 if admitted else (1 - left) * MINUTE / self._rate
