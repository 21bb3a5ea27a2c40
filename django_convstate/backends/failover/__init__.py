"""A primary backend, and what serves in its place while it is unavailable.

backend.py     asks the primary or, in an outage, the offline store
turns.py       the part of it that concerns turns
route.py       what one operation may ask of the primary, and what it learns about it
breaker.py     when to stop asking the primary, and when to probe it
last_known.py  conversations as they were last seen in the primary
snapshot.py    one of them
exact.py       one of them that is certainly what is stored
offline.py     serves in an outage, from what was last known, and journals every change
journal.py     the changes that the primary has yet to apply
leases.py      turns, before, in and after an outage
recovery.py    the thread of an outage: it probes the primary, and has the journal replayed
replay.py      sends the changes of one conversation to the primary
pieces.py      divides a change that is too large for that
announcements.py  sends the signals of an outage, and its log lines
"""

from .backend import FailoverBackend

__all__ = ["FailoverBackend"]
