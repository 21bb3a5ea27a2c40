"""Settings of a command in a process of its own: what the test gives in the environment."""

import json
import os

SECRET_KEY = "only for tests, where nothing is secret: 0123456789abcdef"
USE_TZ = True
INSTALLED_APPS = ["django_convstate", "django_convstate.backends.database"]
SILENCED_SYSTEM_CHECKS = ["convstate.W011"]  # there is no middleware

globals().update(json.loads(os.environ["CONVSTATE_COMMAND_SETTINGS"]))
