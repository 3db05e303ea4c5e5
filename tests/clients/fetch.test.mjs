// The ES module under Node's own test runner: what the list for all libraries does not reach.
// STATIC names the folder of the package's static files.
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { createServer } from "node:http";
import { after, before, beforeEach, test } from "node:test";
import { inspect } from "node:util";

const { STATIC } = process.env;
const source = await readFile(`${STATIC}/header-sessions.js`, "utf8");
const module = await import(`data:text/javascript,${encodeURIComponent(source)}`);
const { HeaderSession, SessionError, SessionLost, SessionNotStarted } = module;

const KEY = "abcdefghij0123456789".repeat(2);
const NEWER = KEY.slice(0, 15) + "z".repeat(25);
const UNKNOWN = { type: "urn:django-header-sessions:unknown", status: 401, executed: false };

let seen;
let answers;
let base;

// Answers each path with what `answers` has for it: (request) => [status, headers, document].
const server = createServer(async (request, response) => {
  let body = "";
  for await (const chunk of request) body += chunk;
  const entry = { method: request.method, path: request.url, body, headers: request.headers };
  seen.push(entry);
  const [status = 200, headers = {}, document] = (await answers[request.url]?.(entry)) ?? [];
  const type = document?.type ? "application/problem+json" : "application/json";
  response.writeHead(status, { "Content-Type": type, ...headers });
  response.end(document === undefined ? "" : JSON.stringify(document));
});

before(async () => {
  await new Promise((listening) => server.listen(0, "127.0.0.1", listening));
  base = `http://127.0.0.1:${server.address().port}`;
});

beforeEach(() => {
  seen = [];
  answers = {};
});

after(() => {
  server.closeAllConnections();
  return new Promise((closed) => server.close(closed));
});

function deferred() {
  const made = {};
  made.promise = new Promise((resolve) => {
    made.resolve = resolve;
  });
  return made;
}

const keys = () => seen.map((entry) => entry.headers["x-session-key"]);

test("takes what fetch takes: a string, a URL, a Request, with its own headers", async () => {
  const session = new HeaderSession({ key: KEY, origin: base });
  await session.fetch(`${base}/a`, { headers: { "X-Session-Key": "mine", A: "b" } });
  await session.fetch(new URL(`${base}/b`));
  await session.fetch(new Request(`${base}/c`, { method: "POST", body: "text" }));
  assert.deepEqual(keys(), [KEY, KEY, KEY]);
  assert.equal(seen[0].headers.a, "b");
  assert.equal(seen[2].body, "text");
});

test("fetch may be handed on without its object", async () => {
  const { fetch } = new HeaderSession({ key: KEY, origin: base });
  await fetch(`${base}/a`);
  assert.deepEqual(keys(), [KEY]);
});

test("leaves a problem document for the caller to read", async () => {
  const document = { ...UNKNOWN, type: "urn:django-header-sessions:too-large" };
  answers["/a"] = () => [413, {}, document];
  const response = await new HeaderSession({ key: KEY, origin: base }).fetch(`${base}/a`);
  assert.deepEqual(await response.json(), document);
});

test("sends a body once more, after a renewal and through a redirect", async () => {
  answers["/a"] = ({ headers }) =>
    headers["x-session-key"] === KEY ? [401, {}, UNKNOWN] : [307, { Location: "/b" }];
  answers["/b"] = ({ body }) => [200, {}, { body }];
  const session = new HeaderSession({ key: KEY, origin: base, renew: () => NEWER });
  const response = await session.fetch(`${base}/a`, { method: "PATCH", body: "text" });
  assert.deepEqual(await response.json(), { body: "text" });
  assert.deepEqual(keys(), [KEY, NEWER, NEWER]);
});

test("a POST that is redirected with 303 goes on as a GET without a body", async () => {
  answers["/a"] = () => [303, { Location: "/b" }];
  const session = new HeaderSession({ key: KEY, origin: base });
  await session.fetch(`${base}/a`, { method: "POST", body: "text" });
  assert.equal(seen[1].method, "GET");
  assert.equal(seen[1].body, "");
});

