from django.apps import AppConfig


class ConciergeConfig(AppConfig):
    name = "example_project.concierge"
    label = "concierge"
