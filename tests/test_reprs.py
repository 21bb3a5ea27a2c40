"""No repr shows an id, a token, a password or what was said: from there they get into logs and
error reports."""

import dataclasses
import importlib
import inspect
import pkgutil
import pprint
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import pytest

import django_convstate
from django_convstate import Conversation, conversations, get_backend
from django_convstate.backends.database.models import Conversation as ConversationRow
from django_convstate.backends.database.models import Message as MessageRow
from django_convstate.backends.failover.exact import Exact
from django_convstate.backends.failover.journal import Delete, PendingWrites, Touch
from django_convstate.backends.failover.snapshot import Applied, Snapshot
from django_convstate.backends.records import Acquired, Change, Committed, Record, Replacement
from django_convstate.backends.redis.client.config import ServerConfig
from django_convstate.backends.redis.command import Reply
from django_convstate.backends.redis.damage import Seen
from django_convstate.backends.redis.operations import Operations
from django_convstate.backends.redis.owner_index import IndexPage
from django_convstate.backends.reports import ConversationSummary, Finding, Selection
from django_convstate.backends.toolkit.packed import PackedMessages
from django_convstate.backends.toolkit.stored import StoredConversation
from django_convstate.channels.scope import ScopeConversation
from django_convstate.conversation.conversation import working_copy_of
from django_convstate.conversation.pending import Settled
from django_convstate.conversation.reading import ReadMessages
from django_convstate.exceptions import ConversationCorrupt
from django_convstate.http.identity import PartitionedMorsel
from django_convstate.http.visitor import Visitor
from django_convstate.ids import hashed_id
from django_convstate.repository import Repository
from django_convstate.tokens import new_token, sign_id
from django_convstate.tracebacks import Hidden
from django_convstate.transfer.erasing import ErasureReport
from django_convstate.transfer.lines import Whole
from tests.support.messages import pairs
from tests.support.places import on
from tests.support.reports import CANARY

ID, TEXT, OWNER, PASSWORD = (f"{CANARY}-{what}" for what in ("id", "text", "owner", "password"))
BYTES = TEXT.encode()

# Those whose repr is not object's and which hold no secret: how a server or the store is, settings,
# an index, what Django makes itself.
HARMLESS = {
    *("Batch", "Create", "ReplayStats", "Shard", "ServerInfo", "PurgeReport", "Health", "Commit"),
    *("ExportReport", "ImportReport", "MigrationReport", "Remainder"),
    *(
        "Options",
        "StoreOptions",
        "Problem",
        "Entry",
        "Lifetime",
        "Conversations",
        "ConvstateConfig",
        "ConversationAdmin",
        "DatabaseBackendConfig",
        "ServerTime",
        "Wanted",
        "CurrentTime",
        "Migration",
        # They show a row as the model does.
        "ConversationQuerySet",
        "MessageQuerySet",
    ),
    *("Place", "ConversationRequest", "ConversationSerializer", "PartitionedMorsel"),
    # Of redis-py: they show where a server is.
    *("PatientSentinel", "AsyncPatientSentinel", "PatientTLS", "SentinelPatientTLS"),
}


# Of redis-py, whose repr shows host, port and database.
CONNECTIONS = {
    *("PatientTLS", "SentinelPatientTLS", "PatientSentinel"),
    *("AsyncPatientSentinel", "AsyncPatientTLS", "AsyncSentinelPatientTLS"),
}


def classes() -> Iterator[type]:
    """Yield the classes of the package."""
    for module in pkgutil.walk_packages(django_convstate.__path__, "django_convstate."):
        for found in vars(importlib.import_module(module.name)).values():
            if inspect.isclass(found) and found.__module__ == module.name:
                yield found


def has_own_repr(cls: type[object]) -> bool:
    return "object" not in [base.__name__ for base in cls.__mro__ if "__repr__" in vars(base)][:1]


def conversation() -> Conversation:
    conversations.delete(ID)
    made = conversations.create(id=ID, owner=OWNER)
    made["note"] = TEXT
    made.messages.append("user", TEXT)
    made.save()
    return made


def record() -> Record:
    return Record(
        id=ID,
        version=1,
        owner=OWNER,
        created_at=1.0,
        modified_at=1.0,
        last_accessed=1.0,
        expires_at=1.0,
        ttl=1.0,
        state={TEXT: BYTES},
        messages=pairs(BYTES),
        message_count=1,
        first=(TEXT, BYTES),
    )


def change() -> Change:
    return Change(
        visitor=OWNER,
        owner=OWNER,
        expected={TEXT: BYTES},
        set={TEXT: BYTES},
        unset=[TEXT],
        increment={TEXT: 1},
        replace=[Replacement(id=TEXT, old=BYTES, new=BYTES)],
        append=pairs(BYTES),
        once=[TEXT],
        lease=TEXT,
    )


def committed() -> Committed:
    return Committed(
        version=1,
        message_count=1,
        expires_at=1.0,
        last_key=BYTES,
        existing=[TEXT],
        others=pairs(BYTES),
        merged=[TEXT],
        replaced={TEXT: BYTES},
    )


def summary() -> ConversationSummary:
    conversation()
    (found,) = conversations.list(OWNER, keys=["note"])
    assert found.state == {"note": TEXT}
    return found


def scope() -> ScopeConversation:
    cookie = f"conversation={sign_id(ID)}".encode()
    return ScopeConversation(
        {"type": "websocket", "path": "/", "headers": [(b"cookie", cookie)]},
        conversations,
        Visitor(OWNER, [ID]),
    )


