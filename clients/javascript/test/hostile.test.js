/**
 * Hostile bytes and careless programs: damaged streams, frames that nobody takes, acknowledgements that never
 * come, and subscriptions that are dropped. Memory stays bounded, and errors are typed.
 * @module
 */

import assert from 'node:assert/strict';
import test from 'node:test';

import { Client } from '../src/client.js';
import { connect, cursorMethod } from '../src/index.js';
import { DeliveryParser, FrameFault } from '../src/wire/delivery.js';
import { Broker } from './support/broker.js';
import { concat, hex, parseBytes } from './support/bytes.js';
import { randomSource } from './support/random.js';
import { MemoryBroker, settle, VirtualClock } from './support/virtual.js';

const gc = /** @type {() => void} */ (globalThis.gc);
assert.ok(gc, 'run with --expose-gc');

const le = (/** @type {number} */ value) => Uint8Array.of(value, value >>> 8, value >>> 16, value >>> 24);
const bytes = (/** @type {string[]} */ ...words) => parseBytes(words).bytes;

/** @param {import('../src/index.js').ClientSettings} [settings] */
async function connectInMemory(settings = {}) {
  const broker = new MemoryBroker();
  const clock = new VirtualClock();
  const opening = Client.open('/run/elbus.sock', 'a', settings, { clock, dial: broker.dial });
  await settle();
  const connection = broker.pending[0];
  connection.send(bytes('EB0100'));
  connection.send(bytes('01', '01'));
  const client = await opening;
  connection.read();
  return { client, connection, clock };
}

/** @param {import('./support/virtual.js').MemoryConnection} connection @param {Client} client */
async function end(connection, client) {
  const closed = client.close();
  await settle();
  connection.close();
  await closed;
}

/**
 * Returns valid frames of all kinds.
 * @param {(limit: number) => number} random
 */
function randomStream(random) {
  const parts = [];
  for (let count = random(20); count >= 0; count -= 1) {
    const payload = new Uint8Array(random(4) === 0 ? random(7000) : random(50)).fill(random(256));
    const texts = random(3) === 0 ? bytes('"b"', '00', '"t/x"', '00') : bytes('"b"', '00');
    const kind = texts.length > 2 ? 0x01 : [0x12, 0x13][random(2)];
    const body = concat(texts, payload);
    const header = Uint8Array.of(kind, 0, 0, 0, 0, random(2));
    new DataView(header.buffer).setUint32(1, body.length, true);
    parts.push(header, body);
    if (random(3) === 0) parts.push(bytes('FE', '01000000', '01'));
    if (random(3) === 0) parts.push(new Uint8Array(6));
  }
  return concat(...parts);
}

/**
 * Parses a stream in chunks of random lengths. Returns what was parsed, and the error.
 * @param {Uint8Array} stream
 * @param {(limit: number) => number} random
 * @param {number} longest
 */
function parseRandomly(stream, random, longest) {
  /** @type {string[]} */
  const items = [];
  const parser = new DeliveryParser(1_000_000, {
    ack: (id, code) => items.push(`ack ${id} ${code}`),
    frame: ({ kind, sender, topic, payload, realtime }) => {
      items.push(`${kind} ${sender} ${topic} ${realtime} ${payload.length} ${hex(payload.subarray(0, 8))}`);
    },
  });
  try {
    for (let at = 0; at < stream.length;) {
      const length = 1 + random(longest);
      parser.push(stream.slice(at, at + length));
      at += length;
    }
  } catch (error) {
    if (!(error instanceof FrameFault)) throw error;
    items.push(`fault ${error.fault}`);
  }
  return items;
}

test('random streams do not depend on how they arrive, damaged or not', () => {
  for (let seed = 1; seed <= 400; seed += 1) {
    const random = randomSource(seed);
    const stream = randomStream(random);
    if (seed % 2 === 0) {
      for (let damage = random(4); damage >= 0; damage -= 1) stream[random(stream.length)] = random(256);
    }
    const whole = parseRandomly(stream, () => stream.length, stream.length);
    for (const longest of [7, 300, 100_000]) {
      assert.deepEqual(parseRandomly(stream, random, longest), whole, `seed ${seed}`);
    }
  }
});

