"""The project that is measured: nothing but what the measured code needs."""

SECRET_KEY = "only for benchmarks, where nothing is secret: 0123456789"
ROOT_URLCONF = "benchmarks.settings"
urlpatterns: list[object] = []
INSTALLED_APPS = ["django_convstate"]
SESSION_ENGINE = "django.contrib.sessions.backends.cache"
CACHES = {
    "default": {
        "BACKEND": "django.core.cache.backends.locmem.LocMemCache",
        "OPTIONS": {"MAX_ENTRIES": 100_000},
    }
}
