/**
 * Header sessions for fetch, in browsers and in Node: `new HeaderSession().fetch(url)`.
 *
 * The same decisions as django_header_sessions.clients.flow makes for Python; no dependencies.
 */

const PROBLEM_TYPE = "urn:django-header-sessions:";
const KEY = /^[a-z0-9]{40}$/;
const ID_LENGTH = 15;
const LOOPBACK = /^(localhost|.+\.localhost|127(\.\d{1,3}){3}|\[::1\])$/;
const IDEMPOTENT = new Set(["GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"]);
const REDIRECTS = new Set([301, 302, 303, 307, 308]);
const MAX_REDIRECTS = 20;
const HTTP = /^https?:$/;
// What fetch takes along to no other origin, and to no hop without a body.
const OF_ONE_ORIGIN = ["Authorization", "Proxy-Authorization", "Cookie", "Host"];
const OF_A_BODY = ["Encoding", "Language", "Length", "Location", "Type"].map((name) => `Content-${name}`);
// A call is repeated this often in all for a newer key; more means that somebody rotates in a loop.
const MAX_TAKES = 3;
const LEAST_WAIT = 50;
// What a timer can take; beyond, it rings at once.
const MAX_TIMER = 2 ** 31 - 1;
const HTTP_DATE =
  /^(Mon|Tue|Wed|Thu|Fri|Sat|Sun), \d\d (Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec) \d{4} \d\d:\d\d:\d\d GMT$/;

/** Something about the session, not about one answer. Carries no session key. */
export class SessionError extends Error {
  name = "SessionError";
}

/** The first call goes to a plain-HTTP origin that is not loopback. */
export class InsecureOrigin extends SessionError {
  name = "InsecureOrigin";
}

/** `start()` ran its call, and no session key was announced. */
export class SessionNotStarted extends SessionError {
  name = "SessionNotStarted";
}

/** The session this call belonged to is gone, and what it held with it. */
export class SessionLost extends SessionError {
  name = "SessionLost";

  constructor(sessionId, reason, { executed, renewed, detail, outlook, cause }) {
    const ran =
      executed === undefined ? "may have been executed" : executed ? "was executed" : "was not executed";
    super(`Session ${sessionId} is lost, and all it held: ${detail}. This call ${ran}. ${outlook}`, {
      cause,
    });
    this.sessionId = sessionId;
    this.reason = reason;
    this.executed = executed;
    this.renewed = renewed;
  }
}

const DETAIL = {
  unknown: "the server does not know it (expired, ended, or its store was emptied)",
  ended: "it was ended while this call ran",
  superseded: "its key was replaced, and not through this client",
};

/** What was held at one moment: a key, or none. Compared by identity; the rest as in steps.py. */
class Held {
  constructor(key, { lost = null, line = Symbol("line"), through = [] } = {}) {
    this.key = key;
    this.through = through;
    this.lost = lost;
    this.failed = null;
    this.line = line;
    this.awaited = new Set();
    this.leader = null;
    this.tried = false;
    this.expiresAt = null;
  }

  get id() {
    return this.key.slice(0, ID_LENGTH);
  }
}

function deferred() {
  let resolve;
  const promise = new Promise((done) => {
    resolve = done;
  });
  return { promise, resolve };
}

/** Settles as `promise` does, or rejects when `signal` aborts or `ms` have passed. */
function within(promise, { signal, ms }) {
  return new Promise((resolve, reject) => {
    const abort = () => finish(reject, signal.reason);
    const timer =
      ms === undefined || ms > MAX_TIMER
        ? undefined
        : setTimeout(() => finish(reject, new DOMException("Took too long", "TimeoutError")), ms);
    const finish = (settle, value) => {
      clearTimeout(timer);
      signal?.removeEventListener("abort", abort);
      settle(value);
    };
    if (signal?.aborted) return abort();
    signal?.addEventListener("abort", abort);
    promise.then(
      (value) => finish(resolve, value),
      (error) => finish(reject, error),
    );
  });
}

