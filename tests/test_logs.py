"""The filter for logs: of a session key the id is left, and nothing else is changed."""

from __future__ import annotations

import hashlib
import io
import json
import logging
import logging.config
import re
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from django.http import HttpRequest, QueryDict
from django.http.request import HttpHeaders

from django_header_sessions import keys
from django_header_sessions.logs import SessionKeyFilter

from .processes import ROOT, Server

KEY = keys.SessionKey("9yvw6jgbg8bg0n9k2c41tsq8d0l5w7xh3rmpe6ua")
PLAIN = str(KEY)
SECRET = PLAIN[15:]
SHOWN = f"{KEY.id}***"
DOCS = (ROOT / "docs" / "logging.md").read_text("utf-8")


@pytest.fixture
def log() -> Iterator[logging.Logger]:
    logger = logging.getLogger("tests.logs")
    logger.propagate = False
    yield logger
    logger.handlers.clear()


class Kept(logging.Handler):
    """Keeps what it is given, and writes it as most handlers do."""

    def __init__(self) -> None:
        super().__init__()
        self.addFilter(SessionKeyFilter())
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)

    @property
    def record(self) -> logging.LogRecord:
        (record,) = self.records
        return record

    @property
    def text(self) -> str:
        return logging.Formatter().format(self.record)


@pytest.fixture
def kept(log: logging.Logger) -> Kept:
    handler = Kept()
    log.addHandler(handler)
    return handler


class Showing:
    """An object of somebody's, whose text has a key in it."""

    def __str__(self) -> str:
        return f"<request with {PLAIN}>"


@pytest.mark.parametrize(
    ("message", "args"),
    [
        (f"came with {PLAIN}", ()),
        ("came with %s", (KEY,)),
        ("came with %s and %d", (PLAIN, 7)),
        ("came with %r", ({"X-Session-Key": PLAIN},)),
        ("came with %(key)s of %(host)s", ({"key": PLAIN, "host": "h"},)),
        ("came with %s", ([(b"x-session-key", PLAIN.encode())],)),
        ("came with %s", ((PLAIN, 1, [PLAIN]),)),
        ("came with %s", (HttpHeaders({"HTTP_X_SESSION_KEY": PLAIN}),)),
        ("came with %s", (Showing(),)),
        ("came with %s", (ValueError(PLAIN),)),
        (Showing(), ()),
        (f"came with /state/?key={PLAIN}&page=2", ()),
        (f"sessionid={PLAIN}; csrftoken=abc", ()),
        (f'"{PLAIN},{PLAIN}"', ()),
        (f"came with /state/?header=X-Session-Key:%20{PLAIN}", ()),
        (f"came with /login/?next=/state/%3Fheader=X-Session-Key:%2520{PLAIN}", ()),
        (f"came with /state/?header=X-Session-Key%3a{PLAIN}%0d%0a", ()),
        ("came with %r", (f"X-Session-Key:\n{PLAIN}\r\n",)),
        ("came with %r", (f"X-Session-Key:\0{PLAIN}".encode(),)),
        ("came with %s", (PLAIN.encode(),)),
    ],
)
def test_of_a_key_in_a_message_the_id_is_left(
    log: logging.Logger, kept: Kept, message: Any, args: Any
) -> None:
    log.warning(message, *args)
    assert SECRET not in kept.text
    assert SHOWN in kept.text


def test_arguments_keep_their_places_and_classes(log: logging.Logger, kept: Kept) -> None:
    log.warning("%s %s %d", "a", PLAIN, 3)
    assert (kept.record.msg, kept.record.args) == ("%s %s %d", ("a", SHOWN, 3))


def test_what_was_logged_is_not_changed_itself(log: logging.Logger, kept: Kept) -> None:
    headers = {"X-Session-Key": PLAIN}
    pairs = [("X-Session-Key", PLAIN)]
    query = QueryDict(f"key={PLAIN}&page=2")
    log.warning("%(X-Session-Key)s", headers, extra={"pairs": pairs, "query": query})
    assert headers == {"X-Session-Key": PLAIN}
    assert pairs == [("X-Session-Key", PLAIN)]
    assert query["key"] == PLAIN
    assert SECRET not in repr(vars(kept.record))
    shown: Any = vars(kept.record)["query"]
    assert (shown["key"], shown["page"]) == (SHOWN, "2")


