"""A function and its asyncio twin do the same: they are equal once `async`, `await` and the `a` in
the names of twins are dropped. So are the methods of a class `Stream` and its `AsyncStream`."""

import ast
import difflib
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import django_convstate

PACKAGE = Path(django_convstate.__file__).parent
Function = ast.FunctionDef | ast.AsyncFunctionDef

# Pairs that have to differ, and why.
DIFFERENT = {
    "backends/redis/backend.py RedisBackend.health": "a deadline of the socket; a timeout",
    "backends/redis/backend.py RedisBackend._run": "a task makes its operation in its slot",
    "backends/redis/backend.py RedisBackend._follow_up": "a task makes its operation in its slot",
    "backends/redis/backend.py RedisBackend._execute": "a task makes its operation in its slot",
    "backends/redis/client/cluster_nodes.py ClusterNodes.__init__": "redis-py keeps a task's",
    "backends/redis/client/cluster_nodes.py ClusterNodes._ask": "redis-py keeps a task's",
    "backends/redis/client/cluster_nodes.py ClusterNodes._by_redis_py": "redis-py keeps a task's",
    "backends/redis/client/connection_stack.py ConnectionStack._close": "a task must not wait",
    "backends/redis/client/connection_stack.py ConnectionStack._take": "a task has an exchange",
    "backends/redis/client/connection_stack.py ConnectionStack.execute": "a task has an exchange",
    "backends/redis/client/connection_stack.py ConnectionStack.lend": "a task has an exchange",
    "backends/redis/client/connection_stack.py _ensure": "redis-py has most of it, in async code",
    "backends/redis/client/deadline.py note_connection": "of a thread; of a task",
    "backends/redis/client/retrying.py retrying": "a deadline of the socket; a timeout",
    "channels/listening.py saving_interrupted": "only a task can be cancelled",
    "conversation/sending.py send": "only a task can be cancelled",
    "conversation/reading.py ReadMessages.__iter__": "an async generator has to await all",
    "conversation/reading.py ReadMessages._newest": "only the sync one may block an event loop",
    "conversation/messages.py Messages._find": "only the sync one may block an event loop",
    "conversation/turn.py Turn.acquire": "an event of threads; one of a loop",
    "conversation/turn.py Turn.renewing": "a thread; a task",
    "conversation/turn.py Turn._renew": "a thread that serves no request closes its connections",
    "conversation/turn.py Turn.end": "a cancelled task still gives up its lease, in limited time",
    "conversation/turns.py in_turn": "only a task can be cancelled",
    "conversation/turns.py _save_interrupted": "only a task can be cancelled, and have a timeout",
    "decorators.py _turn_of": "an attribute loads; a method does",
    "http/request.py RequestConversation.load": "a lock of threads; one of tasks",
    "http/request.py RequestConversation._load_now": "the twin of pop is that of a session",
    "http/visitor.py _found": "sync code loads a lazy user; a callable runs in a thread or a loop",
    "http/held.py HeldTurn.end": "each ends turns of its own kind, and those of the other",
    "http/saving.py RequestSaving.save_interrupted": "only a task can have a timeout",
    "http/streaming.py Stream.__init__": "an abandoned async stream needs its loop",
    "http/streaming.py Stream.close": "only a task can have a timeout",
    "http/streaming.py Stream.__del__": "an async stream ends in its loop",
    "http/streaming.py Stream._finish": "only a task can be cancelled, and have a timeout",
    "news.py _Sender.send": "sync code needs a loop",
    "news.py notify_of_saved": "only sync code may run within an event loop",
    "news.py notify_of_logout": "only sync code may run within an event loop",
    "repository.py Repository._call": "observers get the name of the method",
    "administration.py StoreAdministration.list": "an empty async iterator has to be written",
}


def names_of_twin(name: str) -> list[str]:
    """Return what the twin may be called: `_asend_error` or `_send_aerror` of `_send_error`."""
    words = re.finditer(r"(?<![a-z])(?=[a-z])", name)
    return [name[: word.start()] + "a" + name[word.start() :] for word in words]


