"""A primary backend that may be away, and what goes on in its place until it is back.

backend.py   asks the primary, or the shelter
breaker.py   when to leave the primary alone, and when to look whether it is back
shelter.py   serves meanwhile, from what was last known (known.py), and notes every change in
             the journal (journal.py)
recovery.py  a thread that lives as long as an outage: looks, tells, and has the journal
             brought home (replay.py)
"""

from .backend import FailoverBackend

__all__ = ["FailoverBackend"]
