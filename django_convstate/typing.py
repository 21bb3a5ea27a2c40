"""Types for annotations in projects that use this package."""

from typing import Literal, TypedDict


class StoreOptions(TypedDict, total=False):
    """What `ConversationStore` takes: the keys of CONVERSATION_STATE in lower case. Durations are
    in seconds, sizes in bytes of JSON."""

    ttl: float
    max_age: float | None
    cache_alias: str
    key_prefix: str
    fallback: str | None
    window: int
    turn_wait: float
    max_conversations: int
    max_state_bytes: int
    max_message_bytes: int
    max_messages: int | None
    when_full: Literal["refuse", "drop_oldest"]
    cookie_name: str
    cookie_age: int | None
    cookie_path: str
    cookie_domain: str | None
    cookie_secure: bool | None
    cookie_httponly: bool
    cookie_samesite: str | bool
    header_name: str | None
