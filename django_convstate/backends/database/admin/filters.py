"""By what the list of conversations may be narrowed, beside its fields."""

from collections.abc import Iterable
from datetime import timedelta
from typing import Any, Final

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.translation import gettext_lazy as _

from .... import clock
from ..times import when

PARAMETER: Final = "expiry"
_SPANS: Final = {"day": timedelta(days=1), "week": timedelta(days=7), "month": timedelta(days=30)}


class ExpiryFilter(admin.SimpleListFilter):
    """How soon a conversation expires if it is not used again."""

    title = _("expiry")
    parameter_name = PARAMETER

    def lookups(self, request: HttpRequest, model_admin: Any) -> Iterable[tuple[str, Any]]:
        """Return what there is to choose."""
        return [
            ("day", _("Within a day")),
            ("week", _("Within 7 days")),
            ("month", _("Within 30 days")),
            ("never", _("Never")),
        ]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        """Return the conversations that fit."""
        if self.value() == "never":
            return queryset.filter(expires_at__isnull=True)
        if (span := _SPANS.get(self.value() or "")) is None:
            return queryset
        return queryset.filter(expires_at__lte=when(clock.time() + span.total_seconds()))
