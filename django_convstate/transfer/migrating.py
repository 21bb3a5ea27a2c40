"""Copies all conversations from one store to another, while others go on writing to the first.

It remembers nothing between two runs: what is to be copied shows in versions and times. So one that
was killed is run again.
"""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from ..administration import repository_of
from ..backends.records import Record
from ..backends.reports import ConversationSummary, Progress
from ..exceptions import (
    ConversationBusy,
    ConversationConflict,
    ConversationCorrupt,
    ConversationTooLarge,
    InvalidConversationValue,
)
from ..ids import hashed_id
from ..repository import Repository
from ..store import ConversationStore
from .comparing import is_copy, is_newer, is_same, was_deleted
from .lines import Whole
from .reading import each_once, peek_if_sound, read_whole
from .seen import SeenIds

MAX_PASSES: Final = 10
_NOT_TAKEN: Final = (ConversationTooLarge, InvalidConversationValue)  # by the target

logger = logging.getLogger("django_convstate")


@dataclass(slots=True)
class MigrationReport:
    """What a migration has done, and how the stores compare at its end.

    Attributes:
        passes: how often the source was looked through for what has changed.
        copied: how many times a conversation was copied.
        deleted: how many were deleted in the target, because they were in the source.
        source, target: how many conversations there are; target is None where it cannot list them.
        verified: how many are the same in both: their times, and a digest of all they contain.
        changed: how many others have changed in the source since they were copied.
        newer: how many were saved later in the target than in the source. They were left alone.
        only_in_target: how many of the target are unknown in the source. They were left alone.
        differing: how many differ, though they were not changed.
        refused: how many could not be copied: damaged in the source, or too large for the target.
    """

    passes: int = 0
    copied: int = 0
    deleted: int = 0
    source: int = 0
    target: int | None = None
    verified: int = 0
    changed: int = 0
    newer: int = 0
    only_in_target: int = 0
    differing: int = 0
    refused: int = 0

    @property
    def is_complete(self) -> bool:
        """Whether all of the source is in the target, as it is in the source."""
        return self.verified == self.source


def migrate(
    source: ConversationStore,
    target: ConversationStore,
    *,
    target_is_used: bool = False,
    progress: Progress | None = None,
) -> MigrationReport:
    """Copy all conversations, then what has changed meanwhile, and compare both stores.

    Nothing is changed in the source, nor prolonged. In the target each conversation is visible as a
    whole or not at all. What was saved there later than in the source is left alone.

    Args:
        source: must be able to list.
        target: where to.
        target_is_used: others use the target by now: what was deleted in the source is left there.
        progress: called with the number of conversations that are done, and of all, anew with each
            pass.

    Raises:
        InvalidBackend: the source cannot list conversations.
        BackendUnavailable: one of the stores could not be reached. Run it again.
    """
    with SeenIds() as copied:
        migration = Migration(repository_of(source), repository_of(target), copied, progress)
        migration.copy_all()
        with SeenIds() as present:
            migration.verify(present)
            backend = target.backend
            lists = backend.can_scan
            ids = map(_id_of, each_once(migration.target, None)) if lists else iter(copied)
            count = migration.compare(ids, present, deletes=not target_is_used)
            migration.report.target = count if lists else None
        return migration.report


class Migration:
    """One run of a migration."""

    def __init__(
        self,
        source: Repository,
        target: Repository,
        copied: SeenIds,
        progress: Progress | None,
    ) -> None:
        self.source = source
        self.target = target
        self.report = MigrationReport()
        self._copied = copied
        self._progress = progress
        self._total: int | None = None

    def copy_all(self) -> None:
        """Copy what the target lacks, again and again, as long as each time it is less."""
        before: int | None = None
        while self.report.passes < MAX_PASSES:
            self.report.passes += 1
            copied = sum(self._copy_if_needed(summary) for summary in self._each())
            if not copied or (before is not None and copied >= before):
                return
            before = copied

    def verify(self, present: SeenIds) -> None:
        """Compare all of each conversation; copy once more what has changed. Note in `present` what
        is in the source."""
        report = self.report
        report.refused = report.newer = 0
        for summary in self._each():
            present.add(summary.id)
            report.source += 1
            match self._verdict(summary):
                case "same":
                    report.verified += 1
                case "gone":
                    report.source -= 1
                case "newer":
                    report.newer += 1
                case "refused":
                    report.refused += 1
                case "changed":
                    report.changed += 1
                case _:
                    report.differing += 1

    def compare(self, ids: Iterator[str], present: SeenIds, *, deletes: bool) -> int:
        """Delete in the target what was deleted in the source. Return how many are left.

        Args:
            ids: of the target.
            present: ids of the source.
            deletes: False: only count them.
        """
        count = 0
        for id in ids:
            count += 1
            if id in present or self.source.exists(id):
                continue
            if deletes and was_deleted(self.source, id):
                self.report.deleted += self.target.delete(id)
                count -= 1
            else:
                self.report.only_in_target += 1
        return count

    def _each(self) -> Iterator[ConversationSummary]:
        done = 0
        for done, summary in enumerate(each_once(self.source, None), 1):
            yield summary
            if self._progress:
                self._progress(done, self._total)
        self._total = done

    def _copy_if_needed(self, summary: ConversationSummary) -> bool:
        found = peek_if_sound(self.target, summary.id)
        if found is not None and (is_newer(found, summary) or is_copy(found, summary)):
            return False
        try:
            return self._copy(summary, found)
        except (ConversationCorrupt, ConversationBusy, *_NOT_TAKEN):
            return False  # which is counted when it is verified

    def _copy(self, summary: ConversationSummary, found: Record | None) -> bool:
        whole = read_whole(self.source, summary)
        if whole is None or whole.has_expired(self.target.options.max_age):
            return False
        try:
            self.target.restore(
                summary.id,
                whole.record,
                iter(whole.messages),
                replaces=found.version if found else None,
            )
        except ConversationConflict:
            return False  # others have changed it in the target
        self._copied.add(summary.id)
        self.report.copied += 1
        return True

    def _verdict(self, summary: ConversationSummary) -> str:
        try:
            verdict = self._judge(summary)
            if verdict in ("changed", "differing"):
                found = peek_if_sound(self.target, summary.id)
                if found is not None and is_newer(found, summary):
                    return "newer"
                if self._copy(summary, found):
                    verdict = self._judge(summary)
        except (ConversationCorrupt, *_NOT_TAKEN) as error:
            logger.warning("Conversation %s is not copied: %s", hashed_id(summary.id), error)
            return "refused"
        except ConversationBusy:
            return "changed"
        return verdict

    def _judge(self, summary: ConversationSummary) -> str:
        whole = read_whole(self.source, summary)
        if whole is None or whole.has_expired(self.target.options.max_age):
            return "gone"
        copy = self._read_copy(summary)
        if copy is not None and is_same(whole, copy):
            return "same"
        is_behind = copy is None or copy.record.version != whole.record.version
        return "changed" if is_behind else "differing"

    def _read_copy(self, summary: ConversationSummary) -> Whole | None:
        try:
            return read_whole(self.target, summary)
        except ConversationCorrupt:
            return None


def _id_of(summary: ConversationSummary) -> str:
    return summary.id
