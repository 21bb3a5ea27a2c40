"""The app: registers the system checks, and the receivers of logins and logouts."""

from django.apps import AppConfig
from django.core import checks
from django.utils.translation import gettext_lazy as _


class ConvstateConfig(AppConfig):
    """The configuration that Django finds for "django_convstate" in INSTALLED_APPS."""

    name = "django_convstate"
    verbose_name = _("Conversations")

    def ready(self) -> None:
        """Register checks and receivers."""
        from django.contrib.auth.signals import user_logged_in, user_logged_out

        from .checks import check_deployment, check_settings
        from .http.login import end_login, note_login

        checks.register(check_settings)
        checks.register(check_deployment, deploy=True)
        user_logged_in.connect(note_login, dispatch_uid="django_convstate.note_login")
        user_logged_out.connect(end_login, dispatch_uid="django_convstate.end_login")