test("a redirect to another origin takes along what fetch itself does, and no more", async () => {
  const other = createServer((request, response) => {
    seen.push({ headers: request.headers });
    response.end();
  });
  await new Promise((listening) => other.listen(0, "127.0.0.1", listening));
  answers["/a"] = () => [302, { Location: `http://127.0.0.1:${other.address().port}/` }];
  const headers = { Authorization: "Basic q", "Proxy-Authorization": "Basic q", Cookie: "a=b", A: "b" };
  await new HeaderSession({ key: KEY, origin: base }).fetch(`${base}/a`, { headers });
  const [, { headers: taken }] = seen;
  assert.deepEqual(
    Object.keys(taken).filter((name) => /^(a|authorization|cookie|proxy-.*|x-session-key)$/.test(name)),
    ["a"],
  );
  other.closeAllConnections();
  other.close();
});

test("a redirect to what is no http or https URL is not followed", async () => {
  answers["/a"] = () => [302, { Location: "data:text/plain,evil" }];
  const session = new HeaderSession({ key: KEY, origin: base });
  await assert.rejects(session.fetch(`${base}/a`), SessionError);
});

test("what a call is told holds for all its hops", async () => {
  let dispatched = 0;
  await fetch(base);
  const usual = globalThis[Symbol.for("undici.globalDispatcher.1")];
  const dispatcher = {
    dispatch(...what) {
      dispatched += 1;
      return usual.dispatch(...what);
    },
  };
  answers["/a"] = () => [302, { Location: "/b" }];
  await new HeaderSession({ key: KEY, origin: base }).fetch(`${base}/a`, { dispatcher });
  assert.equal(dispatched, 2);
});

test("an origin that is none is refused", () => {
  for (const origin of ["example.com", "example.com:8443", "localhost:8000", "ftp://example.com"]) {
    assert.throws(() => new HeaderSession({ key: KEY, origin }), TypeError);
  }
});

test("null is what there is not", async () => {
  const earlier = new HeaderSession();
  const session = new HeaderSession({ key: earlier.key, origin: earlier.origin, renew: null });
  answers["/a"] = () => [401, {}, UNKNOWN];
  assert.equal((await session.fetch(`${base}/a`)).status, 401);
  await assert.rejects(session.start(), TypeError);
});

test("a start that fails costs no session that another call has made", async () => {
  const { promise: failing, resolve: fail } = deferred();
  answers["/slow"] = async () => {
    await failing;
    return [200, { "X-Session-Key": KEY }];
  };
  const session = new HeaderSession();
  await session.fetch(`${base}/reads`);
  const slow = session.fetch(`${base}/slow`);
  const start = session.start(async () => {
    fail();
    await slow;
    throw new Error("no");
  });
  await assert.rejects(start, SessionNotStarted);
  assert.equal(session.key, KEY);
  session.forget();
  answers["/login"] = () => [200, { "X-Session-Key": NEWER }];
  const begun = session.start(async (through) => {
    await through(`${base}/login`);
    throw new Error("no");
  });
  await assert.rejects(begun, SessionNotStarted);
  assert.equal(session.key, null);
});

test("a redirect in a circle ends", async () => {
  answers["/a"] = () => [302, { Location: "/a" }];
  await assert.rejects(new HeaderSession({ key: KEY, origin: base }).fetch(`${base}/a`), SessionError);
  assert.ok(seen.length < 30);
});

test("redirect: error is honoured", async () => {
  answers["/a"] = () => [302, { Location: "/b" }];
  const session = new HeaderSession({ key: KEY, origin: base });
  await assert.rejects(session.fetch(`${base}/a`, { redirect: "error" }), SessionError);
  assert.equal(seen.length, 1);
});

test("an aborted call rejects with the reason, wherever it waits", async () => {
  answers["/slow"] = () => new Promise((resolve) => setTimeout(resolve, 500, []));
  const session = new HeaderSession();
  const first = session.fetch(`${base}/slow`);
  const control = new AbortController();
  const second = session.fetch(`${base}/b`, { signal: control.signal });
  const reason = new Error("enough");
  control.abort(reason);
  await assert.rejects(second, reason);
  await first;
  assert.deepEqual(seen.map((entry) => entry.path), ["/slow"]);
});

