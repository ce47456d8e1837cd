"""What training and ranking tell and ask of whoever started them; outside a supervised job, nobody."""

from __future__ import annotations

from typing import NoReturn, Protocol


class Supervisor(Protocol):
    """Watches over one process of a job, as `launch.attempt.Attempt` does."""

    def asked_to_stop(self) -> int:
        """0 to stay; a higher number is more urgent. Processes hear at different times: they must agree on the highest."""
        ...

    def leave(self, asked: int) -> NoReturn:
        """End as asked. Every process calls it, with the agreed number, when all is saved."""
        ...

    def beat(self) -> None:
        """To be called at every step: the process gets on."""
        ...

    def check(self) -> None:
        """To be called before anything is written: a process whose job has been replaced ends here."""
        ...

    def saved(self, progress: int) -> None:
        """So many steps, or blocks, are on the disk."""
        ...


class Nobody:
    """The supervisor of a process that has none."""

    def asked_to_stop(self) -> int:
        return 0

    def leave(self, asked: int) -> NoReturn:
        raise SystemExit(asked)

    def beat(self) -> None: ...
    def check(self) -> None: ...
    def saved(self, progress: int) -> None: ...
