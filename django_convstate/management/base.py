"""What the commands have in common: which store they work on, what they print where, how they end.

Results go to stdout. Errors, questions and progress go to stderr, so that stdout can be parsed.
"""

import argparse
import io
import json
import os
import select
import sys
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any, ClassVar, Final, TypeVar

from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import CommandError, CommandParser
from django.db.models import ProtectedError, RestrictedError
from django_rich.management import RichCommand
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from django_convstate import (
    BackendUnavailable,
    ConversationCorrupt,
    ConversationError,
    ConversationStore,
    conversations,
)

from .durations import parse_duration
from .formats import format_count

# How a command ends; docs/operations.md lists these. A usage error is argparse's 2.
FAILED: Final = 1
UNAVAILABLE: Final = 3
DAMAGED: Final = 4
INTERRUPTED: Final = 130

_PROTECTED: Final = (
    "A foreign key of the project protects a conversation: delete the rows that point at it first, "
    "or write SET_NULL."
)
BAR_STEP: Final = 100  # conversations from one change of a bar to the next

T = TypeVar("T")


class Track:
    """How far a command is. Call it with how many are done, and how many there are (None: that is
    not known)."""

    def __init__(self, show: Callable[[int, int | None], None], done: str) -> None:
        self._show = show
        self._done = done
        self.number = 0
        self._total: int | None = None

    def __call__(self, number: int, total: int | None) -> None:
        """Note it, and show it."""
        self.number, self._total = number, total
        self._show(number, total)

    def each(self, items: Iterable[T]) -> Iterator[T]:
        """Pass on items, and count them."""
        for number, item in enumerate(items, 1):
            self.number = number
            if number % BAR_STEP == 0:
                self._show(number, None)
            yield item

    def __str__(self) -> str:
        if self._total is None:
            reached = format_count(self.number, "conversation")
        else:
            reached = f"{self.number:,} of {format_count(self._total, 'conversation')}"
        return f"{reached} {self._done}."