test('random bytes in a conversation end it with a typed error at most', async () => {
  for (let seed = 1; seed <= 300; seed += 1) {
    const random = randomSource(seed);
    const { client, connection, clock } = await connectInMemory({ reconnect: false });
    client.serve({ x: (/** @type {unknown} */ params) => params });
    const operations = Promise.allSettled([
      client.send('b', 'x'),
      client.call('b', 'm'),
      client.subscribe('t/#'),
    ]);
    const noise = seed % 3 === 0 ? Uint8Array.from({ length: 500 }, () => random(256)) : randomStream(random);
    for (let damage = random(10); damage > 0; damage -= 1) noise[random(noise.length)] = random(256);
    connection.send(noise, 1 + random(100));
    await clock.advance(30_000);
    for (const outcome of await operations) {
      if (outcome.status === 'rejected')
        assert.match(outcome.reason.kind, /^(timeout|disconnected|rpc|refused|not-)/);
    }
    await end(connection, client);
    assert.equal(clock.timers, 0);
  }
});

test('bytes that arrive one by one cost no more memory than those that arrive together', () => {
  const parser = new DeliveryParser(100_000_000, { ack() {}, frame() {} });
  parser.push(bytes('12', 'u32=50000000', '00'));
  gc();
  const before = process.memoryUsage();
  const single = new Uint8Array(1);
  for (let count = 0; count < 1_000_000; count += 1) parser.push(single);
  gc();
  const after = process.memoryUsage();
  assert.ok(
    after.arrayBuffers - before.arrayBuffers < 3_000_000,
    `${after.arrayBuffers - before.arrayBuffers}`,
  );
  assert.ok(after.heapUsed - before.heapUsed < 3_000_000);
});

test('what nobody takes is bounded, with the buffers that it keeps', async () => {
  for (const overflow of /** @type {const} */ (['block', 'drop-newest', 'drop-oldest'])) {
    const { client, connection, clock } = await connectInMemory({ queueBytes: 100_000, overflow });
    const subscription = client.subscribe('t/#');
    await settle();
    connection.send(bytes('FE', '01000000', '01'));
    const publications = await subscription;
    // one small frame for the client in each buffer of frames for the subscription
    const small = bytes('12', 'len32(', '"b"', '00', '"x"', ')').subarray(0);
    const head = concat(Uint8Array.of(0x12, 3, 0, 0, 0, 0), bytes('"b"', '00', '"x"'));
    assert.equal(small.length, head.length - 1);
    const filler = concat(
      Uint8Array.of(0x01, 0x44, 0xea, 0, 0, 0),
      bytes('"b"', '00', '"t"', '00'),
      new Uint8Array(59_968),
    );
    gc();
    const before = process.memoryUsage().arrayBuffers;
    for (let count = 0; count < 2000; count += 1) {
      connection.send(concat(head, filler.subarray(0, 6 + 0xea44)));
      publications.tryNext();
    }
    gc();
    await settle();
    gc();
    // without the copies of single frames, it would be 36 MB
    const kept = process.memoryUsage().arrayBuffers - before;
    assert.ok(kept < 12_000_000, `${overflow}: ${kept}`);
    assert.ok(client.frames.missed > 1000, `${overflow}: ${client.frames.missed}`);
    await end(connection, client);
    assert.equal(clock.timers, 0);
  }
});

test('acknowledgements that never come cost nothing once their operations have ended', async () => {
  const { client, connection, clock } = await connectInMemory({ timeout: 100, pingInterval: 100 });
  gc();
  const before = process.memoryUsage().heapUsed;
  for (let round = 0; round < 50; round += 1) {
    const sends = Array.from({ length: 1000 }, () => client.send('b', 'x'));
    const outcomes = Promise.allSettled(sends);
    connection.send(new Uint8Array(6)); // a sign of life
    await clock.advance(100);
    assert.ok(
      (await outcomes).every((outcome) => outcome.status === 'rejected' && outcome.reason.kind === 'timeout'),
    );
    connection.read();
  }
  gc();
  const kept = process.memoryUsage().heapUsed - before;
  assert.ok(kept < 5_000_000, `${kept}`);
  await end(connection, client);
});

