"""Tokens: what they say, whose they are, and what is no token of ours."""

import time
from typing import Any

import pytest
from django.core.signing import Signer

from django_convstate import clock
from django_convstate.ids import new_id
from django_convstate.tokens import UNSAVED_SECONDS, read_token, sign_id


def test_a_token_says_what_it_was_made_for() -> None:
    id = new_id()
    token = read_token(sign_id(id))
    assert token is not None
    assert (token.id, token.is_owned, token.is_unsaved) == (id, False, False)


@pytest.mark.parametrize("unsaved", [True, False])
def test_the_token_of_an_owned_conversation_is_of_that_owner_only(unsaved: bool) -> None:
    id = new_id()
    token = read_token(sign_id(id, "anna", unsaved=unsaved))
    assert token is not None
    assert (token.id, token.is_owned, token.is_unsaved) == (id, True, unsaved)
    assert token.is_of("anna")
    assert not token.is_of("bert")
    assert not token.is_of("")


def test_a_token_tells_nothing_of_the_owner() -> None:
    one, other = sign_id(new_id(), "anna"), sign_id(new_id(), "anna")
    assert "anna" not in one
    digests = {token.partition("!")[2].partition(":")[0] for token in (one, other)}
    assert len(digests) == 2, "the tokens of one owner have nothing in common"


def test_a_token_needs_no_quotes_in_a_cookie() -> None:
    assert set(sign_id(new_id(), "ü" * 200)) <= set(
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_:!"
    )


def test_an_owner_stays_the_owner_while_the_key_is_rotated(settings: Any) -> None:
    token, former = sign_id(new_id(), "anna"), settings.SECRET_KEY
    settings.SECRET_KEY, settings.SECRET_KEY_FALLBACKS = "another" * 8, [former]
    rotated = read_token(token)
    assert rotated is not None
    assert rotated.is_of("anna")
    assert not rotated.is_of("bert")
    settings.SECRET_KEY_FALLBACKS = []
    renewed = read_token(rotated.renewed("anna").signed(unsaved=False))
    assert renewed is not None
    assert renewed.is_of("anna")


def test_a_token_that_would_be_signed_the_same_is_not_signed_again(settings: Any) -> None:
    token, unsaved = sign_id(new_id(), "anna"), sign_id(new_id(), "anna", unsaved=True)
    read, read_unsaved = read_token(token), read_token(unsaved)
    assert read is not None
    assert read_unsaved is not None
    assert read.text == token
    assert read.renewed("anna").text == ""
    assert read_unsaved.text == ""
    settings.SECRET_KEY_FALLBACKS = ["another" * 8]  # which of them has signed it, is not asked
    read = read_token(token)
    assert read is not None
    assert read.text == ""


def test_a_token_for_what_is_not_stored_is_that_for_a_while(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    token = sign_id(new_id(), "anna", unsaved=True)
    now = time.time() + UNSAVED_SECONDS + 1
    monkeypatch.setattr(clock, "time", lambda: now)
    late = read_token(token)
    assert late is not None
    assert not late.is_unsaved
    assert late.is_of("anna")


@pytest.mark.parametrize(
    "make",
    [
        lambda token: "",
        lambda token: token[:-1],
        lambda token: "x" + token,
        lambda token: token.replace("!", ":"),
        lambda token: token.partition("!")[0] + ":" + token.rpartition(":")[2],
        lambda token: Signer(salt="another").sign("an-id"),
        lambda token: Signer(salt="django_convstate.token").sign("../../etc!x"),
        lambda token: "\ud83d",
    ],
)
def test_what_was_changed_is_no_token(make: Any) -> None:
    assert read_token(make(sign_id(new_id(), "anna"))) is None


def test_a_token_does_not_show_itself() -> None:
    id = new_id()
    token = sign_id(id, "anna")
    shown = repr(read_token(token))
    assert id not in shown
    assert token.rpartition(":")[2] not in shown
