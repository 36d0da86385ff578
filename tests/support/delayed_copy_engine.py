"""A copy engine whose copies take as long as the test wants, and are torn while they last."""

from __future__ import annotations

from collections.abc import Sequence

from adpsgd_node.trainer.copy_engine import Copy, CopyEngine, Ticket


class DelayedTicket(Ticket):
    def __init__(self, copies: Sequence[Copy]) -> None:
        self._rest = [(destination.reshape(-1), source.reshape(-1)) for destination, source in copies]

    def advance(self, elements: int) -> None:
        """Copy `elements` more, with the values that stand in the source now."""
        while self._rest and elements > 0:
            destination, source = self._rest.pop(0)
            count = min(elements, destination.numel())
            destination[:count] = source[:count]
            elements -= count
            if count < destination.numel():
                self._rest.insert(0, (destination[count:], source[count:]))

    def done(self) -> bool:
        return not self._rest

    def wait(self) -> None:
        self.advance(sum(destination.numel() for destination, _ in self._rest))


class DelayedCopyEngine(CopyEngine):
    def __init__(self) -> None:
        self.tickets: list[DelayedTicket] = []
        self.closed = False

    def to_device(self, copies: Sequence[Copy]) -> Ticket:
        return self._start(copies)

    def to_host(self, copies: Sequence[Copy]) -> Ticket:
        return self._start(copies)

    def advance(self, elements: int) -> None:
        """Let every batch under way copy that many elements more."""
        for ticket in self.tickets:
            ticket.advance(elements)
        self.tickets = [ticket for ticket in self.tickets if not ticket.done()]

    def close(self) -> None:
        for ticket in self.tickets:
            ticket.wait()
        self.closed = True

    def _start(self, copies: Sequence[Copy]) -> Ticket:
        ticket = DelayedTicket(copies)
        self.tickets.append(ticket)
        return ticket
