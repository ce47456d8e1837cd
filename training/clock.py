"""Progress of training for people: a bar on a terminal, a plain line every half minute elsewhere."""

from __future__ import annotations

import math
import time

from tqdm import tqdm

SECONDS_BETWEEN_LINES = 30.0


class Clock:
    """Counts steps and the time they take, data included; validations and saves are left out. Only the main process is shown."""

    def __init__(self, start: int, steps: int, shown: bool) -> None:
        self._bar = tqdm(total=steps, initial=start, unit="step", disable=None if shown else True)
        self._plain = shown and self._bar.disable
        self._steps, self._printed = steps, -math.inf
        self._since, self._seconds, self._counted = time.monotonic(), 0.0, 0

    def __enter__(self) -> Clock:
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.close()

    def step(self, done: int, loss: float) -> None:
        """Count a step that has just ended and show it."""
        now = time.monotonic()
        self._seconds += now - self._since
        self._counted += 1
        self._since = now
        self._bar.set_postfix_str(f"loss {loss:.4f}", refresh=False)
        self._bar.update()
        if self._plain and (now - self._printed > SECONDS_BETWEEN_LINES or done == self._steps):
            self._printed = now
            minutes = (self._steps - done) / self._rate() / 60
            print(
                f"step {done} of {self._steps}, loss {loss:.4f}, {self._rate():.2f} steps/s, {minutes:.0f} min left", flush=True
            )

    def speed(self) -> float:
        """Steps a second since the last call."""
        rate = self._rate()
        self._seconds, self._counted = 0.0, 0
        return rate

    def go_on(self) -> None:
        """The next step starts now."""
        self._since = time.monotonic()

    def _rate(self) -> float:
        return self._counted / max(self._seconds, 1e-9)
