"""The package's imports point one way, and optional packages stay in the modules named for them."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import django_header_sessions

PACKAGE = Path(django_header_sessions.__file__).parent

# What each part may import of the package; a part is a module, or a folder of them. A folder's
# modules may import each other.
LEAVES: set[str] = set()
STORE_NEEDS = {"conf", "exceptions", "fields", "keys", "origin"}
ALLOWED: dict[str, set[str]] = {
    "conf": LEAVES,
    "exceptions": LEAVES,
    "keys": LEAVES,
    "migrations": LEAVES,
    "models": LEAVES,
    "observer": LEAVES,
    "origin": LEAVES,
    "signals": LEAVES,
    "clients": LEAVES,
    "fields": {"exceptions"},
    "resolvers": {"conf", "keys"},
    "problems": {"conf", "keys", "observer", "resolvers"},
    "reporting": {"conf", "keys", "resolvers"},
    "steps": LEAVES,
    "stores": {*STORE_NEEDS, "observer", "steps"},
    "logs": {"conf", "keys", "resolvers"},
    "turn": {"steps"},
    "policies": {*STORE_NEEDS, "resolvers", "steps", "stores", "engine"},
    "context": {*STORE_NEEDS, "steps", "stores", "engine", "turn"},
    "engine": {
        *STORE_NEEDS,
        *("context", "policies", "resolvers", "signals", "steps", "stores", "turn"),
    },
    "decorators": {"conf", "policies", "resolvers", "steps"},
    "middleware": {*STORE_NEEDS, "policies", "problems", "reporting", "resolvers", "signals"},
    "http": {"engine"},
    "registry": {"conf", "exceptions", "fields", "keys", "signals", "steps", "stores"},
    "monitor": {"exceptions", "keys", "registry"},
    "admin": {"conf", "exceptions", "keys", "models", "monitor", "registry"},
    "management": {"conf", "exceptions", "keys", "monitor", "registry"},
    "metrics": {"exceptions", "observer", "registry", "signals"},
    "rest_framework": {
        *("conf", "decorators", "engine", "exceptions", "keys", "problems", "registry"),
        *("resolvers", "testing"),
    },
    "testing": {"conf", "engine", "keys", "problems", "resolvers"},
    "pytest_plugin": {"rest_framework", "testing"},
    "checks": {"conf"},
    "debug_toolbar": {"conf"},
    # Of rest_framework its schema alone, where the project has drf-spectacular installed.
    "apps": {"checks", "rest_framework"},
}

# Optional packages, and the parts that may import them.
OPTIONAL = {
    "redis": {"stores/cluster", "stores/listener", "stores/redis", "stores/servers"},
    "django_redis": set[str](),
    "prometheus_client": {"metrics"},
    "rest_framework": {"rest_framework"},
    "drf_spectacular": {"rest_framework/schema"},
    "corsheaders": set[str](),
    "debug_toolbar": {"debug_toolbar"},
    "allauth": set[str](),
    "pytest": {"pytest_plugin"},
    "httpx": {"clients/httpx"},
    "httpx2": {"clients/httpx2"},
    "requests": {"clients/requests"},
    "aiohttp": {"clients/aiohttp"},
}


def modules() -> Iterator[tuple[str, ast.Module]]:
    for path in sorted(PACKAGE.rglob("*.py")):
        name = str(path.relative_to(PACKAGE).with_suffix("")).removesuffix("/__init__")
        yield name, ast.parse(path.read_text("utf-8"))


def imports(name: str, tree: ast.Module) -> Iterator[str]:
    """Absolute names of all that a module imports, those inside functions too."""
    folder = [PACKAGE.name, *name.split("/")]
    if not (PACKAGE / name).is_dir():
        folder.pop()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = folder[: len(folder) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            yield from (f"{base}.{alias.name}" for alias in node.names)


EVERY = dict(modules())


@pytest.mark.parametrize("name", EVERY)
def test_imports_of_the_package_follow_the_table(name: str) -> None:
    part = name.split("/")[0]
    own = f"{PACKAGE.name}."
    used = {
        found.removeprefix(own).split(".")[0]
        for found in imports(name, EVERY[name])
        if found.startswith(own)
    }
    assert used - {part} <= ALLOWED.get(part, set())


@pytest.mark.parametrize("name", EVERY)
def test_optional_packages_are_imported_where_they_are_named(name: str) -> None:
    for found in imports(name, EVERY[name]):
        allowed = OPTIONAL.get(found.split(".")[0])
        assert allowed is None or any((name + "/").startswith(f"{one}/") for one in allowed)


def test_the_package_itself_is_empty() -> None:
    assert (PACKAGE / "__init__.py").read_text() == ""
