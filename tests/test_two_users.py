"""Two persons, one store: whatever the one presents, and however they come, they get nothing of
what the other has said, and nothing that they say gets into the other's conversation.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from channels.layers import channel_layers
from django.core.cache import caches

from django_convstate import conversations
from django_convstate.ids import new_id
from django_convstate.tokens import new_token, read_token
from tests.support.outage import Place, PlaceWithOutage
from tests.support.people import TRANSPORTS, Person, Seen, Users, use_people
from tests.support.servers import wait_until
from tests.support.tabs import IN_MEMORY

SECRET = "canary-5d1e"  # in each text of Olga, and in no other
STRANGE = "by the other"
BOTH = (None, "mallory")  # who the other is: not logged in, or another user


@dataclass
class Case:
    """What has happened before the other comes."""

    olga: Person
    other: Person
    id: str  # of Olga's conversation
    is_there: bool = True  # whether it can still be read, by Olga

    def by_token_of_absent(self) -> Person:
        """Return one who presents the same as the other does, but of a conversation that was never
        there."""
        twin = self.other.twin()
        if (token := read_token(twin.token)) is not None:
            owner = "1" if token.is_owned else None
            twin.token = new_token(new_id(), owner).signed(unsaved=False)
        return twin


def _olga() -> Person:
    olga = Person("olga")
    olga.say("http", f"{SECRET} first")
    return olga


def _other(name: str | None, token: str) -> Person:
    other = Person(name)
    other.token = token
    return other


def absent(name: str | None) -> Case:
    olga = _olga()
    token = new_token(new_id(), "1").signed(unsaved=False)
    return Case(olga, _other(name, token), olga.id)


def others(name: str | None) -> Case:
    olga = _olga()
    return Case(olga, _other(name, olga.token), olga.id)


def claimed_since(name: str | None) -> Case:
    """By the token from before Olga's login, which has no digest of an owner."""
    olga = Person()
    olga.say("http", f"{SECRET} first")
    other = _other(name, olga.token)
    olga.log_in("olga")
    olga.say("http", f"{SECRET} logged in")
    return Case(olga, other, olga.id)


def expired(name: str | None) -> Case:
    olga = _olga()
    conversations.touch(olga.id, 0.05)
    wait_until(lambda: not conversations.exists(olga.id))
    return Case(olga, _other(name, olga.token), olga.id, is_there=False)


def deleted(name: str | None) -> Case:
    olga = _olga()
    conversations.delete(olga.id)
    return Case(olga, _other(name, olga.token), olga.id, is_there=False)


def planted(name: str | None) -> Case:
    """The other's own in the browser of Olga, who is logged in."""
    other = Person()
    other.say("http", "planted")
    if name is not None:
        other.log_in(name)
        other.say("http", "planted")
    olga = Person("olga")
    olga.token = other.token
    olga.say("http", f"{SECRET} first")
    assert olga.id != other.id
    return Case(olga, other, olga.id)


def planted_before_login(name: str | None) -> Case:
    other = Person()
    other.say("http", "planted")
    olga = Person()
    olga.token = other.token
    olga.log_in("olga")
    olga.say("http", f"{SECRET} first")
    if name is not None:
        other.log_in(name)
    return Case(olga, other, olga.id)


def unsaved_planted_before_login(name: str | None) -> Case:
    """That of a websocket in which nothing was said."""
    other = Person()
    other.look("websocket")
    olga = Person()
    olga.token = other.token
    olga.log_in("olga")
    olga.say("http", f"{SECRET} first")
    if name is not None:
        other.log_in(name)
    return Case(olga, other, olga.id)


def copied_before_logout(name: str | None) -> Case:
    olga = _olga()
    token = olga.token
    olga.log_out()
    other = _other(name, token)
    olga = _other("olga", token)
    return Case(olga, other, olga.id)


def session_ended_by_new_password(name: str | None) -> Case:
    """All of Olga's cookies, copied before she changed her password."""
    olga = _olga()
    other = olga.twin()
    Users.named("olga").password = "changed"
    if name is not None:
        other.log_in(name)
    return Case(_other("olga", olga.token), other, olga.id)


def shared_browser(name: str | None) -> Case:
    """After a logout."""
    olga = _olga()
    other, token = olga, olga.token
    other.log_out()
    if name is not None:
        other.log_in(name)
    olga = _other("olga", token)
    return Case(olga, other, olga.id)


def shared_browser_without_logout(name: str | None) -> Case:
    """Where the session is over; the cookie of the conversation is still there."""
    olga = _olga()
    other, token = olga, olga.token
    del other.cookies["sessionid"]
    if name is not None:
        other.log_in(name)
    olga = _other("olga", token)
    return Case(olga, other, olga.id)


PRESENTED: list[Callable[[str | None], Case]] = [
    absent,
    others,
    claimed_since,
    expired,
    deleted,
    planted,
    planted_before_login,
    unsaved_planted_before_login,
    copied_before_logout,
    session_ended_by_new_password,
    shared_browser,
    shared_browser_without_logout,
]


PLACES = ["locmem", "cache", "redis", "outage, known", "outage, unknown"]
# How the other comes, where: all of it in memory, and of the rest what differs most.
WAYS = [
    pytest.param(
        place,
        transport,
        marks=[] if place == "locmem" or transport in ("http", "websocket") else pytest.mark.slow,
    )
    for place in PLACES
    for transport in TRANSPORTS
]


@pytest.fixture
def place(request: pytest.FixtureRequest, settings: Any) -> Iterator[Place]:
    use_people(settings)
    settings.CHANNEL_LAYERS = IN_MEMORY
    name = request.param
    if name.startswith("outage"):
        server = request.getfixturevalue("stoppable")
        place: Place = PlaceWithOutage(settings, server, is_known=name == "outage, known")
    else:
        if name == "redis":
            request.getfixturevalue("valkey")
        place = Place(settings, name, "django_redis" if name == "redis" else "default")
    yield place
    place.clear()
    channel_layers.backends = {}
    caches["default"].clear()


@pytest.mark.parametrize("name", BOTH, ids=["not logged in", "another user"])
@pytest.mark.parametrize("presented", PRESENTED, ids=lambda presented: presented.__name__)
@pytest.mark.parametrize(("place", "transport"), WAYS, indirect=["place"])
def test_nothing_is_shown_and_nothing_gets_in(
    place: Place,
    transport: str,
    presented: Any,
    name: str | None,
    caplog: pytest.LogCaptureFixture,
) -> None:
    case = presented(name)
    olga, other, absent = case.olga, case.other, case.by_token_of_absent()

    def is_hidden_in(seen: Seen) -> bool:
        return SECRET not in seen.everything and case.id not in seen.body

    is_alike = place.knows_absent(other) and "planted" not in presented.__name__
    place.begin_outage()
    for text in (None, STRANGE, None):
        if text is None:
            seen, expected = other.look(transport), absent.look(transport)
        else:
            seen, expected = other.say(transport, text), absent.say(transport, text)
        assert is_hidden_in(seen)
        if is_alike:
            assert seen.shape == expected.shape
    olga.say(transport, f"{SECRET} last")
    assert is_hidden_in(other.look(transport))
    place.end_outage()
    assert is_hidden_in(other.look(transport))
    if case.is_there:
        stored = [message["content"] for message in conversations.get(case.id).messages.all()]
        assert STRANGE not in stored
        shown = olga.look("http" if "list" in transport else transport).said
        assert shown is not None
        if "list" in transport and place.can_list:
            assert SECRET in olga.look(transport).body
        assert all(text in shown for text in stored)
        assert any(SECRET in text for text in shown)
    assert SECRET not in caplog.text
