INSTALLED_APPS = [
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.messages",
    "django.contrib.sessions",
    "rest_framework",
    "django_header_sessions",
]
MIDDLEWARE = ["django_header_sessions.middleware.HeaderSessionMiddleware"]
SESSION_ENGINE = "django_header_sessions.engine"
SECRET_KEY = "only for types"
