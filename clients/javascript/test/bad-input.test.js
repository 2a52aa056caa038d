/**
 * Wrong addresses, peers that are no brokers, and brokers that misbehave: each is a typed error in time, and
 * leaves no handle behind.
 * @module
 */

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { chmodSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import net from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'node:test';

import { connect, defaultAddress } from '../src/index.js';
import { parseBytes } from './support/bytes.js';
import { Broker } from './support/broker.js';

const folder = mkdtempSync(join(tmpdir(), 'elbus-js-bad-'));
test.after(() => rmSync(folder, { recursive: true }));

/** @type {unknown[]} */
const unobserved = [];
process.on('unhandledRejection', (reason) => unobserved.push(reason));
test.afterEach(async () => {
  await new Promise((resolve) => {
    setTimeout(resolve, 1);
  });
  assert.deepEqual(unobserved, []);
});

/** The handles of sockets that keep the process alive. */
function handles() {
  return process
    .getActiveResourcesInfo()
    .filter((name) => /TCPSocket|PipeWrap|TLS/.test(name))
    .sort();
}

/** Waits until no more handles are left than before. @param {string[]} before */
async function assertHandles(before) {
  for (let attempt = 0; handles().length > before.length && attempt < 200; attempt += 1) {
    await new Promise((resolve) => {
      setTimeout(resolve, 10);
    });
  }
  assert.deepEqual(handles(), before);
}

/**
 * Listens, and calls `behave` for each connection. Ends with the test.
 * @param {import('node:test').TestContext} context
 * @param {(socket: net.Socket) => void} behave
 */
async function peer(context, behave) {
  /** @type {Set<net.Socket>} */
  const sockets = new Set();
  const server = net.createServer((socket) => {
    sockets.add(socket);
    socket.on('error', () => {});
    behave(socket);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  context.after(async () => {
    for (const socket of sockets) socket.destroy();
    server.close();
    await once(server, 'close');
  });
  return `127.0.0.1:${/** @type {net.AddressInfo} */ (server.address()).port}`;
}

const bytes = (/** @type {string[]} */ ...words) => parseBytes(words).bytes;
const greeting = bytes('EB0100');

/**
 * A peer that registers any client, and then does something.
 * @param {import('node:test').TestContext} context
 * @param {(socket: net.Socket) => void} then
 */
function fakeBroker(context, then) {
  return peer(context, (socket) => {
    socket.write(greeting);
    socket.once('data', () => {
      socket.write(bytes('01', '01'));
      then(socket);
    });
  });
}

test('texts that are no addresses', async () => {
  for (const address of [
    '',
    'localhost',
    'host:',
    'host:99999',
    'host:x',
    ':7777',
    'a b:1',
    'http://x:1',
    '@x',
    'unix:',
    'tls:x',
    'ws://',
    'a/b:1',
  ]) {
    await assert.rejects(
      connect(address, 'a'),
      { kind: 'bad-address', message: /expected the path of a UNIX socket/ },
      address,
    );
  }
  for (const address of [undefined, null, 5, {}]) {
    await assert.rejects(connect(/** @type {any} */ (address), 'a'), { kind: 'invalid-argument' });
  }
  await assert.rejects(connect('/tmp/x', /** @type {any} */ (5)), { kind: 'invalid-argument' });
  await assert.rejects(connect('/tmp/x', 'a', /** @type {any} */ ('x')), { kind: 'invalid-argument' });
});

test('nothing listens', async () => {
  const before = handles();
  const file = join(folder, 'file.sock');
  writeFileSync(file, '');
  const closed = net.createServer().listen(0, '127.0.0.1');
  await once(closed, 'listening');
  const { port } = /** @type {net.AddressInfo} */ (closed.address());
  closed.close();
  await once(closed, 'close');
  for (const address of [
    join(folder, 'missing.sock'),
    file,
    `127.0.0.1:${port}`,
    `localhost:${port}`,
    `tls://127.0.0.1:${port}`,
  ]) {
    const error = await connect(address, 'a').catch((reason) => reason);
    assert.equal(error.kind, 'no-broker', `${address}: ${error}`);
    assert.ok(
      error.message.startsWith(`no broker at ${address} (`) && error.message.includes('start elbusd'),
      error.message,
    );
  }
  await assert.rejects(connect('host.invalid:1', 'a'), { kind: 'no-broker' });
  await assert.rejects(connect('ws://127.0.0.1:1/', 'a'), { kind: 'bad-address', message: /package ws/ });
  await assertHandles(before);
});

test(
  'access to the socket is denied',
  { skip: process.getuid?.() === 0 && 'root may use any socket' },
  async () => {
    const path = join(folder, 'denied.sock');
    const server = net.createServer().listen(path);
    await once(server, 'listening');
    chmodSync(path, 0);
    await assert.rejects(connect(path, 'a'), { kind: 'no-broker', message: /EACCES/ });
    server.close();
  },
);

for (const [title, behave, kind] of /** @type {[string, (socket: net.Socket) => void, string][]} */ ([
  ['an HTTP server', (socket) => socket.end('HTTP/1.1 400 Bad Request\r\n\r\n'), 'not-a-broker'],
  ['a peer that closes at once', (socket) => socket.end(), 'not-a-broker'],
  [
    'a peer that resets',
    (socket) => socket.once('data', () => socket.resetAndDestroy()).write(greeting),
    'disconnected',
  ],
  ['a peer that is silent', () => {}, 'timeout'],
  ['half a greeting and silence', (socket) => socket.write(greeting.subarray(0, 2)), 'timeout'],
  ['a greeting and silence', (socket) => socket.write(greeting), 'timeout'],
  ['endless zeros', (socket) => socket.write(new Uint8Array(1_000_000)), 'not-a-broker'],
])) {
  test(`${title} is no broker`, async (context) => {
    const address = await peer(context, behave);
    const start = performance.now();
    const error = await connect(address, 'a', { timeout: 200 }).catch((reason) => reason);
    assert.equal(error.kind, kind, String(error));
    assert.ok(error.message.includes(address));
    assert.ok(performance.now() - start < 3000);
  });
}

test('TLS with a peer that speaks none, and with certificates that cannot be read', async (context) => {
  const plain = await peer(context, (socket) =>
    socket.once('data', () => socket.end(bytes('75'))).write(greeting),
  );
  await assert.rejects(connect(`tls://${plain}`, 'a', { timeout: 2000 }), { kind: 'tls' });
  const silent = await peer(context, () => {});
  await assert.rejects(connect(`tls://${silent}`, 'a', { timeout: 100 }), { kind: 'timeout' });
  const closing = await peer(context, (socket) => socket.end());
  await assert.rejects(connect(`tls://${closing}`, 'a', { timeout: 2000 }), { kind: 'tls' });
  await assert.rejects(connect(`tls://${plain}`, 'a', { tls: { cert: 'x', key: 'y' } }), { kind: 'tls' });
});

for (const [title, frame] of /** @type {[string, Uint8Array][]} */ ([
  ['declares 4 GiB', bytes('12', 'FFFFFFFF', '00')],
  ['sends an unknown kind', bytes('55', 'u32=0', '00')],
  ['sends a sender that is not UTF-8', bytes('12', 'u32=2', '00', 'FF', '00')],
  ['sends a topic that is not UTF-8', bytes('01', 'u32=4', '00', '"s"', '00', 'FF', '00')],
  ['sends no NUL', bytes('12', 'u32=2', '00', '"ab"')],
])) {
  test(`a broker that ${title} is left`, async (context) => {
    const address = await fakeBroker(context, (socket) => setImmediate(() => socket.write(frame)));
    const client = await connect(address, 'a');
    const pending = client.send('b', 'x').catch((reason) => reason);
    const events = client.events();
    assert.match(/** @type {any} */ ((await events.next()).value).reason, /the broker sent an invalid frame/);
    assert.equal((await events.next()).value?.type, 'closed');
    assert.equal((await pending).kind, 'disconnected');
    assert.equal((await client.frames.next()).done, true);
    await client.close();
  });
}

test('half a frame and then silence: operations time out, and the broker is left', async (context) => {
  const address = await fakeBroker(context, (socket) => socket.write(bytes('12', 'u32=100', '00', '"a"')));
  const client = await connect(address, 'a', { timeout: 150, pingInterval: 20 });
  const events = client.events();
  const start = performance.now();
  const outcomes = await Promise.allSettled([
    client.send('b', 'x'),
    client.subscribe('t'),
    client.subscribe('t', { latest: true }),
    client.call('b', 'm'),
    client.roundTrip(),
  ]);
  for (const outcome of outcomes)
    assert.equal(outcome.status === 'rejected' && outcome.reason.kind, 'timeout');
  assert.match(/** @type {any} */ ((await events.next()).value).reason, /silent/);
  assert.ok(performance.now() - start < 3000);
  await client.close();
});

test('a broker that does not read: senders wait, time out, and close does not hang', async (context) => {
  const address = await fakeBroker(context, (socket) => socket.pause());
  const client = await connect(address, 'a', { timeout: 300, queueBytes: 100_000 });
  const payload = new Uint8Array(50_000);
  let sent = 0;
  const error = await (async () => {
    for (; sent < 1000; sent += 1) await client.send('b', payload, { qos: 'no' });
    return undefined;
  })().catch((reason) => reason);
  assert.equal(error?.kind, 'timeout', String(error));
  assert.match(error.message, /space in the send queue/);
  assert.ok(client.stats().queuedBytes <= 300_000, `${client.stats().queuedBytes}`);
  await assert.rejects(
    (async () => {
      for (;;) await client.send('b', payload, { qos: 'realtime' });
    })(),
    { kind: 'queue-full' },
  );
  await client.close();
});

test('100,000 pending sends end when the broker goes away', async (context) => {
  /** @type {net.Socket | undefined} */
  let server;
  const address = await fakeBroker(context, (socket) => {
    server = socket;
    socket.resume();
  });
  const client = await connect(address, 'a', { timeout: 60_000 });
  const sends = Array.from({ length: 100_000 }, (_, number) => client.send('b', `${number}`));
  const settled = Promise.allSettled(sends);
  await new Promise((resolve) => {
    setTimeout(resolve, 50);
  });
  server?.destroy();
  const outcomes = await settled;
  assert.ok(
    outcomes.every((outcome) => outcome.status === 'rejected' && outcome.reason.kind === 'disconnected'),
  );
  await client.close();
});

test('connecting is aborted at any time', async (context) => {
  const address = await peer(context, (socket) => socket.write(greeting));
  const reason = new Error('enough');
  for (const delay of [0, 1, 5, 20]) {
    for (const target of [address, `tls://${address}`, 'ws://127.0.0.1:1/']) {
      const controller = new AbortController();
      setTimeout(() => controller.abort(reason), delay);
      const error = await connect(target, 'a', { signal: controller.signal }).catch((error) => error);
      if (!target.startsWith('ws')) assert.ok(error === reason || error.kind === 'tls', String(error));
    }
  }
  await assert.rejects(connect(address, 'a', { signal: AbortSignal.abort(reason) }), reason);
  await assert.rejects(connect(address, 'a', { signal: AbortSignal.timeout(10) }), { name: 'TimeoutError' });
});

test('the default address is that of the broker of this user', async (context) => {
  const broker = await Broker.start(context);
  const previous = process.env.XDG_RUNTIME_DIR;
  context.after(() => {
    if (previous === undefined) delete process.env.XDG_RUNTIME_DIR;
    else process.env.XDG_RUNTIME_DIR = previous;
  });
  process.env.XDG_RUNTIME_DIR = folder;
  const path = join(folder, 'elbus.sock');
  symlinkSync(broker.path, path);
  assert.equal(await defaultAddress(), path);
  const client = await connect(await defaultAddress(), 'a');
  await client.close();
  rmSync(path);
});

test('nothing is left of clients that were closed or refused', async (context) => {
  const broker = await Broker.start(context);
  const before = handles();
  for (let round = 0; round < 20; round += 1) {
    const client = await connect(broker.path, 'a');
    await assert.rejects(connect(broker.path, 'a'), { kind: 'name-taken' });
    await client.send('a', 'x');
    await client.call('.broker', 'test');
    await client.close();
  }
  await assertHandles(before);
});

test('a misspelt setting or option is refused instead of ignored', { timeout: 60_000 }, async (context) => {
  const address = await fakeBroker(context, () => {});
  for (const settings of [{ timeot: 5 }, { reconnect: { firstdelay: 5 } }, { tls: { cafile: 'x' } }]) {
    await assert.rejects(connect(address, 'a', /** @type {any} */ (settings)), {
      kind: 'invalid-argument',
      message: /^a key of (the settings|reconnect|tls) is "(timeot|firstdelay|cafile)": expected \w+, /,
    });
  }
  const client = await connect(address, 'a', { timeout: 200 });
  const subscription = client.subscribe('x').catch(() => {});
  const any = /** @type {any} */ (client);
  for (const start of [
    () => any.send('b', 'x', { QoS: 'no' }),
    () => any.publish('b', 'x', { timeout: 5 }),
    () => any.publishFor('b', 'c', 'x', { realtime: true }),
    () => any.subscribe('x', { lastest: true }),
    () => any.addFilters('x', { latest: true }),
    () => any.exclude('x', { qos: 'no' }),
    () => any.roundTrip({ timeout: 5 }),
    () => any.call('b', 'm', 1, { time_out: 5 }),
    () => any.call0('b', 'm', 1, { timeout: 5 }),
    () => any.notify('b', 'x', { raw: true }),
    () => any.cursor('b', 'm', 1, 'next', { raw: true }),
    () => any.secondary({ timeout: 5 }),
    () => any.frames.next({ timeout: 5 }),
    async () => any.serve({ m() {} }, { notifications() {} }),
  ]) {
    const pattern = /^a key of the options is "\w+": expected \w+/;
    await assert.rejects(start(), { kind: 'invalid-argument', message: pattern }, String(start));
  }
  await subscription;
  await client.close();
});
