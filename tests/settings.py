"""Settings of the test project: every kind of cache, each in a real place of its own."""

import os
import tempfile
from pathlib import Path

from tests.support.servers import SERVICE, free_ports

WORKER = os.environ.get("PYTEST_XDIST_WORKER", "main")
FILES = Path(tempfile.mkdtemp(prefix=f"convstate-{WORKER}-"))
SENTINEL_PORTS, CLUSTER_PORTS = free_ports(3), free_ports(6)
REDIS_URL = os.environ.get("CONVSTATE_TEST_REDIS_URL", f"unix://{FILES}/valkey.sock")

SECRET_KEY = "only for tests, where nothing is secret: 0123456789abcdef"
USE_TZ = True
ALLOWED_HOSTS = ["*"]
ROOT_URLCONF = "tests.support.urls"
STATIC_URL = "static/"
CONCIERGE_PAUSE = 0.0  # the example's
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]
SILENCED_SYSTEM_CHECKS: list[str] = []

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.messages",
    "django.contrib.sessions",
    "django_convstate",
    "django_convstate.backends.database",
    "tests.support.host",
]
MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django_convstate.middleware.ConversationMiddleware",
]
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": FILES / "db.sqlite3",
        # A file, because threads share it; IMMEDIATE, because two of them that read and then
        # write would otherwise fail at once instead of waiting for each other.
        "TEST": {"NAME": FILES / "test.sqlite3"},
        "OPTIONS": {
            "timeout": 20,
            "transaction_mode": "IMMEDIATE",
            # No test cuts the power, so that none waits for the disk.
            "init_command": "PRAGMA synchronous=OFF",
        },
    }
}
PLENTY = {"MAX_ENTRIES": 100_000}
# A machine that runs several tests and servers at once may well keep one waiting for 250 ms.
PATIENT = {"SOCKET_TIMEOUT": 20, "SOCKET_CONNECT_TIMEOUT": 20}
CACHES = {
    "default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache", "OPTIONS": PLENTY},
    "file": {
        "BACKEND": "django.core.cache.backends.filebased.FileBasedCache",
        "LOCATION": FILES / "cache",
        "OPTIONS": PLENTY,
    },
    "database": {
        "BACKEND": "django.core.cache.backends.db.DatabaseCache",
        "LOCATION": "cache_table",
        "OPTIONS": PLENTY,
    },
    "redis": {
        "BACKEND": "django.core.cache.backends.redis.RedisCache",
        "LOCATION": REDIS_URL,
        "KEY_PREFIX": f"django-{WORKER}",
    },
    "django_redis": {
        "BACKEND": "django_redis.cache.RedisCache",
        "LOCATION": REDIS_URL,
        "KEY_PREFIX": f"django-redis-{WORKER}",
        "OPTIONS": PATIENT,
    },
    "sentinel": {
        "BACKEND": "django_redis.cache.RedisCache",
        "LOCATION": f"redis://{SERVICE}/0",
        "OPTIONS": {
            "CLIENT_CLASS": "django_redis.client.SentinelClient",
            "CONNECTION_FACTORY": "django_redis.pool.SentinelConnectionFactory",
            "SENTINELS": [("127.0.0.1", SENTINEL_PORTS[2])],
            **PATIENT,
        },
    },
    "cluster": {
        "BACKEND": "django_redis.cache.RedisCache",
        "LOCATION": f"redis://127.0.0.1:{CLUSTER_PORTS[0]}",
        "OPTIONS": {
            "CONNECTION_FACTORY": (
                "django_convstate.backends.redis.cluster.ClusterConnectionFactory"
            ),
            **PATIENT,
        },
    },
    "dummy": {"BACKEND": "django.core.cache.backends.dummy.DummyCache"},
    # Nobody listens there.
    "unreachable": {
        "BACKEND": "django.core.cache.backends.redis.RedisCache",
        "LOCATION": "redis://127.0.0.1:1",
        "OPTIONS": {"socket_connect_timeout": 0.2, "retry_on_timeout": False},
    },
}
