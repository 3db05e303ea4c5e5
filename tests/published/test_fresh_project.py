"""A stranger's first half hour: installs the wheel, makes a project, wires it, calls it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
import venv
from pathlib import Path
from typing import Any

import pytest

from ..processes import Process, Valkey, free_port
from ..readme import snippets, wire
from .conftest import Published

ENV = {
    "DJANGO_SETTINGS_MODULE": "site1.settings",
    "PYTHONPATH": "",  # which may lead to the checkout
    "PYTHONWARNINGS": "error",
    # Each process after the first would compile Django again.
    "PYTHONDONTWRITEBYTECODE": "",
}
PASSWORD = "correct horse battery staple"

Answer = tuple[int, Any, Any]


@pytest.fixture(scope="module")
def environment(published: Published, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment that holds the wheel and what it asks for, and nothing else."""
    folder: Path = tmp_path_factory.mktemp("environment")
    venv.create(folder)
    pip = [sys.executable, "-m", "pip", "--python", str(folder / "bin" / "python")]
    wanted = f"{published.wheel}[redis,rest-framework]"
    for command in (["install", "--quiet", "--no-compile", wanted], ["check"]):
        subprocess.run([*pip, *command], env=os.environ | {"PYTHONPATH": ""}, check=True)
    return folder / "bin"


class Project:
    """A project as ``startproject`` leaves it, and wired as the README says."""

    def __init__(self, environment: Path, folder: Path) -> None:
        self.environment, self.folder = environment, folder
        self.settings = folder / "site1" / "settings.py"

    def start(self) -> None:
        self.run("django-admin", "startproject", "site1", ".")
        wire(self.settings)
        settings, resource = snippets("python", "## Django REST framework")
        self.add_settings(settings)
        (view,) = [each for each in snippets("python") if "def search(request)" in each]
        self.settings.with_name("views.py").write_text(view)
        urls = self.settings.with_name("urls.py")
        urls.write_text(
            f"{urls.read_text()}\n{resource}\n"
            "from . import views\n"
            'urlpatterns += [path("search/", views.search)]\n'
        )

    def copied(self, folder: Path) -> Project:
        shutil.copytree(self.folder, folder)
        return Project(self.environment, folder)

    def add_settings(self, text: str) -> None:
        self.settings.write_text(f"{self.settings.read_text()}\n{text}")

    def command(self, name: str, *arguments: str) -> list[str]:
        return [str(self.environment / name), *arguments]

    def run(self, name: str, *arguments: str, **env: str) -> str:
        return subprocess.run(
            self.command(name, *arguments),
            cwd=self.folder,
            env=os.environ | ENV | env,
            check=True,
            stdout=subprocess.PIPE,
            text=True,
        ).stdout

    def manage(self, *arguments: str, **env: str) -> str:
        return self.run("python", "manage.py", *arguments, **env)


class Site(Process):
    """The project under Django's own server."""

    def __init__(self, project: Project) -> None:
        self.at = f"127.0.0.1:{free_port()}"
        command = project.command("python", "manage.py", "runserver", "--noreload", self.at)
        super().__init__(*command, env=ENV, cwd=project.folder)
        self.wait_until(self._answers)

    def _answers(self) -> bool:
        try:
            return bool(self.call("/admin/login/")[0])
        except urllib.error.URLError:
            return False

    def call(self, path: str, key: str = "", **body: str) -> Answer:
        """Status, headers and body of an answer; a ``POST`` where there is something to send."""
        request = urllib.request.Request(f"http://{self.at}{path}")
        if key:
            request.add_header("X-Session-Key", key)
        if body:
            request.data = json.dumps(body).encode()
            request.add_header("Content-Type", "application/json")
        try:
            with urllib.request.urlopen(request, timeout=30) as response:
                return response.status, response.headers, response.read()
        except urllib.error.HTTPError as refused:
            with refused:
                return refused.code, refused.headers, refused.read()


@pytest.fixture(scope="module")
def wired(environment: Path, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A fresh project with a database and a user."""
    project = Project(environment, tmp_path_factory.mktemp("project"))
    project.start()
    project.manage("migrate", "-v0")
    user = ("--username", "ann", "--email", "ann@example.com")
    project.manage("createsuperuser", "--noinput", *user, DJANGO_SUPERUSER_PASSWORD=PASSWORD)
    return project


@pytest.mark.parametrize("store", ["locmem", "redis"])
def test_a_project_that_follows_the_readme_has_sessions(
    store: str, wired: Project, valkey: Valkey, tmp_path: Path
) -> None:
    project = wired.copied(tmp_path / "project")
    valkey.client.flushall()
    if store == "redis":
        snippet = snippets("python", "## Running on Redis")[0]
        assert "redis://redis.internal:6379/0" in snippet
        project.add_settings(snippet.replace("redis://redis.internal:6379/0", valkey.url))
    assert "no issues" in project.manage("check", "--fail-level", "DEBUG")

    with Site(project) as site:
        status, headers, body = site.call("/search/?q=lamps")
        assert (status, json.loads(body)) == (200, {"visits": 1})
        first = headers["X-Session-Key"]
        status, headers, body = site.call("/search/?q=lamps", first)
        assert (status, json.loads(body)) == (200, {"visits": 2})
        assert "X-Session-Key" not in headers
        assert bool(valkey.client.dbsize()) == (store == "redis")

        assert site.call("/api/sessions/", first)[0] == 401
        status, headers, _ = site.call("/api/sessions/", first, username="ann", password=PASSWORD)
        assert status == 201
        key = headers["X-Session-Key"]
        assert site.call("/search/?q=lamps", first)[0] == 409
        assert json.loads(site.call("/search/?q=lamps", key)[2]) == {"visits": 3}
        (listed,) = json.loads(site.call("/api/sessions/", key)[2])["results"]
        assert listed["id"] == key[:15]
        assert "X-Session-Key" not in site.call("/admin/login/")[1]