def instances() -> dict[str, Any]:
    """Return an instance of each class that may hold secrets, full of canaries."""
    stored = StoredConversation.of(record(), pairs(BYTES))
    operation = Operations("convstate", None).commit(ID, change())
    made = conversation()
    copy = working_copy_of(made)
    return {
        type(each).__name__: each
        for each in (
            record(),
            change(),
            committed(),
            summary(),
            scope(),
            made,
            made.messages,
            made.messages[0],
            ReadMessages(copy, Repository(conversations, None, {})),
            copy,
            copy.state,
            copy.log,
            copy.pending,
            stored,
            stored.messages,
            stored.commits,
            operation,
            Reply(TEXT, None),
            IndexPage([TEXT], 0, [TEXT], 0, [BYTES]),
            Acquired(0, record()),
            Selection(owner=OWNER),
            Replacement(id=TEXT, old=BYTES, new=BYTES),
            Settled(change(), committed(), 1, 1, 0, False),
            Snapshot(record(), 1, 0.0, 0.0, [Applied(change(), committed(), 1.0)], 1),
            Applied(change(), committed(), 1.0),
            Exact(record(), [BYTES], 1, 1),
            PendingWrites(stored),
            Touch(1.0),
            Delete(1.0),
            PackedMessages([BYTES], 0),
            Hidden(TEXT),
            new_token(ID, OWNER),
            Finding(kind="damaged", id=ID, where=TEXT, detail="It makes no sense."),
            Seen("conversation", OWNER, False, (1, 1, 1, 1)),
            Visitor(OWNER, [ID]),
            Whole(record(), pairs(BYTES)),
            ErasureReport(OWNER, "redis", 1, datetime.now(UTC), []),
        )
    }


def test_a_cookie_shows_its_name_alone() -> None:
    cookie = PartitionedMorsel()
    cookie.set("conversation", TEXT, TEXT)
    assert CANARY not in repr(cookie)
    assert CANARY in str(cookie), "which is what is sent"


def test_no_instance_shows_what_is_in_it() -> None:
    found = instances()
    for name, each in found.items():
        for shown in (repr(each), str(each) if name != "Hidden" else "", pprint.pformat(each)):
            assert CANARY not in shown, name


def test_a_row_shows_nothing_of_its_contents() -> None:
    row = ConversationRow(pk=7, key=ID, owner=OWNER, title=TEXT, state=BYTES)
    assert repr(row) == "<Conversation 7>"
    said = MessageRow(pk=8, conversation=row, role="user", text=TEXT, data=BYTES)
    assert CANARY not in repr(said) + pprint.pformat([said])


def test_none_was_left_out() -> None:
    """A new class with a repr of its own has to be added above."""
    made = {*instances(), "ServerConfig", "LazyConversation", *CONNECTIONS}
    left_out = {
        each.__name__
        for each in classes()
        if has_own_repr(each)
        and each.__name__ not in made | HARMLESS
        and not issubclass(each, BaseException)
    }
    assert left_out == set()


def test_dataclasses_show_no_bytes_and_no_mapping() -> None:
    """Those are what is stored; and in a harmless class there is nothing of it."""
    shown = {
        f"{each.__name__}.{field.name}"
        for each in classes()
        if dataclasses.is_dataclass(each) and has_own_repr(each)
        for field in dataclasses.fields(each)
        if field.repr and any(kind in str(field.type) for kind in ("bytes", "Mapping", "dict"))
    }
    assert shown == set()


@pytest.mark.parametrize("error", [each for each in classes() if issubclass(each, BaseException)])
def test_an_error_shows_its_message_alone(error: Any) -> None:
    """What it was raised with besides is for those who catch it."""
    given = {
        "Diverged": ({TEXT: BYTES}, {TEXT: BYTES}),
        "ConfigError": ("problem", "hint"),
        "Damaged": (1, ConversationCorrupt("message")),
    }.get(error.__name__, ("message",))
    raised = error(*given)
    assert CANARY not in repr(raised) + str(raised)


def test_what_logs_in_to_a_server_shows_no_password(settings: Any) -> None:
    backend = on(settings, f"redis://user:{PASSWORD}@localhost:6379/0", PASSWORD=PASSWORD)
    config = ServerConfig.from_alias("own")
    assert config.kwargs["password"] == PASSWORD
    for each in (config, backend, *vars(backend).values(), get_backend("redis", cache_alias="own")):
        assert CANARY not in repr(each) + pprint.pformat(each)


def test_an_id_is_shown_as_in_the_logs() -> None:
    assert hashed_id(ID) in repr(conversation())
    assert hashed_id(ID) in repr(scope())


def test_a_message_shows_who_said_how_much() -> None:
    made = conversation()
    assert repr(made.messages[0]) == f"<Message: 'user', {len(TEXT)} characters>"
    made.messages.append("tool", {"a": TEXT})
    made.messages.extend([{"any": TEXT}])
    assert repr(made.messages[1]) == "<Message: 'tool', 4 fields>"
    assert repr(made.messages[2]) == "<Message: 1 fields>"


def test_sentry_does_not_unfold_what_looks_like_a_container() -> None:
    """It takes the items of mappings and sequences, unless these say otherwise; and to take those
    of a conversation, or of messages, may load them."""
    unfolded = {
        each.__name__
        for each in classes()
        if issubclass(each, Mapping | Sequence | str) and not hasattr(each, "__sentry_repr__")
    }
    assert unfolded == {"StoreOptions", "Settled"}, "of which the latter's items show nothing"
