"""Requests that wrap ours: `request.conversation = ...` in a view of Django REST framework.

Its request passes on what is read of Django's request, but keeps what is assigned for itself, where
the middleware would never see it.
"""

import sys
from typing import Any


def forward_assignments() -> None:
    """Have REST framework's request pass on an assigned conversation, if it is imported."""
    module = sys.modules.get("rest_framework.request")
    if module is not None and "conversation" not in vars(module.Request):
        module.Request.conversation = property(_read, _assign)


def _read(wrapper: Any) -> Any:
    return wrapper._request.conversation


def _assign(wrapper: Any, conversation: Any) -> None:
    wrapper._request.conversation = conversation
