"""A token bucket: full it lets a burst through, and it fills at the rate that is allowed for good."""

from __future__ import annotations


class Bucket:
    """At most `burst` tokens, of which `per_second` come back every second; each request takes one."""

    def __init__(self, *, per_second: float, burst: float, now: float) -> None:
        self.per_second = per_second
        self.burst = burst
        self._tokens = burst
        self._at = now

    def resize(self, *, per_second: float, burst: float, now: float) -> None:
        """Change what is allowed from now on; what was earned before is kept, as far as it fits."""
        self._fill(now)
        self.per_second, self.burst = per_second, burst
        self._tokens = min(self._tokens, burst)

    def take(self, now: float) -> float:
        """Take a token and return 0; or take none, and return the seconds until there is one."""
        self._fill(now)
        if self._tokens >= 1:
            self._tokens -= 1
            return 0.0
        return (1 - self._tokens) / self.per_second

    def left(self, now: float) -> int:
        """Return how many requests could be made at once."""
        self._fill(now)
        return int(self._tokens)

    def full_in(self, now: float) -> float:
        """Return the seconds until the bucket is full."""
        self._fill(now)
        return (self.burst - self._tokens) / self.per_second

    def _fill(self, now: float) -> None:
        self._tokens = min(self.burst, self._tokens + max(0.0, now - self._at) * self.per_second)
        self._at = now
