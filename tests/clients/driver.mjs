// Makes the calls that drivers.py asks for, one JSON document a line. STATIC names the folder of
// the package's static files.
import { readFile } from "node:fs/promises";
import { createInterface } from "node:readline";
import { inspect } from "node:util";

// A data: URL, because what is served as a static file is not in a package of Node's.
const source = await readFile(`${process.env.STATIC}/header-sessions.js`, "utf8");
const { HeaderSession } = await import(`data:text/javascript,${encodeURIComponent(source)}`);

const clients = [];
const warnings = [];
console.warn = (...said) => warnings.push(inspect(said, { depth: null }));

function renewer(renew, client) {
  return async (fetch) => {
    if (renew.does === "call") await fetch(client.base + renew.path, { method: "POST" });
    if (renew.does === "fail") throw new Error("no");
    if (renew.does === "hang") await new Promise(() => {});
    return renew.key || undefined;
  };
}

function send(client, { method, url, document, abortable }) {
  const init = { method, redirect: client.redirect, headers: { ...client.headers } };
  if (document !== null && document !== undefined) {
    init.body = JSON.stringify(document);
    init.headers["Content-Type"] = "application/json";
  }
  if (abortable) {
    client.abort = new AbortController();
    init.signal = client.abort.signal;
  }
  return client.session.fetch(url.startsWith("/") ? client.base + url : url, init);
}

const ops = {
  open({ base, settings, renew, redirect, headers }) {
    const client = { base, redirect, headers };
    if (renew !== null) settings.renew = renewer(renew, client);
    client.session = new HeaderSession(settings);
    clients.push(client);
    return clients.length - 1;
  },
  async call(question, client) {
    const response = await send(client, question);
    const text = await response.text();
    let document = null;
    try {
      document = JSON.parse(text);
    } catch {
      // No JSON, no document.
    }
    return { status: response.status, document };
  },
  start({ path }, client) {
    if (path === undefined) return client.session.start();
    return client.session.start((fetch) =>
      fetch(client.base + path, { method: "PATCH", body: '{"started": true}' }),
    );
  },
  end: (_, client) => client.session.end(),
  keepAlive: (_, client) => client.session.keepAlive(),
  get: ({ name }, client) => client.session[name],
  abort: (_, client) => client.abort.abort(),
  shown: (_, { session }) =>
    warnings.join("\n") + inspect(session, { depth: null, showHidden: true }) + JSON.stringify(session),
  close: () => null,
};

for await (const line of createInterface({ input: process.stdin })) {
  const question = JSON.parse(line);
  Promise.resolve()
    .then(() => ops[question.op](question, clients[question.client]))
    .then(
      (result) => ({ n: question.n, result }),
      (error) => ({
        n: question.n,
        error: {
          ...error,
          name: error.name,
          message: error.message,
          cause: undefined,
          shown: inspect(error, { depth: null, showHidden: true }),
        },
      }),
    )
    .then((answer) => process.stdout.write(`${JSON.stringify(answer)}\n`));
}
process.exit(0);
