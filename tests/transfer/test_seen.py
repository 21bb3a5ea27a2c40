"""Ids that were seen, in a file."""

import threading

from django_convstate.transfer.seen import SeenIds


def test_an_id_is_added_once() -> None:
    with SeenIds() as seen:
        assert seen.add("a")
        assert not seen.add("a")
        assert "a" in seen
        assert "b" not in seen
        assert list(seen) == ["a"]


def test_it_can_be_closed_in_another_thread() -> None:
    """As by the garbage collector, where an error has left a listing open."""
    seen, errors = SeenIds(), list[Exception]()

    def close() -> None:
        try:
            seen.__exit__()
        except Exception as error:
            errors.append(error)

    thread = threading.Thread(target=close)
    thread.start()
    thread.join()
    assert not errors