function sleep(ms, signal) {
  let timer;
  const promise = new Promise((resolve) => {
    timer = setTimeout(resolve, Math.min(ms, MAX_TIMER));
  });
  return within(promise, { signal }).finally(() => clearTimeout(timer));
}

function secondsOf(retryAfter) {
  if (retryAfter === null) return null;
  if (/^\s*\d{1,9}\s*$/.test(retryAfter)) return Number(retryAfter);
  // Left to itself, Date.parse finds a date in almost anything.
  if (!HTTP_DATE.test(retryAfter)) return null;
  return Math.max(0, (Date.parse(retryAfter) - Date.now()) / 1000);
}

/** One hop of a call: makes its request as often as its body can be read. */
class Hop {
  #input;
  #init;
  #made;

  constructor(input, init) {
    this.#input = input;
    this.#init = init;
    this.#made = new Request(input, init);
    const { body: given = null, ...options } = init;
    // Those of the call, for all its hops; Node's dispatcher is told by nothing else.
    this.options = options;
    const { url, method, headers, signal, redirect, credentials } = this.#made;
    Object.assign(this, { url, method, headers, signal, redirect, credentials });
    // What a Request was made with, it does not tell.
    this.repeatable =
      this.#made.body === null ||
      (given !== null && !(given instanceof ReadableStream) && !(Symbol.asyncIterator in Object(given)));
    this.body = this.repeatable ? (given ?? undefined) : this.#made.body;
  }

  /** The request, to be sent with this header and nowhere on. */
  request(redirect, name, value) {
    const made = new Request(this.#made ?? new Request(this.#input, this.#init), { redirect });
    this.#made = null;
    if (name !== undefined) made.headers.set(name, value);
    return made;
  }
}

/** Read an answer that is nobody's, so that its connection can be used again. */
async function drain(response) {
  try {
    await response.arrayBuffer();
  } catch {
    // It broke off: there is no connection left to use.
  }
}

/** The problem document, read from a copy so that the caller can read it, too. */
async function problemOf(response) {
  const type = (response.headers.get("Content-Type") ?? "").split(";")[0].trim().toLowerCase();
  if (response.status < 400 || type !== "application/problem+json") return null;
  try {
    const document = await response.clone().json();
    return typeof document === "object" ? document : null;
  } catch {
    return null;
  }
}

// Nothing but the type will do: applications answer 401, with the same challenge, for reasons of
// their own. So a HEAD, which is answered without a body, never loses a session.
function kindOf(problem) {
  if (typeof problem?.type !== "string" || !problem.type.startsWith(PROBLEM_TYPE)) return null;
  return problem.type.slice(PROBLEM_TYPE.length);
}

/** One server-side session, for all the calls made through its `fetch`. */
export class HeaderSession {
  #header;
  #renew;
  #renewTimeout;
  #maxWait;
  #insecure;
  #resource;
  #credentials;
  #fetch;
  #origin = null;
  #held;
  #flight = null;
  #stir = null;
  #ending = 0;

  constructor({
    key,
    origin,
    renew,
    renewTimeout = 30,
    maxWait = 10,
    insecure = false,
    header = "X-Session-Key",
    resource = "/api/sessions/current/",
    credentials = "omit",
    fetch = globalThis.fetch,
  } = {}) {
    key ??= undefined;
    origin ??= undefined;
    if (key !== undefined && !KEY.test(key)) {
      throw new TypeError("A session key is 40 characters of a-z and 0-9; this is none.");
    }
    if (key !== undefined && origin === undefined) {
      // Else it would go to whatever happens to be called first.
      throw new TypeError("A session key is for one server: name it with origin, too.");
    }
    this.#header = header;
    this.#renew = renew ?? undefined;
    this.#renewTimeout = renewTimeout;
    this.#maxWait = maxWait;
    this.#insecure = insecure;
    this.#resource = resource;
    this.#credentials = credentials;
    // Called as a method of anything else, a browser's fetch throws.
    this.#fetch = (request) => fetch(request);
    this.#held = new Held(key ?? null);
    if (origin !== undefined && !this.#owns(new URL(origin))) {
      throw new TypeError(`Not the origin of an http or https URL: ${origin}`);
    }
    this.fetch = this.fetch.bind(this);
  }

