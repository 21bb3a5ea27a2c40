"""Health at a URL of your choice:

    path("health/", include("django_convstate.urls"))

makes /health/ tell whether the process can serve conversations, and /health/live/ whether it runs.
"""

from django.urls import path

from .http import health as views

app_name = "convstate"

urlpatterns = [
    path("", views.ready, name="ready"),
    path("live/", views.live, name="live"),
]
