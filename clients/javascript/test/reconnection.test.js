/**
 * Brokers that are killed, restarted and suspended: what a client restores, and what it reports.
 * @module
 */

import assert from 'node:assert/strict';
import { readdirSync } from 'node:fs';
import test from 'node:test';

import { connect } from '../src/index.js';
import { Broker } from './support/broker.js';

const sleep = (/** @type {number} */ millis) =>
  new Promise((resolve) => {
    setTimeout(resolve, millis);
  });

/**
 * Waits for an event of a connection.
 * @param {import('../src/index.js').ConnectionEvents} events
 * @param {string} type
 */
async function until(events, type) {
  for (;;) {
    const { value, done } = await events.next();
    assert.ok(!done, `the client ended before ${type}`);
    if (value.type === type) return value;
  }
}

test('subscriptions, exclusions and servers outlive the broker', { timeout: 60_000 }, async (context) => {
  const broker = await Broker.start(context);
  const reconnect = { firstDelay: 10, maxDelay: 50 };
  const client = await connect(broker.path, 'a', { reconnect });
  context.after(() => client.close());
  client.serve({ ping: () => 'pong' });
  const kept = await client.subscribe(['t/#', 'u']);
  const ended = await client.subscribe('ended');
  await client.exclude('t/secret');
  await client.addFilters('f/#');
  const events = client.events();
  await broker.kill();
  assert.equal((await events.next()).value?.type, 'disconnected');
  await ended.unsubscribe();
  const later = await client.subscribe('later');
  await assert.rejects(client.send('a', 'x'), { kind: 'disconnected' });
  await assert.rejects(client.call('a', 'ping'), { kind: 'disconnected' });
  const newest = await client.subscribe('o', { latest: true });
  await broker.start();
  await client.connected();
  const other = await connect(broker.path, 'b');
  context.after(() => other.close());
  for (const topic of ['t/secret', 'ended', 't/x', 'u', 'f/x', 'later', 'o'])
    await other.publish(topic, topic);
  assert.equal(await other.call('a', 'ping'), 'pong');
  assert.deepEqual([(await kept.next()).value?.topic, (await kept.next()).value?.topic], ['t/x', 'u']);
  assert.equal((await client.frames.next()).value?.topic, 'f/x');
  assert.equal((await later.next()).value?.topic, 'later');
  assert.equal((await newest.next()).value?.topic, 'o');
  assert.deepEqual(
    [kept.tryNext(), client.frames.tryNext(), client.stats().reconnects],
    [undefined, undefined, 1],
  );
});

test('the broker is killed 100 times under load', { timeout: 300_000 }, async (context) => {
  const rounds = Number(process.env.KILLS ?? 100);
  const broker = await Broker.start(context);
  const reconnect = { firstDelay: 5, maxDelay: 20 };
  const sender = await connect(broker.path, 'sender', { reconnect });
  const receiver = await connect(broker.path, 'receiver', { reconnect });
  receiver.serve({ echo: (/** @type {unknown} */ params) => params });
  const subscription = await receiver.subscribe('load/#');
  const gc = /** @type {(() => void) | undefined} */ (globalThis.gc);
  gc?.();
  const memory = process.memoryUsage();
  const files = () => readdirSync('/proc/self/fd').length;
  const descriptors = files();

  let running = true;
  let acknowledged = 0;
  let failed = 0;
  /** @type {Set<number>} */
  const received = new Set();
  /** The acknowledged numbers of each connection of the sender.
   * @type {number[][]} */
  const confirmed = [];
  let next = 0;
  const send = async () => {
    while (running) {
      const number = next;
      next += 1;
      const connection = sender.stats().reconnects;
      try {
        await sender.publish('load/x', `${number}`);
        (confirmed[connection] ??= []).push(number);
        acknowledged += 1;
      } catch (error) {
        assert.equal(/** @type {any} */ (error).kind, 'disconnected');
        failed += 1;
        await sender.connected();
      }
    }
  };
  const call = async () => {
    while (running) {
      try {
        assert.equal(await sender.call('receiver', 'echo', 'x', { timeout: 1000 }), 'x');
      } catch (error) {
        const { kind } = /** @type {any} */ (error);
        assert.ok(['disconnected', 'not-registered', 'timeout'].includes(kind), String(error));
        await sender.connected();
        await sleep(1);
      }
    }
  };
  const receive = (async () => {
    for await (const frame of subscription) received.add(Number(frame.text()));
  })();
  const load = [send(), send(), send(), call(), call()];
  const events = sender.events();
  for (let round = 0; round < rounds; round += 1) {
    await sleep(10);
    await broker.kill();
    await until(events, 'disconnected');
    await broker.start();
    await Promise.all([until(events, 'connected'), receiver.connected()]);
  }
  running = false;
  await Promise.all(load);
  await receiver.roundTrip();
  await subscription.unsubscribe();
  await receive;
  assert.ok(acknowledged > rounds && failed >= rounds / 2, `${acknowledged} ${failed}`);
  assert.equal(sender.stats().reconnects, rounds);
  // Acknowledged means queued for the receiver. Of each connection, only what came before the receiver was
  // connected, or what a killed broker had not written, is missing: the receiver's events report both.
  let arrived = 0;
  for (const numbers of confirmed) {
    const flags = (numbers ?? []).sort((x, y) => x - y).map((number) => received.has(number));
    const run = flags.slice(flags.indexOf(true), flags.lastIndexOf(true) + 1);
    assert.ok(run.every(Boolean), `a gap in ${numbers}`);
    arrived += run.length;
  }
  assert.ok(arrived > acknowledged / 4, `${arrived} of ${acknowledged} arrived`);
  await sender.close();
  await receiver.close();
  assert.ok(files() <= descriptors, `${files()} descriptors after ${descriptors}`);
  gc?.();
  const { heapUsed, arrayBuffers } = process.memoryUsage();
  const kept = heapUsed - memory.heapUsed + arrayBuffers - memory.arrayBuffers;
  assert.ok(gc === undefined || kept < 30_000_000, `${kept} bytes are kept`);
});

test('a suspended broker is left, and its successor used', { timeout: 60_000 }, async (context) => {
  const broker = await Broker.start(context);
  const client = await connect(broker.path, 'a', {
    timeout: 200,
    pingInterval: 50,
    reconnect: { firstDelay: 20, maxDelay: 50 },
  });
  context.after(() => client.close());
  const events = client.events();
  await broker.suspend();
  await assert.rejects(client.send('a', 'x'), { kind: 'timeout' });
  const { reason } = /** @type {any} */ (await until(events, 'disconnected'));
  assert.match(reason, /silent for/);
  broker.resume();
  await until(events, 'connected');
  await client.send('a', 'y');
});

test('attempts are limited', async (context) => {
  const broker = await Broker.start(context);
  const client = await connect(broker.path, 'a', { reconnect: { firstDelay: 1, maxAttempts: 2 } });
  const events = client.events();
  const waiting = client.frames.next();
  await broker.kill();
  const types = [];
  for await (const event of events) types.push(event.type);
  assert.deepEqual(types, ['disconnected', 'retrying', 'retrying', 'closed']);
  assert.equal((await waiting).done, true);
  await assert.rejects(client.connected(), { kind: 'no-broker' });
  await assert.rejects(client.send('a'), { kind: 'no-broker' });
  await client.close();
  await assert.rejects(client.send('a'), { kind: 'closed' });
});
