"""Who has the lock of a session, and who waits for it: plain data, for stores without scripts."""

from __future__ import annotations

from dataclasses import dataclass, replace

from .base import ASK_AGAIN, PATIENCE


@dataclass(frozen=True, slots=True)
class Turns:
    """The lock of one session. Moments are milliseconds since 1970."""

    holder: str = ""
    until: int = 0
    """When the holder's lease ends."""
    waiting: tuple[tuple[str, int], ...] = ()
    """Tickets in the order of arrival, each with when it is passed over."""

    def held_by(self, ticket: str, now: int) -> bool:
        return self.holder == ticket and now < self.until

    def at(self, now: int) -> Turns:
        """The same without what is over by now."""
        return Turns(
            self.holder if now < self.until else "",
            self.until,
            tuple(place for place in self.waiting if place[1] >= now),
        )

    def asked(self, ticket: str, now: int, lease: int) -> Turns:
        """After ``ticket`` asked for the lock: it has it, or waits."""
        turns = self.at(now)
        if turns.holder == ticket:
            return turns
        if not turns.holder and turns.next in ("", ticket):
            return replace(turns.without(ticket), holder=ticket, until=now + lease)
        if any(ticket == other for other, _ in turns.waiting):
            places = tuple(
                (other, now + PATIENCE if other == ticket else alive)
                for other, alive in turns.waiting
            )
        else:
            places = (*turns.waiting, (ticket, now + PATIENCE))
        return replace(turns, waiting=places)

    def ask_again(self, ticket: str, now: int) -> int:
        """Milliseconds after which one who waits asks again: who is next, when the lease ends."""
        if self.holder and self.next == ticket:
            return min(self.until - now + 1, ASK_AGAIN)
        return ASK_AGAIN

    def left(self, ticket: str, now: int) -> Turns:
        """After ``ticket`` gave back the lock, or its place."""
        turns = self.at(now).without(ticket)
        return replace(turns, holder="") if turns.holder == ticket else turns

    def without(self, ticket: str) -> Turns:
        return replace(self, waiting=tuple(place for place in self.waiting if place[0] != ticket))

    @property
    def next(self) -> str:
        """Whose turn it is when the lock is free; empty where nobody waits."""
        return self.waiting[0][0] if self.waiting else ""