class StoreCommand(RichCommand):
    """A command that works on a store. Fill in `run`, and call `add_arguments` of this class.

    Any error of the store becomes one sentence on stderr and an exit code. Ctrl-C says how far it
    came and exits with 130.
    """

    verb: ClassVar[str]  # what it does, for its refusals: "purge"
    store: ConversationStore
    _track: Track | None = None  # how far it has come

    @abstractmethod
    def run(self, options: dict[str, Any]) -> None:
        """Do the work on `self.store`. `CommandError` and the errors of the store may be raised."""

    def add_arguments(self, parser: CommandParser) -> None:
        """See `BaseCommand.add_arguments`."""
        parser.add_argument(
            "--backend",
            metavar="NAME",
            help="another backend than that of the settings: its name or dotted path",
        )
        parser.add_argument("--json", action="store_true", help="print JSON")

    def handle(self, *args: Any, **options: Any) -> None:
        """Find the store, and `run`. See `BaseCommand.handle`."""
        named = options["backend"]
        self._track = None
        try:
            self.store = conversations if named is None else ConversationStore(named)
            self.run(options)
        except BackendUnavailable as error:
            raise self._ended_by(str(error), UNAVAILABLE) from error
        except ConversationCorrupt as error:
            raise self._ended_by(str(error), DAMAGED) from error
        except (ProtectedError, RestrictedError) as error:
            raise self._ended_by(_PROTECTED) from error
        except (ConversationError, ImproperlyConfigured) as error:
            raise self._ended_by(str(error)) from error

    def run_from_argv(self, argv: list[str]) -> None:
        """See `BaseCommand.run_from_argv`."""
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="backslashreplace")  # whatever the encoding lacks
        try:
            super().run_from_argv(argv)
            sys.stdout.flush()
        except KeyboardInterrupt:
            self.stderr.write(f"Interrupted. {self._track or ''}".rstrip())
            sys.exit(INTERRUPTED)
        except BrokenPipeError:
            # Who reads this, such as `head`, has had enough. At its end Python would flush again.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(FAILED)

    def _ended_by(self, sentence: str, code: int = FAILED) -> CommandError:
        """Return the error that says why it has ended, and how far it came, if it had begun."""
        track = self._track
        reached = f" {track}" if track is not None and track.number else ""
        return CommandError(sentence + reached, returncode=code)

    def make_rich_console(self, **kwargs: Any) -> Console:
        """Return the console for stdout, wide enough where that is no terminal."""
        console: Console = super().make_rich_console(**kwargs)
        if not console.is_terminal:
            console.width = 400  # a pipe has no width, and what is cut off would be lost
        return console

    def say(self, sentence: str) -> None:
        """Print a sentence to stdout, as it is."""
        self.console.print(sentence, highlight=False, markup=False, soft_wrap=True)

    def write_json(self, value: Any) -> None:
        """Print a value as one line of JSON; times as ISO 8601."""
        self.stdout.write(json.dumps(value, default=datetime.isoformat))

    @contextmanager
    def tracking(self, what: str, done: str) -> Iterator[Track]:
        """Show how far it is, on stderr if that is a terminal, and remember it for Ctrl-C.

        Args:
            what: is being done, for the bar: "Purging".
            done: what was done to each, for Ctrl-C: "looked at".
        """
        console = Console(stderr=True)
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
        )
        with Progress(
            *columns, console=console, transient=True, disable=not console.is_terminal
        ) as bar:
            task = bar.add_task(what, total=None)
            self._track = Track(lambda n, total: bar.update(task, completed=n, total=total), done)
            yield self._track
        self._track = None  # but for what was interrupted

    def confirm(self, question: str) -> None:
        """Go on only if the operator types "yes".

        Raises:
            CommandError: the answer is another, or there is no one to ask.
        """
        self.stderr.write(f"{question}\nType 'yes' to go on: ", ending="")
        self.stderr.flush()
        try:
            answer = input() if _can_be_read() else None
        except (EOFError, OSError):
            answer = None
        if answer is None:
            raise CommandError("There is nobody to ask. Use --no-input.")
        if answer.strip() != "yes":
            raise CommandError("Nothing was deleted.")

    def require_shared(self, *, is_target: bool = False) -> None:
        """Raise `CommandError` for a backend of which this process cannot see what others keep.

        `is_target`: the command puts something there.
        """
        backend = self.store.backend
        if not backend.is_shared:
            why = (
                "what is put there from here ends with this command"
                if is_target
                else f"nothing to {self.verb} from here"
            )
            raise CommandError(f"{backend.name} lives inside each server process: {why}.")

    def require_listing(self) -> None:
        """Raise `CommandError` for a backend that cannot list what it keeps."""
        self.require_shared()
        backend = self.store.backend
        if not backend.can_scan:
            raise CommandError(
                f"The {backend.name} backend cannot list conversations, so it finds none to "
                f"{self.verb}."
            )

    def require_owner(self, owner: str | None) -> None:
        """Raise `CommandError` where nothing is stored of an owner: it may be misspelt. None: it
        was not asked for one."""
        if owner is not None and next(self.store.list(owner, limit=1), None) is None:
            raise CommandError(f"Nothing is stored of the owner {owner!r}.")


def seconds_of(option: str, value: object) -> float | None:
    """Return the seconds of an option such as --idle; None if it was not given. For call_command(),
    too, it is text with a unit.

    Raises:
        CommandError: it is no duration.
    """
    if value is None:
        return None
    try:
        return parse_duration(str(value))
    except argparse.ArgumentTypeError as error:
        raise CommandError(f"{option}: {error}") from None


def _can_be_read() -> bool:
    """Tell whether the question can be answered: a terminal, or what was piped in before. A pipe on
    which nothing is sent, such as that of a scheduler, would be waited for without end."""
    if sys.stdin is None or sys.stdin.isatty():
        return sys.stdin is not None
    try:
        readable, _, _ = select.select([sys.stdin], [], [], 0)
    except (OSError, ValueError):  # no file, or none that can be asked
        return True
    return bool(readable)