test("an aborted wait for a store that is down ends at once", async () => {
  answers["/a"] = () => [503, { "Retry-After": "5" }];
  const control = new AbortController();
  const call = new HeaderSession({ key: KEY, origin: base }).fetch(`${base}/a`, { signal: control.signal });
  while (seen.length === 0) await new Promise((resolve) => setImmediate(resolve));
  control.abort();
  await assert.rejects(call, { name: "AbortError" });
});

test("a Request's own credentials are left as they are", async () => {
  const sent = [];
  const fetch = async (request) => {
    sent.push(request.credentials);
    return new Response("{}");
  };
  const session = new HeaderSession({ fetch, origin: "https://example.com" });
  const url = "https://example.com/a";
  await session.fetch(url);
  await session.fetch(new Request(url, { credentials: "include" }));
  await session.fetch(url, { credentials: "same-origin" });
  await session.fetch(new Request(url, { credentials: "include" }), { method: "POST" });
  await session.fetch(new Request(url, { credentials: "include" }), { credentials: "omit" });
  assert.deepEqual(sent, ["omit", "include", "same-origin", "include", "omit"]);
});

const once = () =>
  new ReadableStream({
    start(control) {
      control.enqueue(new TextEncoder().encode("once"));
      control.close();
    },
  });

test("a stream is not sent twice", async () => {
  const down = { type: "urn:django-header-sessions:unavailable", status: 503, executed: false };
  answers["/a"] = () => [503, { "Retry-After": "0" }, down];
  const session = new HeaderSession({ key: KEY, origin: base });
  const init = { method: "PUT", body: once(), duplex: "half" };
  assert.equal((await session.fetch(`${base}/a`, init)).status, 503);
  const request = new Request(`${base}/a`, { ...init, body: once() });
  assert.equal((await session.fetch(request)).status, 503);
  assert.deepEqual(seen.map((entry) => entry.body), ["once", "once"]);
});

test("a session that is lost under a stream is seen, and renewed for the next call", async () => {
  answers["/a"] = () => [401, {}, UNKNOWN];
  const session = new HeaderSession({ key: KEY, origin: base, renew: () => NEWER });
  const call = session.fetch(`${base}/a`, { method: "PUT", body: once(), duplex: "half" });
  await assert.rejects(call, (error) => error instanceof SessionLost && error.renewed);
  assert.equal(seen.length, 1);
  assert.equal(session.key, NEWER);
});

test("a stream is not sent on to where a redirect leads, unless that takes no body", async () => {
  answers["/kept"] = () => [307, { Location: "/b" }];
  answers["/got"] = () => [303, { Location: "/b" }];
  const session = new HeaderSession({ key: KEY, origin: base });
  const init = () => ({ method: "POST", body: once(), duplex: "half" });
  await assert.rejects(session.fetch(`${base}/kept`, init()), SessionError);
  assert.equal((await session.fetch(`${base}/got`, init())).status, 200);
  assert.deepEqual(seen.map((entry) => entry.method + entry.path), ["POST/kept", "POST/got", "GET/b"]);
});

test("a body that is a string, bytes, a form or a blob is sent as often as it takes", async () => {
  answers["/a"] = ({ headers }) => (headers["x-session-key"] === NEWER ? [200] : [401, {}, UNKNOWN]);
  const form = new FormData();
  form.set("a", "b");
  for (const body of ["text", new TextEncoder().encode("text"), new Blob(["text"]), form,
    new URLSearchParams({ a: "b" })]) {
    seen = [];
    const session = new HeaderSession({ key: KEY, origin: base, renew: () => NEWER });
    assert.equal((await session.fetch(`${base}/a`, { method: "PUT", body })).status, 200);
    assert.equal(seen.length, 2);
    assert.ok(seen[0].body.length > 2);
    // A form has another boundary each time, which its header names.
    const [first, second] = seen.map((entry) => {
      const type = entry.headers["content-type"];
      const [, boundary = type] = /boundary=(.*)$/.exec(type ?? "") ?? [];
      return `${type} ${entry.body}`.replaceAll(boundary, "boundary");
    });
    assert.equal(first, second);
  }
});