test('a program that does not await its sends gets them all out', async (context) => {
  // tests that run at the same time can hold up this one, which reads nothing while it sends
  const broker = await Broker.start(context, [], '?stall_seconds=60&timeout_seconds=61');
  const settings = { timeout: 60_000 };
  const [a, b] = [await connect(broker.path, 'a', settings), await connect(broker.path, 'b', settings)];
  context.after(() => Promise.all([a.close(), b.close()]));
  const count = 100_000;
  const payload = new Uint8Array(200);
  const sends = [];
  for (let number = 0; number < count; number += 1) {
    new DataView(payload.buffer).setUint32(0, number);
    sends.push(a.send('b', payload, { qos: number % 2 === 0 ? 'processed' : 'no' }));
  }
  const received = (async () => {
    for (let number = 0; number < count; number += 1) {
      const { value } = await b.frames.next();
      const actual = new DataView(value?.payload.slice().buffer ?? new ArrayBuffer(4)).getUint32(0);
      if (actual !== number) return `${number}: ${actual}`;
    }
    return 'in order';
  })();
  await Promise.all(sends);
  assert.equal(await received, 'in order');
});

test('a subscription that is dropped without being ended is unsubscribed', async (context) => {
  const broker = await Broker.start(context);
  const client = await connect(broker.path, 'a');
  context.after(() => client.close());
  await (async () => {
    const dropped = await client.subscribe('dropped', { latest: true });
    await client.publish('dropped', 'x');
    await dropped.next();
    const iterator = (await client.subscribe('iterated', { latest: true }))[Symbol.asyncIterator]();
    assert.equal(iterator.tryNext(), undefined);
  })();
  const filters = async () => {
    const { options } = await client.call('.broker', 'client.info', { name: 'a' });
    return options.map((/** @type {any} */ option) => option.filter);
  };
  assert.equal((await filters()).length, 2);
  for (let attempt = 0; (await filters()).length > 0; attempt += 1) {
    assert.ok(attempt < 500, 'still subscribed');
    gc();
    await new Promise((resolve) => {
      setTimeout(resolve, 10);
    });
  }
  // one whose loop waits for a frame stays
  const frames = (async () => {
    for await (const frame of client.subscribe('waiting')) return frame.text();
    return undefined;
  })();
  await client.roundTrip();
  for (let attempt = 0; attempt < 10; attempt += 1) {
    gc();
    await new Promise((resolve) => {
      setTimeout(resolve, 1);
    });
  }
  await client.publish('waiting', 'arrived');
  assert.equal(await frames, 'arrived');
});

test('a consumer that takes nothing is waited for until holdLimit, then gets a reported gap', async () => {
  const { client, connection, clock } = await connectInMemory({ queueBytes: 10_000, holdLimit: 1000 });
  const pending = client.subscribe('t');
  await settle();
  connection.send(bytes('FE', '01000000', '01'));
  const subscription = await pending;
  const frame = concat(
    Uint8Array.of(0x01, 0xec, 0x03, 0, 0, 0),
    bytes('"b"', '00', '"t"', '00'),
    new Uint8Array(1000),
  );
  for (let count = 0; count < 9; count += 1) connection.send(frame);
  assert.ok(connection.paused);
  await clock.advance(900);
  assert.ok(subscription.tryNext()); // it is slow, and not stalled
  await clock.advance(900);
  assert.ok(connection.paused);
  await clock.advance(200);
  assert.ok(!connection.paused, 'the reading continues');
  for (let count = 0; count < 5; count += 1) connection.send(frame);
  assert.ok(!connection.paused && subscription.missed === 5, `${subscription.missed}`);
  let taken = 0;
  while (subscription.tryNext()) taken += 1;
  assert.equal(taken, 8);
  connection.send(frame);
  assert.equal(subscription.tryNext()?.missed, 5);
  // while an operation waits for its outcome, four times as much is read
  const send = client.send('b', 'x');
  for (let count = 0; count < 30; count += 1) connection.send(frame);
  assert.ok(!connection.paused);
  for (let count = 0; count < 10; count += 1) connection.send(frame);
  assert.ok(connection.paused);
  while (subscription.tryNext()) {
    // takes everything
  }
  assert.ok(!connection.paused);
  connection.send(bytes('FE', '02000000', '01'));
  await send;
  await end(connection, client);
  assert.equal(clock.timers, 0);
});

