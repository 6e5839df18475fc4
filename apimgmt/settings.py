"""Django's settings; the defaults are safe and use the embedded engines."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from csp.constants import NONE, SELF

from apimgmt import env, look, rest

BASE_DIR = Path(__file__).resolve().parent.parent
DATA_DIR = env.data_dir()

SECRET_KEY = env.secret("SECRET_KEY")
KEY_PEPPER = env.secret("KEY_PEPPER")
DEBUG = env.flag("DEBUG")
PUBLIC_URL = env.public_url()
MQTT_URL = env.mqtt_url()
ADMIN_PUBLIC_URL = env.admin_public_url()
ALLOWED_HOSTS = env.names("ALLOWED_HOSTS") or [
    "localhost", "127.0.0.1", "[::1]", env.public_host(), env.admin_public_host(),
]  # fmt: skip
IS_HTTPS = ADMIN_PUBLIC_URL.startswith("https://")
# Never the data plane's origin: what an upstream serves there must not act as an operator.
CSRF_TRUSTED_ORIGINS = env.names("CSRF_TRUSTED_ORIGINS", ADMIN_PUBLIC_URL)
TRUSTED_PROXIES = env.networks("TRUSTED_PROXIES")
OUTBOUND_ALLOWED_NETWORKS = env.networks("OUTBOUND_ALLOWED_NETWORKS")
OWN_ENDPOINTS = env.own_endpoints()
RETENTION = env.retention()
RETENTION_AUDIT_DIR = Path(env.retention_text("RETENTION_AUDIT_DIR") or DATA_DIR / "audit")
REDIS_URL = env.engine_url("REDIS_URL")
NATS_URL = env.engine_url("NATS_URL")

INSTALLED_APPS = [
    "apimgmt.apps.ProjectConfig",
    "unfold",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "rest_framework",
    "django_filters",
    "drf_spectacular",
    "csp",
    "operators",
    "accounts",
    "audit",
    "consumers",
    "keys",
    "routes",
    "events",
    "analytics",
    "jobs",
    "configuration",
]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "servestatic.middleware.ServeStaticMiddleware",
    "operators.refused_operators.RefusedOperators",
    "apimgmt.origins.Origins",
    "csp.middleware.CSPMiddleware",
    "apimgmt.admin_csp.AdminPolicy",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "apimgmt.operators_connections.OperatorsConnections",
    "django.contrib.messages.middleware.MessageMiddleware",
    "operators.known_devices.SignIns",
    "accounts.sessions.OperatorSessions",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]
ROOT_URLCONF = "apimgmt.urls"
ASGI_APPLICATION = "apimgmt.asgi.development_application"  # what runserver serves
TEMPLATES: list[dict[str, Any]] = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
                "apimgmt.origins.links",
            ],
        },
    },
]


def _database() -> dict[str, Any]:
    """Return the database of DATABASE_URL; by default SQLite in the data directory."""
    url = env.text("DATABASE_URL")
    if not url:
        return {
            "ENGINE": "apimgmt.sqlite",
            "NAME": DATA_DIR / "apimgmt.sqlite3",
            "OPTIONS": {
                # Immediate, so that a transaction that reads and then writes waits for the lock instead of failing.
                "transaction_mode": "IMMEDIATE",
                "timeout": 5,
                # Without auto_vacuum: each new connection would wait for a writer. A migration sets it once.
                "init_command": (
                    "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL; PRAGMA cache_size=-16000; "
                    "PRAGMA journal_size_limit=67108864;"
                ),
            },
            "TEST": {"NAME": DATA_DIR / "test.sqlite3"},
        }
    parts = urlsplit(url)
    if parts.scheme not in ("postgres", "postgresql"):
        raise env.InvalidSetting("DATABASE_URL must begin with postgres://; leave it unset for SQLite.")
    return {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": unquote(parts.path.lstrip("/")),
        "USER": unquote(parts.username or ""),
        "PASSWORD": unquote(parts.password or ""),
        "HOST": parts.hostname or "",
        "PORT": str(parts.port or ""),
        "OPTIONS": {"connect_timeout": 5, **env.postgres_options(parts.query)},
    }


PUBLISHED_WITHIN_S = 1.0
"""How long a write over the management API waits until it is published to the data plane."""

DATABASES = {"default": _database()}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

CACHES = {
    "default": {
        "BACKEND": "django.core.cache.backends.redis.RedisCache",
        "LOCATION": env.redis_database(REDIS_URL, 2),
        "OPTIONS": {"socket_timeout": 0.5, "socket_connect_timeout": 0.5},
    }
    if REDIS_URL
    else {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}
}

AUTHENTICATION_BACKENDS = ["operators.sign_in.LimitedPasswords"]
AUTH_PASSWORD_VALIDATORS: list[dict[str, Any]] = [
    {"NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator"},
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator", "OPTIONS": {"min_length": 12}},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
    {"NAME": "django.contrib.auth.password_validation.NumericPasswordValidator"},
]
TOKEN_DAYS = env.positive("TOKEN_DAYS", 90)
SESSION_IDLE_S = env.positive("SESSION_IDLE_S", 3600)
SESSION_MAX_S = SESSION_COOKIE_AGE = env.positive("SESSION_MAX_S", 12 * 3600)
REQUIRE_SECOND_FACTOR = env.flag("REQUIRE_SECOND_FACTOR")
OIDC = env.oidc()
LOGIN_URL = "/dashboards/login"
LOGIN_REDIRECT_URL = "/dashboards/"
LOGOUT_REDIRECT_URL = "/"

LANGUAGE_CODE = "en"
TIME_ZONE = "UTC"
USE_I18N = False
USE_TZ = True
FORMAT_MODULE_PATH = ["apimgmt.formats"]

STATIC_URL = "/static/"
STATICFILES_DIRS = [BASE_DIR / "static"]
STATIC_ROOT = DATA_DIR / "static"
SERVESTATIC_USE_FINDERS = True
SERVESTATIC_AUTOREFRESH = False

MESSAGE_STORAGE = "django.contrib.messages.storage.session.SessionStorage"  # no cookie of its own
SESSION_COOKIE_HTTPONLY = CSRF_COOKIE_HTTPONLY = True
SESSION_COOKIE_SAMESITE = CSRF_COOKIE_SAMESITE = "Lax"
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = IS_HTTPS
# Browsers accept a cookie named `__Host-…` only from this exact host, over https and for every path.
SESSION_COOKIE_NAME, CSRF_COOKIE_NAME, DEVICE_COOKIE_NAME, OIDC_COOKIE_NAME = (
    f"{'__Host-' if IS_HTTPS else ''}{name}" for name in ("sessionid", "csrftoken", "apimgmt_device", "apimgmt_oidc")
)
SECURE_SSL_REDIRECT = False  # TLS is terminated by the reverse proxy, which redirects
SECURE_HSTS_SECONDS = 31_536_000 if IS_HTTPS or PUBLIC_URL.startswith("https://") else 0  # sent over https only
SECURE_HSTS_INCLUDE_SUBDOMAINS = SECURE_HSTS_PRELOAD = SECURE_HSTS_SECONDS > 0
SECURE_CONTENT_TYPE_NOSNIFF = True
# Without a referrer, browsers send `Origin: null` with forms, which Django's CSRF protection refuses.
SECURE_REFERRER_POLICY = "same-origin"
X_FRAME_OPTIONS = "DENY"
DATA_UPLOAD_MAX_MEMORY_SIZE = 2 * 1024 * 1024
SILENCED_SYSTEM_CHECKS = [
    "security.W008",  # TLS is terminated by the reverse proxy, which redirects
]

CONTENT_SECURITY_POLICY = {
    "DIRECTIVES": {
        "default-src": [NONE],
        "script-src": [SELF],
        "style-src": [SELF],
        "img-src": [SELF, "data:"],
        "font-src": [SELF],
        "connect-src": [SELF],
        "form-action": [SELF],
        "frame-ancestors": [NONE],
        "base-uri": [NONE],
    }
}

UNFOLD = look.UNFOLD
REST_FRAMEWORK = rest.REST_FRAMEWORK
SPECTACULAR_SETTINGS = rest.SPECTACULAR_SETTINGS

CELERY_BROKER_URL = env.redis_database(REDIS_URL, 1)
CELERY_TASK_IGNORE_RESULT = True  # the Job row is the result
CELERY_TASK_PUBLISH_RETRY = False
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_BROKER_CONNECTION_MAX_RETRIES = None  # no limit
CELERY_BROKER_TRANSPORT_OPTIONS = {
    "visibility_timeout": 24 * 3600,
    "socket_timeout": 5,
    "socket_connect_timeout": 0.5,
    "retry_on_timeout": True,
    "health_check_interval": 5,
}
CELERY_WORKER_PREFETCH_MULTIPLIER = 1
CELERY_WORKER_HIJACK_ROOT_LOGGER = False
CELERY_BEAT_SCHEDULER = "apimgmt.beat:Scheduler"
CELERY_BEAT_SCHEDULE = {
    "requeue lost jobs": {"task": "jobs.sweep", "schedule": 2.0, "options": {"expires": 2}},
    "keep to the bounds of what is kept": {
        "task": "apimgmt.keep_bounds",
        "schedule": 60.0,
        "options": {"expires": 60},
    },
    "requeue lost jobs of dead letters": {
        "task": "events.sweep_letter_jobs",
        "schedule": 10.0,
        "options": {"expires": 10},
    },
}

LOGGING: dict[str, Any] = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"json": {"()": "apimgmt.logs.JsonFormatter"}},
    "filters": {"strangers": {"()": "apimgmt.logs.StrangersLines"}},
    "handlers": {"stream": {"class": "logging.StreamHandler", "formatter": "json", "filters": ["strangers"]}},
    "root": {"handlers": ["stream"], "level": env.text("LOG_LEVEL", "INFO")},
    "loggers": {
        "django.request": {"level": "ERROR"},
        "nats": {"level": "ERROR"},
        "celery": {"level": "WARNING"},
        "kombu": {"level": "WARNING"},
    },
}
