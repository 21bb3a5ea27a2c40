"""A conversation that was opened for a visitor, and has become another owner's since: what the
visitor still holds of it is of no use."""

from typing import Any

import pytest

from django_convstate import (
    Conversation,
    ConversationConflict,
    ConversationNotFound,
    ConversationStore,
    conversations,
)
from django_convstate.http.opening import open_presented
from django_convstate.http.visitor import Visitor
from django_convstate.tokens import Token
from tests.support.conversations import contents
from tests.support.ways import call

NOT_FOUND = [("delete", ()), ("cycle_id", ()), ("touch", ()), ("touch", (5.0,)), ("reload", ())]


def opened(store: ConversationStore, owner: str | None = None) -> Conversation:
    """Return a conversation as its visitor has it in a request."""
    conversation = store.create(owner)
    conversation.messages.append("user", "before")
    conversation.save()
    token = Token(conversation.id, "", is_unsaved=False)
    return open_presented(store, [token], Visitor(owner))


def claimed_meanwhile(store: ConversationStore) -> Conversation:
    """Return one of nobody, which olga has claimed since."""
    former = opened(store)
    theirs = store.get(former.id)
    theirs.messages.append("user", "of olga")
    theirs.claim("olga")
    return former


@pytest.mark.parametrize(("name", "arguments"), NOT_FOUND)
def test_it_is_not_found_any_more(way: str, name: str, arguments: Any) -> None:
    former = claimed_meanwhile(conversations)
    id, before = former.id, conversations.peek(former.id)
    with pytest.raises(ConversationNotFound):
        call(way, former, name, *arguments)
    after = conversations.peek(id)
    assert (former.id, contents(after), after.owner) == (id, ["before", "of olga"], "olga")
    assert after.ttl == before.ttl
    if name != "reload":  # which looks first
        assert after.expires_at == before.expires_at
    assert contents(former) == ["before"]


def test_what_is_said_is_refused(way: str) -> None:
    former = claimed_meanwhile(conversations)
    former.messages.append("user", "of another")
    with pytest.raises(ConversationConflict):
        call(way, former, "save")
    assert contents(conversations.get(former.id)) == ["before", "of olga"]


def test_in_every_place(way: str, store: ConversationStore) -> None:
    for name, arguments in NOT_FOUND:
        former = claimed_meanwhile(store)
        with pytest.raises(ConversationNotFound):
            call(way, former, name, *arguments)
        after = store.get(former.id)
        assert (contents(after), after.owner) == (["before", "of olga"], "olga"), name


@pytest.mark.parametrize("owner", [None, "olga"])
@pytest.mark.parametrize(("name", "arguments"), NOT_FOUND)
def test_its_visitor_may(way: str, owner: str | None, name: str, arguments: Any) -> None:
    conversation = opened(conversations, owner)
    former = conversation.id
    call(way, conversation, name, *arguments)
    assert conversations.exists(former) == (name not in ("delete", "cycle_id"))
    assert conversation.owner == owner


@pytest.mark.parametrize("owner", [None, "olga"])
def test_one_that_is_gone_may_be_deleted_again(way: str, owner: str | None) -> None:
    conversation = opened(conversations, owner)
    conversations.delete(conversation.id)
    call(way, conversation, "delete")
    assert not conversation


@pytest.mark.parametrize("owner", [None, "olga"])
def test_after_its_deletion_the_next_has_the_same_owner(way: str, owner: str | None) -> None:
    conversation = opened(conversations, owner)
    former = conversation.id
    call(way, conversation, "delete")
    conversation.messages.append("user", "after")
    call(way, conversation, "save")
    assert not conversations.exists(former)
    after = conversations.get(conversation.id)
    assert (contents(after), after.owner) == (["after"], owner)
