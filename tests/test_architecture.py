"""The structure that docs/architecture.md draws: imports go down, one caller of a backend, privates
stay private, files stay short, and a turn stays within its budget of calls."""

import ast
import inspect
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from django.utils.module_loading import import_string

import django_convstate
from django_convstate import Conversation, ConversationStore, Messages, get_backend
from django_convstate.backends.base import ConversationStateBackend

NAME = "django_convstate"
ROOT = Path(django_convstate.__file__).parent

# From the bottom up. A module imports from its own layer and from those before it. The longest
# prefix that fits a module says where it belongs.
LAYERS = [
    ["clock", "exceptions", "tracebacks"],
    ["codec", "conf", "signals"],
    ["ids", "tokens"],
    ["backends.toolkit.forksafe", "backends.toolkit.packed", "backends.toolkit.writer"],
    ["backends.records", "backends.refusals", "backends.reports"],
    ["backends.toolkit"],
    ["conversation.merge"],  # pure, and called by the replay after an outage, too
    ["backends.base"],
    ["backends.locmem", "backends.cache", "backends.database", "backends.redis"],
    ["backends.failover"],
    ["backends"],
    ["observing"],
    ["repository"],
    ["conversation"],
    ["layer"],
    ["administration", "news", "store", "typing"],
    ["transfer"],
    ["http"],
    ["channels", "decorators", "identity", "middleware"],
    [
        *("", "apps", "checks", "health_check", "integrations", "management", "testing", "urls"),
        "backends.database.admin",
    ],
]
# Those of other projects are there where these offer no public way.
ALLOWED_PRIVATES = {
    # The one function through which our own modules reach what is in memory of a Conversation.
    ("conversation/conversation.py", "_copy"),
    # And the one by which they get at the repository of a store.
    ("administration.py", "_repository"),
    ("http/visitor.py", "_wrapped"),  # whether Django has loaded the user of a request
    ("http/wrapped.py", "_request"),  # what REST framework's request wraps
    ("http/caching.py", "_should_update_cache"),  # where Django's cache of pages decides
    ("http/streaming.py", "_iterator"),  # Django wraps the public one in what cannot be closed
    ("backends/cache/lock.py", "_dir"),  # where a file-based cache is
    # Connections of a loop that was closed without its async generators: redis-py closes them only
    # from that loop.
    ("backends/redis/client/closed_loops.py", "_writer"),
    ("backends/redis/client/closed_loops.py", "_connections"),
    ("backends/redis/client/closed_loops.py", "_available_connections"),
    ("backends/redis/client/closed_loops.py", "_in_use_connections"),
    # What redis-py's asyncio connection reads from and writes to.
    ("backends/redis/client/exchange.py", "_writer"),
    # Between TCP and TLS redis-py's asyncio connection has no public step.
    ("backends/redis/client/connections.py", "_connect"),
    ("backends/redis/client/connections.py", "_connection_arguments"),
}
NAMED_TUPLE = {"_asdict", "_fields", "_make", "_replace"}  # which are public
MODEL = {"_meta"}  # which Django documents
MAX_LINES = 400
# Python calls of our own functions, on redis with failover, in sync code.
GET_BUDGET, SAVE_BUDGET = 40, 52