  /** The key held, `null` before there is one. A password: for going on after a restart only. */
  get key() {
    return this.#held.key;
  }

  /** The public id of the session, `null` before there is one. */
  get id() {
    return this.#held.key === null ? null : this.#held.id;
  }

  /** The only origin that is sent the key, `null` before the first call. */
  get origin() {
    return this.#origin;
  }

  /** Seconds until the session is over if nothing is called; `null` while that is unknown. */
  get expiresIn() {
    const at = this.#held.expiresAt;
    return at === null ? null : Math.max(0, (at - performance.now()) / 1000);
  }

  /** As the global `fetch`, with the session. May reject with a `SessionError`. */
  fetch(input, init) {
    return this.#follow(input, init, []);
  }

  /** Make the session now, through `call` (else `renew`), unless there is one. */
  async start(call = this.#renew) {
    for (;;) {
      let flight = this.#flight;
      if (flight === null) {
        const held = this.#held;
        if (held.key !== null) return;
        if (held.leader !== null) {
          await held.leader.promise;
          continue;
        }
        if (call === undefined) {
          throw new TypeError("start() needs a call that writes to the session");
        }
        flight = this.#takeOff(call, held.lost);
      }
      await flight.promise;
      if (flight.error !== null) {
        throw new SessionNotStarted(
          flight.error instanceof SessionError
            ? `No session was started: ${flight.error.message}.`
            : "No session was started: the call that was to make it failed; see the cause.",
          { cause: flight.error },
        );
      }
    }
  }

