from __future__ import annotations

from django.contrib.auth.base_user import AbstractBaseUser, BaseUserManager
from django.contrib.auth.models import PermissionsMixin
from django.db import models


class Worker(AbstractBaseUser, PermissionsMixin):
    """Signs in with a number."""

    number = models.PositiveIntegerField(unique=True)
    is_staff = models.BooleanField(default=True)

    objects = BaseUserManager["Worker"]()

    USERNAME_FIELD = "number"