@cache
def sources() -> dict[str, tuple[Path, ast.Module]]:
    """Each module of the package by its dotted name below the package, "" for the package."""
    found = {}
    for path in sorted(ROOT.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        name = ".".join(parts).removesuffix("__init__").removesuffix(".")
        found[name] = path, ast.parse(path.read_text())
    return found


def imported(name: str, path: Path, tree: ast.Module) -> Iterator[str]:
    """Yield the modules of the package that a module imports, wherever and for whatever it does."""
    package = name.split(".") if name else []
    if path.name != "__init__.py":
        package = package[:-1]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (
                alias.name.removeprefix(NAME).removeprefix(".")
                for alias in node.names
                if alias.name.split(".")[0] == NAME
            )
        elif isinstance(node, ast.ImportFrom):
            written = (node.module or "").split(".") if node.module else []
            if node.level:
                base = package[: len(package) - node.level + 1] + written
            elif written[0] == NAME:
                base = written[1:]
            else:
                continue
            for alias in node.names:
                submodule = ".".join([*base, alias.name])
                yield submodule if submodule in sources() else ".".join(base)


@cache
def arrows() -> dict[str, set[str]]:
    """From each module to those that it imports."""
    return {
        name: set(imported(name, path, tree)) - {name} for name, (path, tree) in sources().items()
    }


def layer_of(name: str) -> int:
    fits = [
        (len(prefix), level)
        for level, prefixes in enumerate(LAYERS)
        for prefix in prefixes
        if prefix == name or (prefix and name.startswith(f"{prefix}."))
    ]
    assert fits, f"{name} belongs to no layer: add it to LAYERS and to docs/architecture.md"
    return max(fits)[1]


def test_imports_go_down_the_layers_only() -> None:
    upward = [
        f"{name or NAME} imports {target}"
        for name, targets in arrows().items()
        for target in targets
        if layer_of(target) > layer_of(name)
    ]
    assert upward == []


def test_imports_have_no_circle() -> None:
    done: set[str] = set()

    def visit(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, f"circle: {' -> '.join([*path[path.index(name) :], name])}"
        if name not in done:
            for target in sorted(arrows()[name]):
                visit(target, (*path, name))
            done.add(name)

    for name in arrows():
        visit(name, ())


def test_every_import_is_of_a_module_that_exists() -> None:
    """So that the two tests above do not pass because they have found nothing."""
    assert {target for targets in arrows().values() for target in targets} <= sources().keys()
    assert "conversation.working_copy" in arrows()["store"]
    assert len(arrows()) > 60


def test_only_the_repository_calls_a_backend() -> None:
    """Neither as `store.backend.load()`, nor by way of a variable named `backend`. What a backend
    is (`name`, `can_scan`) may be read of it, and its class may be asked for checks."""
    methods = {
        name
        for name, method in vars(ConversationStateBackend).items()
        if callable(method) and not name.startswith("_")
    }
    calls = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for name, (path, tree) in sources().items()
        if name != "repository" and not name.startswith(("backends", "testing"))
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and (
            (isinstance(node.value, ast.Attribute) and node.value.attr in ("backend", "_backend"))
            or (
                isinstance(node.value, ast.Name)
                and node.value.id == "backend"
                and node.attr in methods
            )
        )
    ]
    assert calls == []


def test_no_object_touches_the_privates_of_another() -> None:
    touched = []
    for path, tree in sources().values():
        file = path.relative_to(ROOT).as_posix()
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and is_private(node.attr):
                owner = node.value.id if isinstance(node.value, ast.Name) else ""
                if owner not in {"self", "cls"} and (file, node.attr) not in ALLOWED_PRIVATES:
                    touched.append(f"{file}:{node.lineno} {ast.unparse(node)}")
            elif isinstance(node, ast.ImportFrom) and node.module != "_sync_consumers":
                private = [alias.name for alias in node.names if is_private(alias.name)]
                touched += [f"{file}:{node.lineno} {name}" for name in private]
    assert touched == []


def is_private(name: str) -> bool:
    return (
        name.startswith("_")
        and not name.startswith("__")
        and name not in {"_", *NAMED_TUPLE, *MODEL}
    )


def test_no_file_is_longer_than_a_reader_can_hold() -> None:
    lengths = {path: len(path.read_text().splitlines()) for path, _ in sources().values()}
    assert {path: lines for path, lines in lengths.items() if lines > MAX_LINES} == {}


# What templates may call: what they show, and what does nothing that lasts.
READS = {
    Conversation: {"items", "keys", "values"},
    Messages: {"all", "for_llm", "window"},
    ConversationStore: {"create", "health", "key", "list"},
}


@pytest.mark.parametrize("cls", READS)
def test_a_template_cannot_call_what_alters_data(cls: type) -> None:
    callable_without_arguments = {
        name
        for name in dir(cls)
        if not name.startswith("_")
        and callable(method := getattr(cls, name))
        and not getattr(method, "alters_data", False)
        and takes_no_argument(method)
    }
    assert callable_without_arguments <= READS[cls] | {"update"}  # which changes nothing then


def takes_no_argument(method: Callable[..., Any]) -> bool:
    _, *others = inspect.signature(method).parameters.values()
    return all(
        parameter.default is not parameter.empty
        or parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
        for parameter in others
    )


PUBLIC_PATHS = [
    "django_convstate.conversations",
    "django_convstate.middleware.ConversationMiddleware",
    "django_convstate.decorators.conversation_turn",
    "django_convstate.signals.conversation_saved",
    "django_convstate.urls.urlpatterns",
    "django_convstate.health_check.Conversations",
    "django_convstate.channels.AsyncConversationConsumer",
    "django_convstate.channels.notify",
    "django_convstate.channels.anotify",
    "django_convstate.testing.BackendContract",
    "django_convstate.testing.ConversationTestMixin",
    "django_convstate.testing.aseed",
    "django_convstate.testing.assert_store_calls",
    "django_convstate.testing.clock",
    "django_convstate.testing.empty_store",
    "django_convstate.testing.seed",
    "django_convstate.testing.store_away",
    "django_convstate.integrations.rest_framework.ConversationSerializer",
    "django_convstate.identity.as_subprotocol",
    "django_convstate.transfer.bring_in",
    "django_convstate.transfer.erase_owner",
    "django_convstate.transfer.export_to",
    "django_convstate.transfer.import_from",
    "django_convstate.transfer.migrate",
    "django_convstate.typing.ConversationRequest",
    "django_convstate.typing.StoreOptions",
    "django_convstate.backends.base.ConversationStateBackend",
    "django_convstate.backends.base.Change",
    # docs/backends.md names these.
    "django_convstate.backends.base.TURN_LOST",
    "django_convstate.backends.base.add_to_counter",
    "django_convstate.backends.redis.cluster.ClusterConnectionFactory",
    "django_convstate.backends.database.models.Conversation",
    "django_convstate.backends.database.models.Message",
]


@pytest.mark.parametrize("path", PUBLIC_PATHS)
def test_what_projects_import_is_where_it_was(path: str) -> None:
    import_string(path)


def test_messages_of_a_conversation_cannot_be_replaced() -> None:
    conversation = ConversationStore("locmem").create()
    with pytest.raises(AttributeError):
        conversation.messages = []  # type: ignore[misc, assignment]


def test_the_page_names_files_and_functions_that_exist() -> None:
    page = (ROOT.parent / "docs" / "architecture.md").read_text()
    folders = [ROOT, ROOT.parent / "tests", ROOT.parent / "tools"]
    files = [file.as_posix() for folder in folders for file in folder.rglob("*.*")]
    files += [file.as_posix() for file in ROOT.parent.glob("*.py")]
    for named in set(re.findall(r"[\w/]+\.(?:py|lua)\b", page)):
        assert any(file.endswith(f"/{named}") for file in files), named
    defined = {
        f"{cls.name}.{method.name}"
        for _, tree in sources().values()
        for cls in ast.walk(tree)
        if isinstance(cls, ast.ClassDef)
        for method in cls.body
        if isinstance(method, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    named = set(re.findall(r"`([A-Z]\w+\.\w+)`", page))
    assert len(named) > 15
    assert named - defined == {"Change.append", "Record.messages"}, "which are fields"


def our_calls(function: Callable[[], object]) -> Counter[str]:
    """Call `function`, and count which of our functions that calls."""
    calls: Counter[str] = Counter()

    def profile(frame: FrameType, event: str, _: object) -> None:
        file = frame.f_code.co_filename
        if event == "call" and file.startswith(str(ROOT)):
            calls[f"{Path(file).relative_to(ROOT)} {frame.f_code.co_name}"] += 1

    sys.setprofile(profile)
    try:
        function()
    finally:
        sys.setprofile(None)
    return calls


@pytest.mark.usefixtures("valkey")
def test_a_turn_stays_within_its_budget_of_calls() -> None:
    store = ConversationStore(get_backend("redis", cache_alias="django_redis"))
    conversation = store.create()
    for _ in range(3):  # the first times connect, and load the scripts
        conversation["step"] = 1
        conversation.messages.append("user", "hello")
        conversation.save()
        conversation = store.get(id := conversation.id)
    get = our_calls(lambda: store.get(id))
    conversation["step"] = 2
    conversation.messages.append("user", "hello again")
    conversation.messages.append("assistant", "hello yourself")
    save = our_calls(conversation.save)
    store.close()
    assert get.total() <= GET_BUDGET, get
    assert save.total() <= SAVE_BUDGET, save
