"""The app of the tables. Its label is "convstate_database"."""

from django.apps import AppConfig
from django.core import checks
from django.utils.translation import gettext_lazy as _


class DatabaseBackendConfig(AppConfig):
    """The configuration of "django_convstate.backends.database" in INSTALLED_APPS."""

    name = "django_convstate.backends.database"
    label = "convstate_database"
    verbose_name = _("Stored conversations")
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Register the check that asks the database."""
        from .checks import check_databases

        checks.register(check_databases, checks.Tags.database)
