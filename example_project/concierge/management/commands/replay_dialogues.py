"""Show, on real dialogues, that conversations keep what they are given."""

import time
from pathlib import Path
from typing import Any

from django.core.management.base import CommandError, CommandParser
from django_rich.management import RichCommand
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
)
from rich.text import Text

from django_convstate import ConversationError, conversations

from ...replay import Dialogue, DialogueFileError, Replay, ReplayError, read_dialogues

INTERRUPTED = 130  # the exit code of what Ctrl-C has stopped


class Command(RichCommand):
    help = (
        "Says recorded dialogues (JSON, as in the Schema-Guided Dialogue dataset) in conversations "
        "of the default store, reads them back and compares. Deletes them afterwards. Exits with 1 "
        "at the first difference."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("files", nargs="+", type=Path, metavar="FILE")
        parser.add_argument(
            "--workers",
            type=int,
            default=4,
            metavar="N",
            help="how many dialogues at a time (default: %(default)s)",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        if options["workers"] < 1:
            raise CommandError("--workers must be at least 1.")
        try:
            dialogues = [each for path in options["files"] for each in read_dialogues(path)]
            seconds = self._replay(dialogues, options["workers"])
        except (DialogueFileError, ReplayError, ConversationError) as error:
            raise CommandError(str(error)) from error
        except KeyboardInterrupt:
            raise CommandError("Interrupted.", returncode=INTERRUPTED) from None
        turns = sum(len(dialogue.turns) for dialogue in dialogues)
        self.console.print(
            f"{len(dialogues)} dialogues with {turns} turns, written to "
            f"{conversations.backend.name} in {seconds:.2f} s ({turns / seconds:,.0f} turns/s, "
            f"--workers {options['workers']}).\nAll read back as they were written.",
            highlight=False,
            soft_wrap=True,
        )

    def _replay(self, dialogues: list[Dialogue], workers: int) -> float:
        """Write, compare, delete; return the seconds that writing took."""
        turns = sum(len(dialogue.turns) for dialogue in dialogues)
        columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), _Speed()
        hidden = not self.console.is_terminal
        with Progress(*columns, console=self.console, transient=True, disable=hidden) as bar:
            task = bar.add_task("Writing", total=turns)
            replay = Replay(
                conversations, dialogues, workers=workers, progress=lambda: bar.advance(task)
            )
            try:
                started = time.perf_counter()
                replay.write()
                seconds = time.perf_counter() - started
                bar.reset(task, description="Comparing")
                replay.compare()
            finally:
                replay.clean_up()
        return seconds


class _Speed(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(f"{task.speed or 0:,.0f} turns/s")
