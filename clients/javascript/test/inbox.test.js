/**
 * The queue of received frames: its limit, which frames are dropped, how gaps are reported, and which
 * subscriptions get a publication.
 * @module
 */

import assert from 'node:assert/strict';
import test from 'node:test';

import { FilterState } from '../src/connection/filter-state.js';
import { Frame } from '../src/frame.js';
import { Demux } from '../src/receive/demux.js';
import { Inbox } from '../src/receive/inbox.js';
import { PendingCalls } from '../src/receive/pending-calls.js';
import { ReadGate } from '../src/receive/read-gate.js';
import { VirtualClock } from './support/virtual.js';

/** @param {number} number @param {number} [length] */
const frame = (number, length = 1) => {
  const chunk = new Uint8Array(length).fill(number);
  return new Frame('message', false, 'a', '', chunk, 0, length);
};

/** @param {number} frames @param {import('../src/settings.js').Overflow} overflow */
function inboxOf(frames, overflow) {
  const gate = new ReadGate(new VirtualClock(), 1000, () => false);
  return new Inbox(frames * frame(0).cost, overflow, gate);
}

/** Takes all frames. Returns the number and the reported gap of each. @param {Inbox} inbox */
function numbers(inbox) {
  const taken = [];
  for (let next = inbox.take(); next !== undefined; next = inbox.take())
    taken.push([next.payload[0], next.missed]);
  return taken;
}

test('blocking drops nothing', () => {
  const inbox = inboxOf(2, 'block');
  for (const number of [1, 2, 3]) inbox.push(frame(number));
  assert.ok(inbox.bytes > inbox.limit);
  assert.deepEqual(
    [numbers(inbox), inbox.bytes, inbox.missed],
    [
      [
        [1, 0],
        [2, 0],
        [3, 0],
      ],
      0,
      0,
    ],
  );
});

test('the newest frames are dropped and counted', () => {
  const inbox = inboxOf(2, 'drop-newest');
  for (const number of [1, 2, 3, 4, 5]) inbox.push(frame(number));
  assert.equal(inbox.missed, 3);
  assert.deepEqual(numbers(inbox), [
    [1, 0],
    [2, 0],
  ]);
  for (const number of [6, 7]) inbox.push(frame(number));
  assert.deepEqual(
    [numbers(inbox), inbox.missed],
    [
      [
        [6, 3],
        [7, 0],
      ],
      3,
    ],
  );
});

test('the oldest frames are dropped and counted', () => {
  const inbox = inboxOf(2, 'drop-oldest');
  for (const number of [1, 2, 3, 4, 5]) inbox.push(frame(number));
  assert.deepEqual(
    [numbers(inbox), inbox.missed],
    [
      [
        [4, 3],
        [5, 0],
      ],
      3,
    ],
  );
});

test('a frame larger than the limit is queued alone', () => {
  for (const overflow of /** @type {const} */ (['block', 'drop-newest', 'drop-oldest'])) {
    const inbox = inboxOf(1, overflow);
    inbox.push(frame(9, 1000));
    assert.deepEqual(numbers(inbox), [[9, 0]]);
  }
});

test('a gap is reported to a consumer that waits', async () => {
  const inbox = inboxOf(1, 'drop-newest');
  for (const number of [1, 2, 3]) inbox.push(frame(number));
  assert.deepEqual(numbers(inbox), [[1, 0]]);
  const next = inbox.next();
  inbox.push(frame(4));
  assert.deepEqual([(await next).value?.payload[0], (await next).value?.missed], [4, 2]);
});

test('queued frames are received after the end', async () => {
  const inbox = inboxOf(9, 'block');
  inbox.push(frame(1));
  inbox.end();
  assert.equal(inbox.push(frame(2)), false);
  assert.equal((await inbox.next()).value?.payload[0], 1);
  assert.equal((await inbox.next()).done, true);
});

test('an aborted wait loses no frame', async () => {
  const inbox = inboxOf(9, 'block');
  const controller = new AbortController();
  const [first, second] = [inbox.next(controller.signal), inbox.next()];
  controller.abort();
  inbox.push(frame(1));
  await assert.rejects(first, { name: 'AbortError' });
  assert.equal((await second).value?.payload[0], 1);
  // in the round of the event loop in which the frame arrives
  const late = new AbortController();
  const third = inbox.next(late.signal);
  inbox.push(frame(3));
  late.abort();
  assert.equal((await third).value?.payload[0], 3);
});

test('what the client gets by a filter without a group is not for its group', () => {
  const demux = new Demux(inboxOf(99, 'block'), new PendingCalls(new VirtualClock()));
  let alone = '';
  demux.isAlone = (topic) => topic === alone;
  const subscribe = (/** @type {string[]} */ ...filters) => {
    const inbox = inboxOf(99, 'block');
    return { inbox, id: demux.addSubscription(filters, inbox) };
  };
  const [shared, keyed] = [subscribe('$share/g/a/#'), subscribe('$key/g/1/$latest/a/+')];
  const mixed = subscribe('$share/g/a/#', 'a/1');
  const other = subscribe('$lossy/a/1');
  const publish = (/** @type {string} */ topic) => {
    demux.deliver(new Frame('publish', false, 'b', topic, new Uint8Array(1), 0, 1));
    return [shared, keyed, mixed, other].map(({ inbox }) => numbers(inbox).length);
  };
  assert.deepEqual(publish('a/1'), [1, 1, 1, 1], 'the broker has not acknowledged the filter');
  alone = 'a/1';
  assert.deepEqual(publish('a/1'), [1, 1, 1, 1], 'the consumers of a topic are cached');
  demux.filtersChanged();
  assert.deepEqual(publish('a/1'), [0, 0, 1, 1]);
  assert.deepEqual(publish('a/2'), [1, 1, 1, 0]);
  alone = '';
  demux.removeSubscription(other.id);
  assert.deepEqual(publish('a/1'), [1, 1, 1, 0]);
});

test('a filter without a group counts once it is acknowledged', () => {
  const state = new FilterState();
  state.subscribe('$share/g/a', 'subscription');
  state.subscribe('$latest/a', 'frames');
  state.acknowledge(['$share/g/a', 'unknown']);
  assert.ok(!state.isAlone('a'));
  state.acknowledge(['$latest/a']);
  assert.ok(state.isAlone('a') && !state.isAlone('b'));
  state.unsubscribe('$latest/a', 'frames');
  state.subscribe('$latest/a', 'frames');
  assert.ok(!state.isAlone('a'));
});
