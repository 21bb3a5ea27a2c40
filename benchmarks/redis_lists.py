"""Lists of an owner's conversations with their titles."""

import math
import time
from functools import partial

from benchmarks.measure import Spread, in_turn
from benchmarks.report import Report
from django_convstate import ConversationStore
from django_convstate.backends.records import Record
from django_convstate.ids import new_id


def with_conversations(report: Report, store: ConversationStore, count: int, minutes: float) -> str:
    """Store conversations with titles, saved so many minutes apart, and return their owner."""
    owner, now = f"{count} {minutes}", time.time()
    for number in report.track(range(count), "Lists"):
        saved = round(now - number * minutes * 60, 3)
        record = Record(
            id=new_id(),
            version=1,
            owner=owner,
            created_at=saved,
            modified_at=saved,
            last_accessed=now,
            expires_at=math.inf,
            ttl=math.inf,
            state={"title": b'"A title of some words"', "step": b"3"},
            messages=[],
            message_count=4,
        )
        texts = [(f"msg{at}", b'{"role":"user","content":"%b"}' % (b"x" * 200)) for at in range(4)]
        store.backend.restore(record.id, record, texts)
    return owner


def run(report: Report, url: str) -> None:
    store, many = ConversationStore("redis"), report.rounds(10_000)
    few, apart, crowd = (
        with_conversations(report, store, count, minutes)
        for count, minutes in ((100, 2), (many, 2), (many, 0.0001))
    )

    def titles(owner: str, limit: int) -> None:
        for summary in store.list(owner, limit=limit, keys=["title"]):
            _ = summary.state["title"]

    times = in_turn(
        {
            "a page of 50, of 100": lambda: partial(titles, few, 50),
            f"a page of 50, of {many:,}": lambda: partial(titles, apart, 50),
            f"a page of 50, of {many:,} saved in one minute": lambda: partial(titles, crowd, 50),
            f"a sidebar of 500, of {many:,}": lambda: partial(titles, apart, 500),
        },
        batches=report.rounds(30),
        calls=1,
    )
    rows = [
        [name, str(Spread.of([each / 1000 for each in taken]))] for name, taken in times.items()
    ]
    report.table("lists", "Titles of an owner's conversations", ("", "ms"), rows)
    store.close()
