"""Values: what JSON can hold comes back as it was, and everything else is refused by name."""

import decimal
import enum
import http
import math
import uuid
from collections import OrderedDict, namedtuple
from dataclasses import dataclass
from datetime import date
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.utils.translation import gettext_lazy
from hypothesis import given
from hypothesis import strategies as st

from django_convstate import InvalidConversationValue, conversations
from django_convstate.codec import MAX_DEPTH, decode, decode_all, encode
from django_convstate.exceptions import ConversationCorrupt

JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


class Color(enum.Enum):
    RED = "red"


@dataclass
class Point:
    x: int = 1


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


def cycle() -> Any:
    value: list[Any] = []
    value.append({"again": value})
    return value


BAD: list[tuple[Any, str]] = [
    (math.nan, "nan"),
    (math.inf, "inf"),
    (-math.inf, "-inf"),
    (2**70, "64 bits"),
    (-(2**63) - 1, "64 bits"),
    (10**5000, "64 bits"),
    (nested(100_000), "nested more than"),
    (cycle(), "contains itself"),
    (b"bytes", "bytes"),
    (bytearray(), "bytearray"),
    ({1}, "set"),
    (frozenset(), "frozenset"),
    (object(), "object"),
    (Color.RED, "Color"),
    (Point(), "Point"),
    (uuid.uuid4(), "UUID"),
    (date(2026, 1, 1), "date"),
    (decimal.Decimal(1), "Decimal"),
    (gettext_lazy("hello"), "lazy translation"),
    (User(username="x"), "User"),
    (len, "builtin_function"),
    (3 + 4j, "complex"),
    ("\ud800", "surrogate"),
    ({1: 2}, "key of type int"),
    ({None: 2}, "key of type NoneType"),
    ({"\ud800": 2}, "surrogate"),
]


@given(JSON_VALUES)
def test_json_comes_back_as_it_was(value: Any) -> None:
    assert decode(encode(value, "value")) == value
    assert decode_all([encode(value, "value")] * 2) == [value, value]


@pytest.mark.parametrize(("value", "words"), BAD, ids=lambda bad: str(type(bad).__name__))
def test_a_bad_value_is_refused_where_it_is_written(value: Any, words: str) -> None:
    conversation = conversations.create()
    conversation["a"] = "before"
    with pytest.raises(InvalidConversationValue, match=words) as caught:
        conversation["a"] = value
    assert 'state["a"]' in str(caught.value)
    assert len(str(caught.value)) < 300
    with pytest.raises(InvalidConversationValue, match=r'message\["content"\]'):
        conversation.messages.append("user", [value])
    with pytest.raises(InvalidConversationValue, match=r'message\["extra"\]'):
        conversation.messages.append("user", "text", extra=value)
    assert dict(conversation) == {"a": "before"}
    assert len(conversation.messages) == 0


@pytest.mark.parametrize(("value", "words"), BAD, ids=lambda bad: str(type(bad).__name__))
def test_an_error_names_the_path_of_the_value(value: Any, words: str) -> None:
    with pytest.raises(InvalidConversationValue) as caught:
        encode({"a": [1, {"b c": [0, 0, value]}]}, "state")
    assert 'state["a"][1]["b c"][2]' in str(caught.value)


def test_type_errors_are_type_errors_too() -> None:
    for bad in (b"", {1}, object(), {1: 2}):
        with pytest.raises(TypeError):
            encode(bad, "value")
    with pytest.raises(ValueError, match="nan"):
        encode(math.nan, "value")


def test_bad_keys_of_the_state_are_refused() -> None:
    conversation = conversations.create()
    for bad in (1, None, b"a", ("a",), "\ud800"):
        with pytest.raises(InvalidConversationValue):
            conversation[bad] = 1  # type: ignore[index]
        with pytest.raises(InvalidConversationValue):
            conversation.incr(bad)  # type: ignore[arg-type]
    assert len(conversation) == 0


def test_nesting_over_the_limit_is_refused() -> None:
    assert decode(encode(nested(MAX_DEPTH), "value")) == nested(MAX_DEPTH)
    assert decode(encode((nested(MAX_DEPTH - 1),), "value")) == nested(MAX_DEPTH)
    for make in (nested, lambda depth: (nested(depth - 1),)):
        with pytest.raises(InvalidConversationValue):
            encode(make(MAX_DEPTH + 1), "value")


def test_values_are_encoded_as_json_encodes_them() -> None:
    pair = namedtuple("pair", "a b")
    assert encode((1, (2,)), "v") == b"[1,[2]]"
    assert encode(pair(1, 2), "v") == b"[1,2]"
    assert encode(OrderedDict(b=1, a=2), "v") == b'{"b":1,"a":2}'
    assert encode(http.HTTPStatus.OK, "v") == b"200"
    assert encode(2**64 - 1, "v") == b"18446744073709551615"


@pytest.mark.parametrize("data", [b"", b"{", b"nul", b"\x80\x05N.", b"1 2", b"\xff"])
def test_bytes_that_are_not_json_are_corrupt(data: bytes) -> None:
    with pytest.raises(ConversationCorrupt):
        decode(data)


def test_bytes_of_several_values_are_corrupt() -> None:
    with pytest.raises(ConversationCorrupt):
        decode_all([b"1,2"])
