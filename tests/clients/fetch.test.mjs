// The ES module under Node's own test runner: what the list for all libraries does not reach.
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { createServer } from "node:http";
import { after, before, beforeEach, test } from "node:test";
import { inspect } from "node:util";

const STATIC = "../../django_header_sessions/static/django_header_sessions/";
const source = await readFile(new URL(`${STATIC}header-sessions.js`, import.meta.url), "utf8");
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
  const types = await readFile(new URL(`${STATIC}header-sessions.d.ts`, import.meta.url), "utf8");
  const declared = [...types.matchAll(/^export class (\w+)/gm)].map((match) => match[1]);
  assert.deepEqual(declared.toSorted(), Object.keys(module).toSorted());
  const [, members] = /export class HeaderSession \{(.*?)^\}/ms.exec(types);
  const named = [...members.matchAll(/^  (?:readonly )?(\w+)[(:]/gm)].map((match) => match[1]);
  const real = Object.getOwnPropertyNames(HeaderSession.prototype);
  assert.deepEqual(named.toSorted(), real.toSorted());
});