test('a full socket holds senders in order, and a drain lets them continue', async () => {
  const { client, connection, clock } = await connectInMemory({ queueBytes: 1000, timeout: 500 });
  connection.room = false;
  /** @type {string[]} */
  const done = [];
  const send = (/** @type {string} */ name, /** @type {number} */ length) =>
    client.send('b', name.padEnd(length), { qos: 'no' }).then(
      () => done.push(name),
      (error) => done.push(`${name} ${error.kind}`),
    );
  for (const name of ['1', '2', '3', '4', '5']) void send(name, 600);
  await settle();
  assert.deepEqual(done, ['1', '2']);
  connection.drain();
  await settle();
  assert.deepEqual(done, ['1', '2', '3', '4', '5']);
  const written = new TextDecoder().decode(connection.read());
  assert.deepEqual(written.match(/[1-5](?= )/g), ['1', '2', '3', '4', '5']);
  connection.room = false;
  for (const name of ['6', '7', '8', '9']) void send(name, 600);
  await settle();
  await clock.advance(500);
  assert.deepEqual(done.slice(5), ['6', '7', '8 timeout', '9 timeout']);
  await clock.advance(1000);
  await end(connection, client);
  await clock.advance(1000);
});

test('a client whose timers are late pings when it receives something', async () => {
  const { client, connection, clock } = await connectInMemory();
  clock.skip(1500);
  connection.send(new Uint8Array(6));
  await settle();
  assert.equal(connection.read().length, 0, 'the timer is not late yet');
  clock.skip(1500);
  connection.send(new Uint8Array(6));
  connection.send(new Uint8Array(6));
  await settle();
  assert.equal(hex(connection.read()), '00'.repeat(9));
  await end(connection, client);
});

test('one signal for thousands of operations leaves no listeners, and causes no warning', async (context) => {
  /** @type {Error[]} */
  const warnings = [];
  const warn = (/** @type {Error} */ warning) => warnings.push(warning);
  process.on('warning', warn);
  context.after(() => process.off('warning', warn));
  const { client, connection } = await connectInMemory();
  const controller = new AbortController();
  const { signal } = controller;
  const outcomes = Promise.allSettled([
    ...Array.from({ length: 1000 }, () => client.send('b', 'x', { signal })),
    ...Array.from({ length: 1000 }, () => client.frames.next({ signal })),
    ...Array.from({ length: 1000 }, () => client.call('b', 'm', 1, { signal })),
  ]);
  await settle();
  connection.send(
    concat(...Array.from({ length: 500 }, (_, index) => concat(bytes('FE'), le(index + 1), bytes('01')))),
  );
  await settle();
  controller.abort();
  const kinds = (await outcomes).map(({ status }) => status);
  assert.deepEqual([kinds.indexOf('rejected'), kinds.lastIndexOf('fulfilled')], [500, 499]);
  await settle();
  assert.deepEqual(warnings, []);
  await end(connection, client);
});

test('connecting that is aborted in the round in which it succeeds leaves nothing', async () => {
  const broker = new MemoryBroker();
  const clock = new VirtualClock();
  const controller = new AbortController();
  const settings = { signal: controller.signal, reconnect: true };
  const opening = Client.open('/run/elbus.sock', 'a', settings, { clock, dial: broker.dial });
  await settle();
  const connection = broker.pending[0];
  connection.send(bytes('EB0100'));
  connection.send(bytes('01', '01'));
  controller.abort();
  await assert.rejects(opening, { name: 'AbortError' });
  await settle();
  assert.ok(connection.clientClosed);
  connection.close();
  await settle();
  assert.deepEqual([clock.timers, broker.pending.length], [0, 1]);
});

