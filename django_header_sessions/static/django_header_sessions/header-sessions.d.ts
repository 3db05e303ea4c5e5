/** Something about the session, not about one answer. Carries no session key. */
export class SessionError extends Error {}

/** The first call goes to a plain-HTTP origin that is not loopback. */
export class InsecureOrigin extends SessionError {}

/** `start()` ran its call, and no session key was announced. */
export class SessionNotStarted extends SessionError {}

/** The session this call belonged to is gone, and what it held with it. */
export class SessionLost extends SessionError {
  /** The public id of the session that is lost. */
  readonly sessionId: string;
  readonly reason: "unknown" | "ended" | "superseded" | "renewal";
  /** Whether the server ran this call; undefined where it did not say. */
  readonly executed: boolean | undefined;
  /** Whether a new session is in place, so that the call may be made again. */
  readonly renewed: boolean;
}

export type Fetch = (input: RequestInfo | URL, init?: RequestInit) => Promise<Response>;

/**
 * Makes a new session through the `fetch` it is given, and only that one: calls of the session's
 * own `fetch`, `start` and `end` wait for the renewal to end. May return a session key instead.
 */
export type Renew = (fetch: Fetch) => unknown;

export interface HeaderSessionOptions {
  /** Continue this session; needs its origin. */
  key?: string | null;
  /** The only origin that is sent the key; else that of the first call. */
  origin?: string | null;
  /** Called once for all calls that need it when the session is gone. */
  renew?: Renew | null;
  /** Seconds `renew` may take; 30. */
  renewTimeout?: number;
  /** Seconds one call may spend on being put off with 503; 10, and 0 never waits. */
  maxWait?: number;
  /** Let the key travel over plain HTTP to other hosts than this one. */
  insecure?: boolean;
  /** The session header's name; "X-Session-Key". */
  header?: string;
  /** URL or path where GET keeps the session alive and DELETE ends it. */
  resource?: string;
  /**
   * For every request that does not say otherwise; "omit", for no cookies at all. A `Request` says
   * so unless it has the default, "same-origin".
   */
  credentials?: RequestCredentials;
  /** What sends; the global one. */
  fetch?: Fetch;
}

/** One server-side session, for all the calls made through its `fetch`. */
export class HeaderSession {
  constructor(options?: HeaderSessionOptions);
  /** The key held, null before there is one. A password: for going on after a restart only. */
  readonly key: string | null;
  /** The public id of the session, null before there is one. */
  readonly id: string | null;
  /** The only origin that is sent the key, null before the first call. */
  readonly origin: string | null;
  /** Seconds until the session is over if nothing is called; null while that is unknown. */
  readonly expiresIn: number | null;
  /**
   * As the global fetch, with the session. May reject with a SessionError. A body in `init` that is
   * no stream can be sent again where that is safe; a stream, or the body of a `Request`, is not.
   */
  fetch: Fetch;
  /** Make the session now, through `call` (else `renew`), unless there is one. */
  start(call?: Renew): Promise<void>;
  /** Restart the idle timeout; answers `expiresIn`, null when there is no session. */
  keepAlive(): Promise<number | null>;
  /**
   * End the session on the server and forget it, also one that is about to be renewed. Rejects, and
   * keeps the key, when that fails or somebody else has the session by now.
   */
  end(): Promise<void>;
  /** Let go of the key without telling the server. */
  forget(): void;
}