def scopes() -> Iterator[tuple[Path, str, dict[str, Function]]]:
    """Yield the functions of each module and each class, with its folder and name."""
    for path in sorted(PACKAGE.rglob("*.py")):
        file = path.relative_to(PACKAGE)
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Module | ast.ClassDef):
                prefix = f"{file} {node.name}." if isinstance(node, ast.ClassDef) else f"{file} "
                yield file.parent, prefix, {f.name: f for f in node.body if isinstance(f, Function)}


def pairs() -> Iterator[tuple[str, Function, Function]]:
    found = list(scopes())
    by_class = {(folder, prefix.split()[-1]): functions for folder, prefix, functions in found}
    for folder, prefix, functions in found:
        of_twin = by_class.get((folder, f"Async{prefix.split()[-1]}"), {})
        for name, function in functions.items():
            twins = [group.get(n) for n in names_of_twin(name) for group in (functions, of_twin)]
            for twin in [*twins, of_twin.get(name)]:
                if twin is not None:
                    yield f"{prefix}{name}", function, twin


PAIRS = {name: pair for name, *pair in pairs()}
# The names of twins and what they stand for, here and in other packages.
TWINS = {twin.name: function.name for function, twin in PAIRS.values()}
TWINS |= {"asend_robust": "send_robust", "aclosing": "closing", "asleep": "sleep"}


class _JoinWith(ast.NodeTransformer):
    """Makes one `with` of two: a sync and an async one have to be nested."""

    def visit_With(self, node: ast.With) -> ast.With:
        self.generic_visit(node)
        inner = node.body[0]
        if len(node.body) == 1 and isinstance(inner, ast.With):
            node.items, node.body = node.items + inner.items, inner.body
        return node


def in_sync(function: Function) -> list[str]:
    """Return the lines of a function as sync code, without name, decorators and docstring."""
    body = function.body[ast.get_docstring(function) is not None :] or [ast.Pass()]
    plain = ast.FunctionDef("_", function.args, body, [], function.returns)
    text = ast.unparse(ast.fix_missing_locations(plain))
    text = re.sub(r"\basync (?=def|with|for)|\bawait |\bAsync(?=[A-Z])", "", text)
    text = re.sub(r"\b(Abstract|_?)(?:Async|async)(?=Context|context)", r"\1", text)
    text = re.sub(r"\bAwaitable\[(\w+)\]", r"\1", text).replace("[str, None, None]", "[str, None]")
    text = re.sub(r"\w+", lambda word: TWINS.get(word[0], word[0]), text)
    return ast.unparse(_JoinWith().visit(ast.parse(text))).splitlines()


def runs(function: Function, other: Function) -> bool:
    """Tell whether all that a function does is to run its twin, with all its arguments."""
    nodes = [node for part in function.body for node in ast.walk(part)]
    used = {n.id for n in nodes if isinstance(n, ast.Name)}
    used |= {n.attr for n in nodes if isinstance(n, ast.Attribute)}
    parameters = [a.arg for a in ast.walk(function.args) if isinstance(a, ast.arg)]
    same = ast.unparse(function.args) == ast.unparse(other.args)
    return same and used.issuperset([other.name, *parameters])


@pytest.mark.parametrize("name", PAIRS)
def test_a_function_equals_its_twin(name: str) -> None:
    function, twin = PAIRS[name]
    if runs(twin, function) or runs(function, twin):
        return
    lines = difflib.unified_diff(in_sync(function), in_sync(twin), "sync", "async", lineterm="")
    difference = "\n".join(lines)
    if name in DIFFERENT:
        assert difference, f"{name} need not be an exception any more"
    else:
        assert not difference, f"{name}\n{difference}"


def test_each_exception_is_a_pair() -> None:
    assert PAIRS.keys() >= DIFFERENT.keys()


def test_the_sync_consumer_is_up_to_date() -> None:
    subprocess.run([sys.executable, "tools/unasync.py", "--check"], cwd=PACKAGE.parent, check=True)