@pytest.mark.parametrize(
    "text",
    [
        hashlib.sha1(b"a commit").hexdigest(),
        hashlib.sha256(b"a file").hexdigest(),
        PLAIN[:39],
        PLAIN + "a",
        "x" * 15 + "." + "y" * 25,
        "words as they are written, of any length",
    ],
)
def test_what_is_no_key_is_left_alone(log: logging.Logger, kept: Kept, text: str) -> None:
    extra = {"seen": {"text": text, "bytes": text.encode(), "list": [text, 1, None]}}
    log.warning("%s", text, extra=extra)
    assert kept.record.args == (text,)
    assert vars(kept.record)["seen"] is extra["seen"]
    assert kept.text == text


MALFORMED = PLAIN.upper()


@pytest.mark.parametrize(
    "extra",
    [
        {"headers": {"X-Session-Key": PLAIN, "Accept": "*/*"}},
        {"headers": {"x-session-key": MALFORMED, "Accept": "*/*"}},
        {"headers": {b"x-session-key": MALFORMED.encode(), "Accept": "*/*"}},
        {"headers": {"x-session-key": [MALFORMED, MALFORMED], "Accept": "*/*"}},
        {"environ": {"HTTP_X_SESSION_KEY": f"{MALFORMED},x", "HTTP_ACCEPT": "*/*"}},
        {"scope": {"headers": [(b"x-session-key", MALFORMED.encode()), (b"accept", b"*/*")]}},
        {"scope": {"headers": [[b"x-session-key", PLAIN.encode()], [b"accept", b"*/*"]]}},
        {"headers": HttpHeaders({"HTTP_X_SESSION_KEY": MALFORMED, "HTTP_ACCEPT": "*/*"})},
        {"x_session_key": MALFORMED, "accept": "*/*"},
        {"session": PLAIN, "accept": "*/*"},
    ],
)
def test_what_extra_adds_is_masked_and_the_rest_of_it_is_there(
    log: logging.Logger, kept: Kept, extra: dict[str, Any]
) -> None:
    log.warning("came", extra=extra)
    shown = repr({name: vars(kept.record)[name] for name in extra})
    assert SECRET not in shown
    assert SECRET.upper() not in shown
    assert "***" in shown
    assert "*/*" in shown


@pytest.mark.parametrize("value", ["new", "", b"new", b"", None, 7])
def test_what_is_no_secret_is_shown_under_the_headers_name_too(
    log: logging.Logger, kept: Kept, value: Any
) -> None:
    extra = {"headers": {"X-Session-Key": value}}
    log.warning("came", extra=extra)
    assert vars(kept.record)["headers"] == extra["headers"]


def test_the_name_of_the_header_is_the_settings(
    log: logging.Logger, kept: Kept, settings: Any
) -> None:
    settings.HEADER_SESSIONS_HEADER = "Mcp-Session-Id"
    log.warning("came", extra={"headers": {"mcp-session-id": MALFORMED, "x-session-key": "a"}})
    assert vars(kept.record)["headers"] == {"mcp-session-id": "***", "x-session-key": "a"}


def test_an_object_of_some_other_kind_stays_what_it_is(log: logging.Logger, kept: Kept) -> None:
    request = HttpRequest()
    log.warning("came", extra={"request": request, "status_code": 500})
    assert vars(kept.record)["request"] is request
    assert vars(kept.record)["status_code"] == 500


def test_what_holds_itself_is_no_endless_task(log: logging.Logger, kept: Kept) -> None:
    held: dict[str, Any] = {"X-Session-Key": PLAIN}
    held["self"] = held
    listed: list[Any] = [PLAIN]
    listed.append(listed)
    log.warning("came", extra={"held": held, "listed": listed})
    assert vars(kept.record)["held"]["X-Session-Key"] == SHOWN
    assert vars(kept.record)["listed"][0] == SHOWN


