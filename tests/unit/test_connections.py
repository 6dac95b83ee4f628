"""Strangers make room for each other, never those who have shown a token for strangers."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from socketpool.server.http.connections import Connections

MOST = 6


class Line:
    """A connection that notes that it was closed."""

    def __init__(self) -> None:
        self.dropped = False
        self.busy = False

    def is_between_requests(self) -> bool:
        return not self.busy

    def drop(self) -> None:
        assert not self.dropped
        self.dropped = True


def test_the_stranger_who_came_first_goes_first() -> None:
    connections, lines = Connections(3), [Line() for _ in range(5)]
    connections.add(lines[0])
    connections.admit(lines[0])
    for line in lines[1:]:
        connections.add(line)
    assert [line.dropped for line in lines] == [False, True, True, False, False]


def test_known_ones_beyond_their_share_replace_one_that_waits_for_nothing() -> None:
    connections, lines = Connections(4), [Line() for _ in range(4)]
    lines[0].busy = True
    for line in lines:
        connections.add(line)
        connections.admit(line)
        if line is lines[2]:
            lines[2].busy = True
    assert [line.dropped for line in lines] == [False, True, False, True]


class ConnectionsMachine(RuleBasedStateMachine):
    """Connections come, show a token, and go."""

    def __init__(self) -> None:
        super().__init__()
        self.connections = Connections(MOST)
        self.strangers: list[Line] = []
        self.known: list[Line] = []

    def alive(self) -> list[Line]:
        self.strangers = [line for line in self.strangers if not line.dropped]
        self.known = [line for line in self.known if not line.dropped]
        return [*self.strangers, *self.known]

    @rule()
    def a_stranger_comes(self) -> None:
        known, full = list(self.known), len(self.alive()) == MOST
        oldest = self.strangers[0] if self.strangers else None
        line = Line()
        self.strangers.append(line)
        self.connections.add(line)
        assert not line.dropped, "who is new is let in"
        assert not any(line.dropped for line in known)
        assert oldest is None or oldest.dropped == full

    @precondition(lambda self: self.alive() and self.strangers)
    @rule(data=st.data(), busy=st.booleans())
    def one_shows_a_token(self, data: st.DataObject, busy: bool) -> None:
        line = data.draw(st.sampled_from(self.strangers))
        before = len(self.known)
        line.busy = busy
        self.strangers.remove(line)
        self.known.append(line)
        self.connections.admit(line)
        assert before < MOST // 2 or sum(line.dropped for line in self.known) == 1
        self.connections.admit(line)

    @precondition(lambda self: self.alive())
    @rule(data=st.data())
    def one_goes(self, data: st.DataObject) -> None:
        line = data.draw(st.sampled_from(self.alive()))
        (self.strangers if line in self.strangers else self.known).remove(line)
        self.connections.remove(line)
        self.connections.remove(line)

    @invariant()
    def there_are_never_too_many(self) -> None:
        assert len(self.alive()) <= MOST
        assert len(self.known) <= MOST // 2


TestConnections = ConnectionsMachine.TestCase