  /** Restart the idle timeout; answers `expiresIn`, `null` when there is no session. */
  async keepAlive() {
    if (this.#held.key !== null) await (await this.fetch(this.#resourceUrl())).arrayBuffer();
    return this.expiresIn;
  }

  /**
   * End the session on the server and forget it, also one that is about to be renewed. Rejects, and
   * keeps the key, when that fails or somebody else has the session by now.
   */
  async end() {
    const { line } = this.#held;
    let status = 200;
    // Nothing is renewed in this time, and nothing after it.
    this.#ending += 1;
    try {
      if (this.#held.key !== null || this.#flight !== null) {
        const response = await this.fetch(this.#resourceUrl(), { method: "DELETE" });
        await response.arrayBuffer();
        status = response.status;
      }
    } catch (error) {
      if (error instanceof SessionLost && error.reason === "superseded") {
        throw new SessionError(
          `Session ${error.sessionId} was not ended: its key was replaced, and not through this ` +
            "client. Somebody else has it.",
          { cause: error },
        );
      }
      // Else it was over before we came to end it.
      if (!(error instanceof SessionLost)) throw error;
    } finally {
      this.#ending -= 1;
    }
    const held = this.#held;
    if (status >= 300 && held.key !== null) {
      throw new SessionError(`The session was not ended: the server answered ${status}.`);
    }
    if (held.line === line && (held.key !== null || held.lost !== null)) {
      this.#replace(new Held(null));
    }
  }

  /** Let go of the key without telling the server. */
  forget() {
    this.#replace(new Held(null));
  }

  // Redirects, followed by hand: a fetch that follows sends the session header wherever it goes.

  async #follow(input, init, nested) {
    // A Request always has credentials; the default one says nothing.
    const said = input instanceof Request && input.credentials !== "same-origin" ? input.credentials : null;
    let hop = new Hop(input, { credentials: said ?? this.#credentials, ...init });
    const mode = hop.redirect;
    for (let hops = 0; ; hops += 1) {
      const ours = this.#owns(new URL(hop.url));
      if (!ours && this.#isOwn(hop.headers.get(this.#header))) {
        // A header of the caller's own takes the key nowhere else, either.
        const headers = new Headers(hop.headers);
        headers.delete(this.#header);
        hop = new Hop(hop.request(hop.redirect), { ...hop.options, headers });
      }
      const response = ours
        ? await this.#call(hop, nested)
        : await this.#fetch(hop.request(hops ? "manual" : mode));
      const seen = REDIRECTS.has(response.status);
      if (mode === "manual" || (!ours && hops === 0) || !(seen || response.type === "opaqueredirect")) {
        return response;
      }
      const location = response.headers.get("Location");
      if (mode === "error" || !seen || location === null) {
        // Browsers do not say where a redirect leads, and so it cannot be followed safely.
        throw new SessionError(`${hop.url} redirects. Call where it leads, with the session.`);
      }
      if (hops >= MAX_REDIRECTS) throw new SessionError("Too many redirects.");
      await drain(response);
      const url = new URL(location, hop.url);
      if (!HTTP.test(url.protocol)) throw new SessionError(`${hop.url} redirects to no http or https URL.`);
      hop = this.#next(hop, url, response.status);
    }
  }

  /** The hop that a redirect leads to. */
  #next(hop, url, status) {
    const becomes =
      (status === 303 && hop.method !== "HEAD") || (status < 303 && hop.method === "POST");
    const headers = new Headers(hop.headers);
    if (url.origin !== new URL(hop.url).origin) {
      for (const name of [...OF_ONE_ORIGIN, this.#header]) headers.delete(name);
    }
    const { signal, credentials } = hop;
    const options = { ...hop.options, headers, signal, credentials };
    if (becomes || hop.body === undefined) {
      for (const name of OF_A_BODY) headers.delete(name);
      return new Hop(url, { ...options, method: becomes ? "GET" : hop.method });
    }
    if (!hop.repeatable) {
      throw new SessionError(`${hop.url} redirects a body that can be sent only once.`);
    }
    const { method, body } = hop;
    // With the boundary that it is given when it is sent.
    if (body instanceof FormData) headers.delete("Content-Type");
    return new Hop(url, { ...options, method, body });
  }

  // One call

  async #call(hop, nested) {
    const { signal } = hop;
    let takes = 0;
    let renewed = false;
    let giveUp = null;
    for (;;) {
      const { held: entered, lead } = await this.#enter(signal, nested);
      const sent = entered;
      const token = Symbol("call");
      sent.awaited.add(token);
      let response = null;
      try {
        response = await this.#fetch(hop.request("manual", this.#header, sent.key ?? "new"));
        this.#capture(sent, response, nested);
      } finally {
        sent.awaited.delete(token);
        if (lead !== null) {
          // An answer that says nothing about the session leaves the next call to go alone, and
          // where a redirect leads belongs to the same call.
          const leadsOn = REDIRECTS.has(response?.status) || response?.type === "opaqueredirect";
          if (response !== null && response.status < 500 && !leadsOn) sent.tried = true;
          if (sent.leader === lead) sent.leader = null;
          lead.resolve();
        }
        this.#stirred();
      }
      if (response.status < 400 || response.type === "opaqueredirect") return response;
      const problem = await problemOf(response);
      const kind = kindOf(problem);
      const executed = typeof problem?.executed === "boolean" ? problem.executed : undefined;
      const safe = hop.repeatable && (executed === false || IDEMPOTENT.has(hop.method));
      const ours = sent.key !== null;
      if (ours && (kind === "unknown" || kind === "ended")) {
        await this.#lose(sent, kind, { executed, renewed, signal, nested });
        renewed = true;
        if (!safe) throw this.#lost(sent, kind, executed, true);
      } else if (ours && kind === "superseded") {
        takes += 1;
        await this.#takeNewer(sent, executed, takes, signal);
        if (!safe) return response;
      } else if (response.status === 503) {
        const pause = secondsOf(response.headers.get("Retry-After"));
        const now = performance.now() / 1000;
        giveUp ??= now + this.#maxWait;
        if (pause === null || !safe || this.#maxWait <= 0 || now + pause > giveUp) return response;
        await drain(response);
        await sleep(Math.max(pause * 1000, LEAST_WAIT), signal);
        continue;
      } else {
        return response;
      }
      await drain(response);
    }
  }

  async #enter(signal, nested) {
    for (;;) {
      const held = this.#held;
      let flight = this.#flight;
      if (flight !== null && nested.includes(flight)) return { held, lead: null };
      if (nested.some((old) => old.error !== null)) {
        throw new SessionError("This renewal was given up; what it calls is not sent.");
      }
      if (flight === null) {
        if (held.key !== null || (held.tried && held.lost === null)) return { held, lead: null };
        if (held.lost !== null && this.#renew !== undefined && !this.#ending) {
          flight = this.#takeOff(this.#renew, held.lost);
        } else if (held.leader === null) {
          held.leader = deferred();
          return { held, lead: held.leader };
        }
      }
      if (flight !== null) {
        await within(flight.promise, { signal });
        if (flight.error !== null && flight.lost !== null) throw this.#notRenewed(flight, false);
      } else {
        await within(held.leader.promise, { signal });
      }
    }
  }

  #owns(url) {
    if (this.#origin !== null || !HTTP.test(url.protocol)) return url.origin === this.#origin;
    if (url.protocol === "http:" && !this.#insecure && !LOOPBACK.test(url.hostname)) {
      throw new InsecureOrigin(
        `${url.origin} is plain HTTP: a session key sent there can be read on the way. ` +
          "Use https, or say insecure where the network is yours.",
      );
    }
    this.#origin = url.origin;
    return true;
  }

  /** Whether a header's value is a key of this session, also one that was replaced since. */
  #isOwn(value) {
    return value !== null && KEY.test(value) && value.slice(0, ID_LENGTH) === this.id;
  }

  #capture(sent, response, nested) {
    const announced = response.headers.get(this.#header);
    if (announced !== null) {
      if (this.#held !== sent) {
        if (sent.key === null && KEY.test(announced)) {
          console.warn(
            "A call made a session of its own, because it overlapped the one that made " +
              `session ${this.id}; what it stored is lost. Call start() first.`,
          );
        }
      } else if (KEY.test(announced)) {
        if (announced !== sent.key) {
          const same = sent.lost !== null || (sent.key !== null && announced.startsWith(sent.id));
          const through = nested.length ? nested : same ? sent.through : [];
          this.#replace(new Held(announced, same ? { line: sent.line, through } : { through }));
          if (sent.key !== null && !same) {
            console.warn(
              `${this.#origin} goes on with session ${this.id} in the place of session ${sent.id}; ` +
                "what that one held is not in it.",
            );
          }
        }
      } else if (announced === "") {
        this.#replace(new Held(null));
      } else {
        console.warn(`${this.#origin} announced no valid session key; ignored. Session: ${this.id}.`);
      }
    }
    const said = response.headers.get("X-Session-Expires-In");
    if (said !== null && /^\d{1,9}$/.test(said)) {
      const held = this.#held;
      if (held === sent || (announced !== null && held.key === announced)) {
        held.expiresAt = performance.now() + Number(said) * 1000;
      }
    }
  }

  #replace(held) {
    this.#held = held;
    this.#stirred();
  }

  #stirred() {
    const stir = this.#stir;
    this.#stir = null;
    stir?.resolve();
  }

  // A session that is gone

  async #lose(sent, kind, { executed, renewed, signal, nested }) {
    const inside = this.#flight !== null && nested.includes(this.#flight);
    const mine = this.#held === sent;
    if (mine) {
      this.#forgetLost(sent);
      if (this.#renew !== undefined && this.#flight === null && !this.#ending && !inside && !renewed) {
        this.#takeOff(this.#renew, sent.id);
      }
    }
    const flight = this.#flight;
    if (inside || (renewed && mine)) throw this.#lost(sent, kind, executed, false);
    if (flight === null || flight.lost === null) {
      // Rotated meanwhile, or renewed by another call. What somebody began anew after being
      // told of the loss is not this call's session: it has to be told, too.
      const { key, line, failed } = this.#held;
      if (key !== null && line === sent.line) return;
      if (failed !== null && line === sent.line) throw this.#notRenewed(failed, executed);
      throw this.#lost(sent, kind, executed, false);
    }
    await within(flight.promise, { signal });
    if (flight.error !== null) throw this.#notRenewed(flight, executed);
  }