def test_a_key_in_the_message_of_an_exception_is_masked_in_the_traceback(
    log: logging.Logger, kept: Kept
) -> None:
    try:
        try:
            raise KeyError(PLAIN)
        except KeyError as error:
            raise ValueError(f"no such session: {KEY}") from error
    except ValueError:
        log.exception("failed", stack_info=True)
    assert SECRET not in kept.text
    assert kept.text.count(SHOWN) == 2
    assert "Traceback" in kept.text


def test_a_traceback_without_one_is_left_to_the_formatter() -> None:
    try:
        raise ValueError("no such session")
    except ValueError:
        failed = logging.makeLogRecord({"exc_info": sys.exc_info()})
    for record in (failed, logging.makeLogRecord({"exc_info": (None, None, None)})):
        assert SessionKeyFilter().filter(record)
        assert record.exc_text is None


def test_a_call_that_cannot_be_formatted_is_loggings_business() -> None:
    """Which shows the arguments when it complains."""
    record = logging.makeLogRecord({"msg": "%d of %s", "args": (PLAIN,)})
    assert SessionKeyFilter().filter(record)
    assert record.args == (SHOWN,)


@pytest.mark.parametrize(
    ("message", "args"),
    [
        ("said %(a)s", {"a": 1, "{x-session-key}i": PLAIN}),
        ("said %.16s", (PLAIN,)),
    ],
)
def test_arguments_that_the_message_does_not_show_are_masked_too(
    log: logging.Logger, kept: Kept, message: str, args: Any
) -> None:
    """Formatters take them from the record, as those of servers' own logs do."""
    log.warning(message, args) if isinstance(args, dict) else log.warning(message, *args)
    assert SECRET not in repr(kept.record.args)
    assert SECRET not in kept.text


class Telling:
    """What fails to tell what it holds."""

    def items(self) -> Any:
        raise LookupError("It changes just now.")


Mapping.register(Telling)


def test_what_cannot_be_looked_at_is_left_out_and_fails_no_logger(
    log: logging.Logger, kept: Kept
) -> None:
    log.warning("as %s is", PLAIN, extra={"stats": Telling(), "name_of": "x"})
    assert kept.record.__dict__["stats"] == "<Telling left out: LookupError>"
    assert kept.record.__dict__["name_of"] == "x"
    assert kept.text == f"as {SHOWN} is"
    SessionKeyFilter().filter(logging.makeLogRecord({"exc_info": True}))


def test_an_argument_that_cannot_be_looked_at_costs_no_other(
    log: logging.Logger, kept: Kept
) -> None:
    log.warning("call %s of %s took %d ms", Telling(), PLAIN, 5)
    assert kept.text == f"call <Telling left out: LookupError> of {SHOWN} took 5 ms"


def test_a_mapping_that_another_thread_changes_fails_no_logger(
    log: logging.Logger, kept: Kept
) -> None:
    shared: dict[int, Any] = {}
    done = threading.Event()

    def change() -> None:
        number = 0
        while not done.is_set():
            number += 1
            shared[number] = "x"
            shared.pop(number - 50, None)

    thread = threading.Thread(target=change)
    thread.start()
    try:
        for _ in range(300):
            log.warning("now", extra={"stats": shared})
    finally:
        done.set()
        thread.join()
    assert len(kept.records) == 300


@pytest.mark.parametrize("before", ["\x1b[31m", "\x1b[1;31m", "\x1b[0m", r"\u5bc6", r"\u00e9"])
def test_what_a_terminal_and_json_write_before_a_key_hides_none(before: str) -> None:
    record = logging.makeLogRecord({"msg": f"{before}{PLAIN}\x1b[0m"})
    SessionKeyFilter().filter(record)
    assert record.msg == f"{before}{SHOWN}\x1b[0m"


def test_a_key_that_is_a_name_in_a_mapping_is_masked() -> None:
    told = {"before": 1, PLAIN: 2, "behind": 3}
    record = logging.makeLogRecord({"msg": "", "seen": told})
    SessionKeyFilter().filter(record)
    assert record.__dict__["seen"] == {"before": 1, SHOWN: 2, "behind": 3}
    assert PLAIN in told


# As the documentation shows it.


