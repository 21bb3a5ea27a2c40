"""Settings of the example on the database of a test, whose entry is in the environment."""

import json
import os

from example_project.settings_database import *  # noqa: F403

DATABASES = {"default": json.loads(os.environ["EXAMPLE_DATABASE"])}