  #forgetLost(sent) {
    const again = this.#renew !== undefined && !this.#ending;
    this.#replace(new Held(null, again ? { lost: sent.id, line: sent.line } : {}));
  }

  async #takeNewer(sent, executed, takes, signal) {
    const patience = performance.now() + this.#renewTimeout * 1000;
    while (this.#held === sent) {
      const left = patience - performance.now();
      if (sent.awaited.size === 0 || left <= 0) {
        if (!this.#ending) this.#forgetLost(sent);
        throw this.#lost(sent, "superseded", executed, false);
      }
      this.#stir ??= deferred();
      await within(this.#stir.promise, { signal, ms: left }).catch((error) => {
        if (signal.aborted) throw error;
      });
    }
    if (this.#held.line !== sent.line || takes > MAX_TAKES) {
      throw this.#lost(sent, "superseded", executed, false);
    }
  }

  #lost(sent, kind, executed, renewed) {
    const outlook = this.#outlook(renewed);
    return new SessionLost(sent.id, kind, { executed, renewed, detail: DETAIL[kind], outlook });
  }

  /** What becomes of the next call, for a person who reads of a loss. */
  #outlook(renewed) {
    const { key, lost } = this.#held;
    if (renewed) return "A renewed session is in place: make the call again if that is right.";
    if (key !== null) return `The key held by now is another one, of session ${this.id}.`;
    if (lost !== null) return "The next call has it renewed first.";
    return (
      "The key is forgotten: the next call begins a new, empty session. " +
      "Give renew to have it rebuilt (sign in again, initialise again)."
    );
  }

  #notRenewed(flight, executed) {
    return new SessionLost(flight.lost ?? "(none)", "renewal", {
      executed,
      renewed: false,
      detail: "it had ended, and renewing it failed; see the cause",
      outlook: this.#outlook(false),
      cause: flight.error,
    });
  }

  // Renewing: run once for all calls, bounded, and nobody's cancellation but its own ends it.

  #takeOff(renew, lost) {
    const { promise, resolve } = deferred();
    const flight = { promise, lost, error: null };
    this.#flight = flight;
    this.#fly(flight, renew).then(
      () => null,
      (error) => error ?? new SessionError("renew failed"),
    ).then((error) => {
      const failed =
        error ??
        (this.#held.key === null
          ? new SessionError(
              `what was called returned, and no session key was announced in ${this.#header}: ` +
                "it has to write to the session, through this client",
            )
          : null);
      const brought = this.#held.key === null || lost !== null || this.#held.through.includes(flight);
      if (failed !== null && brought) {
        // What a renewal that was given up may still bring does not count any more.
        const held = new Held(null, lost === null ? {} : { lost, line: this.#held.line });
        held.failed = flight;
        this.#replace(held);
      }
      flight.error = failed;
      this.#flight = null;
      resolve();
    });
    return flight;
  }

  async #fly(flight, renew) {
    // JavaScript does not tell who calls: what renews is given a fetch that is let through.
    const through = (input, init) => this.#follow(input, init, [flight]);
    const running = Promise.resolve().then(() => renew(through));
    const result = await within(running, { ms: this.#renewTimeout * 1000 });
    if (typeof result === "string" && KEY.test(result) && this.#held.key !== result) {
      if (this.#origin === null) {
        throw new SessionError("renew returned a key, and no origin was given that it is for.");
      }
      this.#replace(new Held(result, flight.lost === null ? {} : { line: this.#held.line }));
    }
  }

  #resourceUrl() {
    return new URL(this.#resource, this.#origin ?? undefined).href;
  }
}
