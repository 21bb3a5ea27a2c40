"""A conversation that one process has accepted in an outage, and not replayed yet, when its client
comes to another process that was never in one: by whatever way, it goes on under its id."""

from collections.abc import Iterator
from typing import Any

import pytest

from django_convstate import conversations
from django_convstate.backends.records import Change, Create
from django_convstate.ids import new_id
from django_convstate.tokens import new_token, read_token
from tests.support.messages import pairs
from tests.support.people import HEADER, TRANSPORTS, Person, use_people

BY_TOKEN = [name for name in TRANSPORTS if "url" not in name and "list" not in name]


@pytest.fixture(autouse=True)
def _people(settings: Any) -> Iterator[None]:
    use_people(settings)
    settings.CONVERSATION_STATE = {"HEADER_NAME": HEADER}
    yield
    conversations.purge(everything=True)


def is_unsaved(person: Person) -> bool:
    token = read_token(person.token)
    assert token is not None
    return token.is_unsaved


def replay(id: str, owner: str | None) -> None:
    """Do what the other process does when it comes to it."""
    message = b'{"role":"user","content":"in the outage"}'
    change = Change(create=Create.EITHER, owner=owner, visitor=owner or "", append=pairs(message))
    conversations.backend.commit(id, change)


@pytest.mark.parametrize("transport", BY_TOKEN)
@pytest.mark.parametrize("name", [None, "olga"], ids=["not logged in", "logged in"])
@pytest.mark.parametrize("speaks", [False, True], ids=["looks", "speaks"])
def test_it_goes_on_under_its_id(transport: str, name: str | None, speaks: bool) -> None:
    person, id = Person(name), new_id()
    owner = None if name is None else "1"
    person.token = new_token(id, owner).signed(unsaved=True)
    for _ in range(2):
        seen = person.look(transport)
        assert (seen.status in (200, None), seen.said, person.id) == (True, [], id)
    if speaks:
        assert person.say(transport, "hello").said == ["hello"]
    assert person.id == id
    replay(id, owner)
    said = ["hello", "in the outage"] if speaks else ["in the outage"]
    assert person.look(transport).said == said
    assert person.look("http").said == said
    assert (person.id, is_unsaved(person)) == (id, False)
    assert conversations.get(id).owner == owner


def test_by_its_id_alone_it_is_absent_until_then() -> None:
    person, id = Person("olga"), new_id()
    person.token = new_token(id, "1").signed(unsaved=True)
    assert person.look("url").status == 404
    replay(id, "1")
    assert person.look("url").said == ["in the outage"]
