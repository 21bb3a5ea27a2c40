"""Reads conversations from a stream of JSON lines, and keeps them as they were."""

import zlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import IO, Final, Literal

from ..administration import repository_of
from ..backends.reports import Progress
from ..exceptions import (
    ConversationConflict,
    ConversationCorrupt,
    ConversationNotFound,
    ConversationTooLarge,
    InvalidConversationValue,
    InvalidExport,
)
from ..repository import Repository
from ..store import ConversationStore, conversations
from .lines import Whole, parse_line
from .reading import TOLERANCE, peek, peek_if_sound
from .seen import SeenIds

OnConflict = Literal["fail", "skip", "replace"]
MAX_LINE: Final = 2**30  # bytes
MAX_PROBLEMS: Final = 100  # that are told
COMPARED: Final = 50  # messages, to tell whether two conversations are the same
_TRIES: Final = 20  # while others keep changing what is to be replaced
_TRUNCATED: Final = "The file ends in the midst of what was compressed: it is cut off, or damaged."


@dataclass(slots=True)
class ImportReport:
    """What became of the conversations in a file.

    Attributes:
        imported: were kept; of these,
        replaced: took the place of another.
        skipped: their ids were there already.
        expired: their time to live is over by now.
        refused: the backend did not take, though they are conversations.
        problems: the numbers of the lines of these, from 1 on, each with the reason; the first
            hundred.
    """

    imported: int = 0
    replaced: int = 0
    skipped: int = 0
    expired: int = 0
    refused: int = 0
    problems: list[tuple[int, str]] = field(default_factory=list)


def import_from(
    file: IO[bytes],
    on_conflict: OnConflict = "fail",
    *,
    store: ConversationStore = conversations,
    progress: Progress | None = None,
) -> ImportReport:
    """Keep the conversations of a file as they were: with ids, versions, times, owners.

    The file is read twice: first it is checked, so that nothing is imported of one that has a bad
    line. Each conversation is visible as a whole or not at all. If this is interrupted, it can be
    run again, with "skip".

    Args:
        file: to read from, at its beginning, that can `seek`; `open_to_read` opens one.
        on_conflict: what becomes of a conversation whose id is there already: "fail" (import
            nothing), "skip" it, or "replace" what is there.
        store: where to.
        progress: called with the number of lines that are done, and of all.

    Raises:
        InvalidExport: there are bad lines; or ids that are there already, with "fail". Nothing was
            imported.
        ConversationConflict: with "fail": the id has been taken since it was looked for. The
            message says what was imported.
        BackendUnavailable: the store could not be reached, or did not keep a conversation.
        OSError: the file cannot be read.
    """
    repository = repository_of(store)
    total = _check(file, repository, forbids_existing=on_conflict == "fail")
    file.seek(0)
    report = ImportReport()
    for done, (number, line) in enumerate(lines_in(file), 1):
        try:
            _import(repository, parse_line(line), on_conflict, report)
        except ConversationConflict as error:
            raise ConversationConflict(
                f"Line {number}: {error} {report.imported} conversations before it were imported."
            ) from error
        except (ConversationTooLarge, InvalidConversationValue) as error:
            report.refused += 1
            if report.refused <= MAX_PROBLEMS:
                report.problems.append((number, str(error)))
        if progress:
            progress(done, total)
    return report


def lines_in(file: IO[bytes]) -> Iterator[tuple[int, bytes]]:
    """Yield the lines that are not empty, with their numbers from 1 on.

    Raises:
        InvalidExport: it cannot be read on: it is cut off, no gzip, or a line is too long.
    """
    number = 0
    while True:
        number += 1
        try:
            line = file.readline(MAX_LINE)
        except (EOFError, zlib.error) as error:
            raise _unreadable(number, _TRUNCATED) from error
        except OSError as error:
            if error.errno is not None:  # of the system, and not of gzip
                raise
            raise _unreadable(number, "It is not compressed by gzip, or damaged.") from error
        if not line:
            return
        if len(line) == MAX_LINE:
            raise _unreadable(number, f"It is longer than {MAX_LINE >> 20} MiB.")
        if line.strip():
            yield number, line


def _unreadable(number: int, problem: str) -> InvalidExport:
    return InvalidExport(f"The file cannot be read from line {number} on.", [(number, problem)])


def _check(file: IO[bytes], repository: Repository, *, forbids_existing: bool) -> int:
    """Return the number of conversations.

    Raises:
        InvalidExport: see `import_from`.
    """
    problems: list[tuple[int, str]] = []
    count = bad = 0
    with SeenIds() as seen:
        try:
            for number, line in lines_in(file):
                count += 1
                if problem := _problem_of(line, seen, repository, forbids_existing):
                    bad += 1
                    problems.append((number, problem))
                    del problems[MAX_PROBLEMS:]
        except InvalidExport as error:
            count, bad = count + 1, bad + 1
            problems = [*problems[: MAX_PROBLEMS - 1], *error.problems]
    if bad:
        raise InvalidExport(
            f"{bad} of {count} lines cannot be imported. Nothing was imported.", problems
        )
    return count


def _problem_of(
    line: bytes, seen: SeenIds, repository: Repository, forbids_existing: bool
) -> str | None:
    try:
        id = parse_line(line).record.id
    except ValueError as error:
        return str(error)
    if not seen.add(id):
        return "Its id is that of a line before."
    if forbids_existing and repository.exists(id):
        return "There is a conversation with its id already."
    return None


def _import(
    repository: Repository, whole: Whole, on_conflict: OnConflict, report: ImportReport
) -> None:
    if whole.has_expired(repository.options.max_age):
        report.expired += 1
        return
    try:
        repository.restore(whole.record.id, whole.record, iter(whole.messages))
    except ConversationConflict:
        if on_conflict == "fail" and not _is_there(repository, whole):
            raise
        if on_conflict == "skip":
            report.skipped += 1
            return
        if on_conflict == "replace":
            report.replaced += put(repository, whole)
    report.imported += 1


def _is_there(repository: Repository, whole: Whole) -> bool:
    """Tell whether what is stored under an id is what was to be imported: the reply may have been
    lost, and the request sent again."""
    with suppress(ConversationNotFound, ConversationCorrupt):
        found, record = peek(repository, whole.record.id, COMPARED), whole.record
        newest = list(whole.messages[-COMPARED:])
        return (
            (found.version, found.owner, found.message_count)
            == (record.version, record.owner, record.message_count)
            and abs(found.created_at - record.created_at) <= TOLERANCE
            and (found.state, list(found.messages)) == (record.state, newest)
        )
    return False


def put(repository: Repository, whole: Whole) -> bool:
    """Keep a conversation in the place of what is there. False: nothing was.

    Raises:
        ConversationConflict: others did not stop changing what was there.
    """
    for left in reversed(range(_TRIES)):
        found = peek_if_sound(repository, whole.record.id)
        version = found.version if found else None
        try:
            repository.restore(
                whole.record.id, whole.record, iter(whole.messages), replaces=version
            )
        except ConversationConflict:
            if not left:
                raise
        else:
            return version is not None
    raise AssertionError("unreachable")