test('operations are aborted at every await, and leave nothing', async (context) => {
  const broker = await Broker.start(context);
  const client = await connect(broker.path, 'a', { timeout: 60_000 });
  const other = await connect(broker.path, 'b', { timeout: 60_000 });
  context.after(() => Promise.all([client.close(), other.close()]));
  other.serve({
    list: cursorMethod('list.next', () => [1, 2, 3]),
    double: (/** @type {number} */ n) => 2 * n,
  });
  /** @type {Client[]} */
  const connected = [];
  /** @type {Record<string, (signal: AbortSignal) => Promise<unknown>>} */
  const operations = {
    send: (signal) => client.send('b', 'x', { signal }),
    subscribe: (signal) => client.subscribe(['s', 't'], { signal }),
    'subscribe with options': (signal) => client.subscribe('o', { latest: true, signal }),
    addFilters: (signal) => client.addFilters('f', { signal }),
    exclude: (signal) => client.exclude('x', { signal }),
    call: (signal) => client.call('b', 'double', 1, { signal }),
    cursor: async (signal) => (await client.cursor('b', 'list', 1, 'list.next', { signal })).next({ signal }),
    roundTrip: (signal) => client.roundTrip({ signal }),
    next: (signal) => client.frames.next({ signal }),
    connect: async (signal) => {
      // the broker can be about to register one that was aborted
      names += 1;
      connected.push(await connect(broker.path, `c${names}`, { signal }));
    },
    secondary: async (signal) => {
      connected.push(await client.secondary({ signal }));
    },
  };
  let names = 0;
  let aborted = 0;
  for (const [name, operation] of Object.entries(operations)) {
    for (let turns = 0; turns < 60; turns += 1) {
      const controller = new AbortController();
      const outcome = operation(controller.signal).then(
        (value) => value,
        (error) => error,
      );
      for (let turn = 0; turn < turns; turn += 1) {
        // microtasks first, then rounds of the event loop
        if (turn < 40) await null;
        else await settle();
      }
      controller.abort();
      const value = await outcome;
      if (value instanceof Error) assert.equal(value.name, 'AbortError', `${name}: ${value}`);
      if (value instanceof Error) aborted += 1;
      else if (name.startsWith('subscribe')) await /** @type {any} */ (value).unsubscribe();
      else if (name === 'addFilters') await client.removeFilters('f');
      else if (name === 'exclude') await client.unexclude('x');
      await Promise.all(connected.splice(0).map((each) => each.close()));
    }
  }
  assert.ok(aborted > 100, `${aborted}`);
  await client.roundTrip();
  // nothing is subscribed or excluded
  for (const topic of ['s', 't', 'o', 'f']) await other.publish(topic, 'x');
  await client.addFilters('x');
  await other.publish('x', 'arrives');
  const { value } = await client.frames.next();
  assert.deepEqual([value?.topic, value?.text()], ['x', 'arrives']);
  const { options } = await client.call('.broker', 'client.info', { name: 'a' });
  assert.deepEqual(options, []);
});

test(
  'whatever a method throws or returns is answered, and the server continues',
  { timeout: 60_000 },
  async (context) => {
    const broker = await Broker.start(context);
    const server = await connect(broker.path, 'server');
    const client = await connect(broker.path, 'client', { timeout: 5000 });
    context.after(() => Promise.all([server.close(), client.close()]));
    const strange = () => Object.assign(new Error(), { message: { deep: Object.create(null) } });
    const hostile = {
      get then() {
        throw new Error('not a promise');
      },
    };
    server.serve({
      nothing: () => {
        throw undefined;
      },
      bare: () => {
        throw Object.create(null);
      },
      later: async () => {
        throw Object.create(null);
      },
      strange: () => {
        throw strange();
      },
      strangeLater: () => Promise.reject(strange()),
      hostile: () => hostile,
      hostileLater: async () => ({
        get x() {
          throw Object.create(null);
        },
      }),
      unencodable: () => () => {},
      fine: () => 'fine',
    });
    const methods = [
      'nothing',
      'bare',
      'later',
      'strange',
      'strangeLater',
      'hostile',
      'hostileLater',
      'unencodable',
    ];
    for (const method of methods) {
      await assert.rejects(client.call('server', method), { kind: 'rpc', code: -32603 }, method);
    }
    assert.equal(await client.call('server', 'fine'), 'fine');
  },
);

test('a client with many cursors leaves some for others', { timeout: 60_000 }, async (context) => {
  const broker = await Broker.start(context);
  const [server, greedy, other] = await Promise.all(
    ['server', 'greedy', 'other'].map((name) => connect(broker.path, name)),
  );
  context.after(() => Promise.all([server.close(), greedy.close(), other.close()]));
  server.serve({ items: cursorMethod('next', () => [1]) });
  const opened = Array.from({ length: 1000 }, () => greedy.call('server', 'items'));
  await Promise.all(opened);
  const secondary = await greedy.secondary();
  context.after(() => secondary.close());
  for (const client of [greedy, secondary]) {
    await assert.rejects(client.call('server', 'items'), {
      message: /limit of 1000 open cursors of one client/,
    });
  }
  const cursor = await other.cursor('server', 'items', undefined, 'next');
  assert.deepEqual(await cursor.block(5), [1]);
});