test("a form is sent on to where a redirect leads, with the boundary that it has there", async () => {
  answers["/a"] = () => [307, { Location: "/b" }];
  const body = new FormData();
  body.set("name", "value");
  await new HeaderSession({ key: KEY, origin: base }).fetch(`${base}/a`, { method: "POST", body });
  const [, boundary] = /boundary=(.*)$/.exec(seen[1].headers["content-type"]);
  assert.ok(seen[1].body.startsWith(`--${boundary}`));
  assert.ok(seen[1].body.includes("value"));
});

test("a type that the caller gives a body stays with it", async () => {
  answers["/a"] = () => [307, { Location: "/b" }];
  const headers = { "Content-Type": "text/csv" };
  const init = { method: "POST", body: "a,b", headers };
  await new HeaderSession({ key: KEY, origin: base }).fetch(`${base}/a`, init);
  assert.equal(seen[1].headers["content-type"], "text/csv");
});

test("a renewal may be given all the time there is", async () => {
  answers["/a"] = ({ headers }) => (headers["x-session-key"] === KEY ? [401, {}, UNKNOWN] : [200]);
  const renew = () => new Promise((resolve) => setTimeout(resolve, 20, NEWER));
  const session = new HeaderSession({ key: KEY, origin: base, renew, renewTimeout: Infinity });
  assert.equal((await session.fetch(`${base}/a`)).status, 200);
});

test("what renew was told of is the cause", async () => {
  answers["/a"] = () => [401, {}, UNKNOWN];
  const why = new Error("wrong password");
  const session = new HeaderSession({ key: KEY, origin: base, renew: () => Promise.reject(why) });
  await assert.rejects(session.fetch(`${base}/a`), (error) => {
    assert.ok(error instanceof SessionLost);
    assert.equal(error.cause, why);
    return true;
  });
});

test("start without anything to call is refused, and a failing one says why", async () => {
  await assert.rejects(new HeaderSession().start(), TypeError);
  const why = new Error("no");
  const failing = new HeaderSession().start(() => Promise.reject(why));
  await assert.rejects(failing, (error) => {
    assert.ok(error instanceof SessionNotStarted);
    assert.equal(error.cause, why);
    return true;
  });
});

test("the key is in nothing that shows the session", () => {
  const session = new HeaderSession({ key: KEY, origin: base });
  const shown = inspect(session, { showHidden: true, depth: null }) + JSON.stringify(session);
  assert.ok(!shown.includes(KEY.slice(15)));
  assert.throws(
    () => new HeaderSession({ key: `${KEY}x`, origin: base }),
    (error) => !error.message.includes(KEY),
  );
});

test("another fetch may be given", async () => {
  const sent = [];
  const fetch = async (request) => {
    sent.push(request.headers.get("X-Session-Key"));
    return new Response("{}", { headers: { "X-Session-Key": KEY } });
  };
  const session = new HeaderSession({ fetch, origin: "https://example.com" });
  await session.fetch("https://example.com/a");
  await session.fetch("https://example.com/b");
  assert.deepEqual(sent, ["new", KEY]);
});

test("the types name what the module has", async () => {
  const types = await readFile(`${STATIC}/header-sessions.d.ts`, "utf8");
  const declared = [...types.matchAll(/^export class (\w+)/gm)].map((match) => match[1]);
  assert.deepEqual(declared.toSorted(), Object.keys(module).toSorted());
  const [, members] = /export class HeaderSession \{(.*?)^\}/ms.exec(types);
  const named = [...members.matchAll(/^  (?:readonly )?(\w+)[(:]/gm)].map((match) => match[1]);
  const real = Object.getOwnPropertyNames(HeaderSession.prototype);
  assert.deepEqual(named.toSorted(), real.toSorted());
});