def snippets(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", DOCS, re.DOTALL)


def test_the_filter_on_a_handler_as_documented(log: logging.Logger) -> None:
    namespace: dict[str, Any] = {}
    exec(snippets("python")[0], namespace)
    stream = io.StringIO()
    config = namespace["LOGGING"]
    config["handlers"]["console"]["stream"] = stream
    config["loggers"] = {"tests.logs": {"handlers": ["console"]}}
    del config["root"]
    logging.config.dictConfig(config)
    log.warning("came with %s", KEY)
    assert stream.getvalue() == f"came with {SHOWN}\n"


def test_the_filter_before_there_are_settings() -> None:
    """A server sets up its log before it loads the application."""
    code = f"""
import logging
from django_header_sessions.logs import SessionKeyFilter
logger = logging.getLogger()
logger.addFilter(SessionKeyFilter())
logging.basicConfig(format="%(message)s %(headers)s")
logger.warning("starting with %s", "{PLAIN}", extra={{"headers": {{"X-Session-Key": "a,b"}}}})
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={}, cwd=ROOT
    )
    assert done.stderr == f"starting with {SHOWN} {{'X-Session-Key': '***'}}\n"


def test_gunicorns_access_log_with_the_header_in_its_format(tmp_path: Path) -> None:
    config = tmp_path / "gunicorn.conf.py"
    config.write_text(snippets("python")[1])
    with Server("gunicorn", GUNICORN_CMD_ARGS=f"--config {config}") as server:
        _, headers, _ = server.request("GET", '/sync/?do=[["set","n",1]]')
        key = headers["X-Session-Key"]
        server.request("GET", f"/sync/?by={key}", {"X-Session-Key": key})
        # A line is written after its answer, so that two threads write theirs in any order.
        shown = f"{key[:15]}***"
        server.wait_until(lambda: f" 200 key=- new={shown}\n" in server.output())
        second = f'"GET /sync/?by={shown} HTTP/1.1" 200 key={shown} new=-\n'
        server.wait_until(lambda: second in server.output())
        assert key[15:] not in server.output()


def test_gunicorn_would_log_the_key_without_the_filter(tmp_path: Path) -> None:
    config = tmp_path / "gunicorn.conf.py"
    config.write_text(re.sub(r"(?m)^logging.*$", "", snippets("python")[1]))
    with Server("gunicorn", GUNICORN_CMD_ARGS=f"--config {config}") as server:
        server.request("GET", "/healthz", {"X-Session-Key": PLAIN})
        server.wait_until(lambda: f"key={PLAIN}" in server.output())


def test_uvicorns_access_log_with_a_key_in_the_url(tmp_path: Path) -> None:
    module = tmp_path / "served_by_uvicorn.py"
    module.write_text(snippets("python")[2].replace("application =", "asgi ="))
    path = f"{tmp_path}:{ROOT}"
    with Server("uvicorn", module="served_by_uvicorn", PYTHONPATH=path) as server:
        server.request("GET", f"/healthz?key={PLAIN}")
        server.wait_until(lambda: "key=" in server.output())
        output = server.output()
    assert f'"GET /healthz?key={SHOWN} HTTP/1.1" 200 OK' in output
    assert SECRET not in output


def test_a_log_of_json_lines(log: logging.Logger) -> None:
    class Lines(logging.Formatter):
        """As python-json-logger's: it makes nothing of a traceback that is there already."""

        def format(self, record: logging.LogRecord) -> str:
            said = {"said": record.getMessage(), **vars(record).get("seen", {})}
            given = record.exc_info
            return json.dumps(
                said | {"failed": self.formatException(given) if given else record.exc_text}
            )

    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(Lines())
    handler.addFilter(SessionKeyFilter())
    log.addHandler(handler)
    log.warning("came", extra={"seen": {"headers": {"X-Session-Key": KEY}}})
    said = {"said": "came", "headers": {"X-Session-Key": SHOWN}, "failed": None}
    assert json.loads(stream.getvalue()) == said
    try:
        raise ValueError(f"no such session: {KEY}")
    except ValueError:
        log.exception("failed")
    assert SHOWN in json.loads(stream.getvalue().splitlines()[1])["failed"]
    assert SECRET not in stream.getvalue()
