"""The page, its API, and the admin at /admin/."""

from django.contrib import admin
from django.urls import path

from .urls import urlpatterns as concierge

urlpatterns = [path("admin/", admin.site.urls), *concierge]
