/**
 * All clients together, see README.md: a broker, a peer in each language, and this program, which calls them.
 * @module
 */

import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { createRequire } from 'node:module';
import { once } from 'node:events';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'node:test';
import { fileURLToPath } from 'node:url';

import { connect } from '../javascript/src/index.js';

const JOBS = 2000;
const TIMEOUT = 60_000;
const folder = mkdtempSync(join(tmpdir(), 'elbus-mixed-'));
const socket = join(folder, 'bus.sock');
const chromiumPath = [process.env.CHROMIUM, '/usr/bin/chromium'].find((path) => path && existsSync(path));

/**
 * Starts a program and waits for a line of its output.
 * @param {string} program
 * @param {string[]} parameters
 * @param {RegExp} ready
 */
async function start(program, parameters, ready) {
  const child = spawn(program, parameters, { cwd: folder, stdio: ['ignore', 'pipe', 'pipe'] });
  let output = '';
  const found = new Promise((resolve, reject) => {
    const collect = (/** @type {Buffer} */ data) => {
      output += data;
      if (ready.test(output)) resolve(undefined);
    };
    child.stdout.on('data', collect);
    child.stderr.on('data', collect);
    child.once('error', reject);
    child.once('exit', (code) => reject(new Error(`${program} has ended with ${code}: ${output}`)));
  });
  await found;
  return { child, output: () => output };
}

/** Serves the page and the sources of the client. */
async function servePage() {
  const root = fileURLToPath(new URL('..', import.meta.url));
  const server = createServer((request, response) => {
    const path = join(root, String(request.url));
    const isSource = path.startsWith(root) && path.endsWith('.js') && existsSync(path);
    response.writeHead(200, { 'content-type': isSource ? 'text/javascript' : 'text/html' });
    response.end(isSource ? readFileSync(path) : '<!doctype html><title>mixed</title>');
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = /** @type {import('node:net').AddressInfo} */ (server.address());
  return { server, origin: `http://127.0.0.1:${port}` };
}

/**
 * Starts the broker, with a token for the page.
 * @param {string} broker
 * @param {string} origin
 */
async function startBroker(broker, origin) {
  const made = join(folder, 'made');
  const line = execFileSync('/bin/sh', ['-c', '"$0" --make-token page 2>"$1"', broker, made]);
  const token = /: (\S+)\s*$/.exec(readFileSync(made, 'utf8'))?.[1];
  writeFileSync(join(folder, 'tokens'), line, { mode: 0o600 });
  writeFileSync(
    join(folder, 'broker.toml'),
    `[[plugin]]
name = "local"
builtin = "unix"
config = { path = "bus.sock" }
[[plugin]]
name = "pages"
builtin = "websocket"
config = { bind = "127.0.0.1:0", path = "/bus", tokens_file = "tokens", allowed_origins = ["${origin}"] }
[[plugin]]
name = "rpc"
builtin = "rpc"
`,
  );
  const running = await start(broker, ['--config', 'broker.toml'], /^ {2}plugin /m);
  const address = /listening on (ws:\/\/\S+)/.exec(running.output())?.[1];
  assert.ok(address, running.output());
  return { broker: running.child, address, token };
}

test('all clients together', { timeout: 5 * TIMEOUT }, async (context) => {
  /** @type {import('node:child_process').ChildProcess[]} */
  const children = [];
  context.after(() => {
    for (const child of children) child.kill('SIGKILL');
    rmSync(folder, { recursive: true });
  });
  assert.ok(process.env.ELBUSD, 'ELBUSD must be the path of elbusd');
  const page = await servePage();
  context.after(() => page.server.close());
  const { broker, address, token } = await startBroker(process.env.ELBUSD, page.origin);
  children.push(broker);

  /** @type {string[]} */
  const peers = [];
  /**
   * @param {string} language
   * @param {string | undefined} program
   * @param {string[]} parameters
   */
  const startPeer = async (language, program, parameters) => {
    if (program === undefined) {
      console.log(`NOT TESTED: ${language}`);
      return;
    }
    const name = `mixed.${language}`;
    children.push((await start(program, [...parameters, socket, name], /^ready$/m)).child);
    peers.push(name);
  };
  const source = (/** @type {string} */ name) => fileURLToPath(new URL(name, import.meta.url));
  await startPeer('rust', process.env.ELBUS_RUST_PEER, []);
  await startPeer('python', process.env.ELBUS_PYTHON, [source('peer.py')]);
  await startPeer('node', process.execPath, [source('peer.js')]);
  let viewer;
  if (chromiumPath === undefined) {
    console.log('NOT TESTED: the page: no Chromium; install the package chromium, or set CHROMIUM');
  } else {
    const { chromium } = createRequire(new URL('../javascript/package.json', import.meta.url))('playwright-core');
    const browser = await chromium.launch({ executablePath: chromiumPath, args: ['--no-sandbox'] });
    context.after(() => browser.close());
    const tab = await browser.newPage();
    await tab.goto(page.origin);
    await tab.evaluate(
      async (/** @type {any} */ { address, token }) => {
        const { startPeer } = await import(String('/mixed/peer.js'));
        Object.assign(globalThis, { peer: await startPeer(address, 'mixed.page', token) });
      },
      { address, token },
    );
    viewer = 'mixed.page';
    peers.push(viewer);
  }
  const driver = await connect(socket, 'driver', { timeout: TIMEOUT });
  context.after(() => driver.close());

  await context.test('every peer calls every other one', async () => {
    for (const [index, from] of peers.entries()) {
      for (const to of peers.filter((peer) => peer !== from)) {
        assert.equal(await driver.call(from, 'relay', { target: to, value: index + 20 }), 2 * (index + 20));
      }
    }
  });

  await context.test('peers share the jobs that each of them publishes', async () => {
    if (viewer) await driver.call(viewer, 'view');
    for (const peer of peers) await driver.call(peer, 'work', { group: 'workers' });
    for (const peer of peers) assert.equal(await driver.call(peer, 'publish', { count: JOBS }), JOBS);
    const count = async () => {
      const taken = await Promise.all(peers.map((peer) => driver.call(peer, 'taken')));
      return { taken, total: taken.flat().length };
    };
    const until = Date.now() + TIMEOUT;
    while ((await count()).total < peers.length * JOBS) assert.ok(Date.now() < until, 'jobs are missing');
    const { taken, total } = await count();
    assert.equal(total, peers.length * JOBS);
    const jobs = new Map();
    for (const job of taken.flat()) jobs.set(job, (jobs.get(job) ?? 0) + 1);
    assert.equal(jobs.size, JOBS);
    for (const [job, times] of jobs) assert.equal(times, peers.length, `job ${job}`);
    for (const [index, peer] of peers.entries()) {
      // the page gets all jobs by its own filter, so its group chooses others
      assert.equal(taken[index].length > 0, peer !== viewer, `${peer} took ${taken[index].length} jobs`);
    }
    if (viewer) {
      let seen = {};
      while (Object.values(seen).length < 7 || Math.max(...Object.values(seen).map(Number)) < JOBS - 1) {
        assert.ok(Date.now() < until, `the page has seen ${JSON.stringify(seen)}`);
        seen = await driver.call(viewer, 'seen');
      }
    }
  });
});
