/**
 * What a client does with a real broker, over any transport: run in Node and in a browser.
 * @module
 */

import { cursorMethod, encode, raw, RpcError } from '../../src/index.js';
import { equal, ok, rejects } from './check.js';

/** @typedef {import('../../src/index.js').Client} Client */
/** @typedef {import('../../src/index.js').ClientSettings} ClientSettings */

/** @typedef {(name: string, settings?: ClientSettings) => Promise<Client>} Connect */

/**
 * What a case gets: `connect` connects a client that is closed after the case. Names are made unique.
 * `canPause` says whether the transport can be paused.
 * @typedef {{ connect: Connect, canPause: boolean }} Environment
 */

/**
 * Takes a number of frames.
 * @param {{ next: () => Promise<IteratorResult<import('../../src/index.js').Frame, undefined>> }} source
 * @param {number} count
 */
async function take(source, count) {
  const frames = [];
  while (frames.length < count) {
    const { value, done } = await source.next();
    if (done) throw new Error(`the end after ${frames.length} of ${count} frames`);
    frames.push(value);
  }
  return frames;
}

const sleep = (/** @type {number} */ millis) =>
  new Promise((resolve) => {
    setTimeout(resolve, millis);
  });

/** @type {Record<string, (environment: Environment) => Promise<void>>} */
export const cases = {
  async 'messages arrive with their sender, in the order of the calls'({ connect }) {
    const [a, b] = [await connect('a'), await connect('b')];
    const sent = [];
    for (let number = 0; number < 300; number += 1) {
      const qos = /** @type {const} */ (['processed', 'no', 'realtime', 'realtime-processed'])[number % 4];
      sent.push(a.send(b.name, `${number}`, { qos }));
    }
    await Promise.all(sent);
    const frames = await take(b.frames, 300);
    equal(
      frames.map((frame) => frame.text()),
      frames.map((_, number) => `${number}`),
    );
    equal([frames[0].sender, frames[0].kind, frames[0].topic], [a.name, 'message', '']);
    equal([frames[0].realtime, frames[2].realtime], [false, true]);
  },

  async 'a message to a name that is not registered is an error with a code'({ connect }) {
    const a = await connect('a');
    const error = await rejects(a.send(`${a.name}.missing`, 'x'), 'not-registered');
    equal(error.code, 0x71);
    ok(error.message.includes(`${a.name}.missing`));
    await a.send(`${a.name}.missing`, 'x', { qos: 'no' });
  },

  async 'payloads are text or bytes of any type, and can be changed afterwards'({ connect }) {
    const a = await connect('a');
    const bytes = new Uint8Array([1, 2, 3]);
    const sent = [
      a.send(a.name, bytes),
      a.send(a.name, new Uint16Array([0x0201]).buffer),
      a.send(a.name, new DataView(new Uint8Array([9, 8, 7, 6]).buffer, 1, 2)),
      a.send(a.name, 'ä€😀'),
      a.send(a.name),
    ];
    bytes.fill(0);
    await Promise.all(sent);
    const frames = await take(a.frames, 5);
    equal(
      frames.map((frame) => [...frame.payload]),
      [[1, 2, 3], [1, 2], [8, 7], [195, 164, 226, 130, 172, 240, 159, 152, 128], []],
    );
    equal(frames[3].text(), 'ä€😀');
    ok(Object.getPrototypeOf(frames[0].payload) === Uint8Array.prototype);
  },

  async 'large payloads arrive whole'({ connect }) {
    const [a, b] = [await connect('a'), await connect('b')];
    const large = new Uint8Array(5_000_000);
    for (let at = 0; at < large.length; at += 1) large[at] = (at * 7) >> 3;
    await Promise.all([
      a.send(b.name, large),
      a.send(b.name, 'small'),
      a.send(b.name, 'x'.repeat(1_000_000)),
    ]);
    const [first, second, third] = await take(b.frames, 3);
    ok(first.payload.length === large.length && first.payload.every((byte, at) => byte === large[at]));
    equal([second.text(), third.payload.length], ['small', 1_000_000]);
  },

  async 'broadcasts reach the clients whose name matches'({ connect }) {
    const a = await connect('a');
    const [x, y] = [await connect('a.x'), await connect('a.y')];
    const mask = x.name.replace(/\.x$/, '.?');
    await x.broadcast(mask, 'hello');
    const [[toX], [toY]] = await Promise.all([take(x.frames, 1), take(y.frames, 1)]);
    equal([toX.kind, toX.text(), toY.sender], ['broadcast', 'hello', x.name]);
    equal(a.frames.tryNext(), undefined);
  },

  async 'publications reach subscriptions by filter, and frames by addFilters'({ connect }) {
    const [a, b] = [await connect('a'), await connect('b')];
    const one = await b.subscribe(`${a.name}/+`);
    const all = await b.subscribe([`${a.name}/#`, 'unused']);
    await b.addFilters([`${a.name}/deep/er`, `${a.name}x`]);
    await a.publish(`${a.name}/t`, '1');
    await a.publish(`${a.name}/deep/er`, '2');
    await a.publish(`${a.name}x`, '3');
    const topics = async (/** @type {any} */ source, /** @type {number} */ count) =>
      (await take(source, count)).map((frame) => `${frame.topic.slice(a.name.length)}=${frame.text()}`);
    equal(await topics(one, 1), ['/t=1']);
    equal(await topics(all, 2), ['/t=1', '/deep/er=2']);
    equal(await topics(b.frames, 1), ['x=3']);
    await b.removeFilters(`${a.name}x`);
    await one.unsubscribe();
    equal((await one.next()).done, true);
    await a.publish(`${a.name}/t`, '4');
    equal(await topics(all, 1), ['/t=4']);
  },

  async 'a subscription is iterated without awaiting it, and leaving the loop ends it'({ connect }) {
    const a = await connect('a');
    const iteration = (async () => {
      const texts = [];
      for await (const frame of a.subscribe(`${a.name}/+`)) {
        texts.push(frame.text());
        if (texts.length === 2) break;
      }
      return texts;
    })();
    await a.roundTrip();
    for (const text of ['1', '2', '3']) await a.publish(`${a.name}/t`, text);
    equal(await iteration, ['1', '2']);
    await a.roundTrip();
    const before = a.stats().framesReceived;
    await a.publish(`${a.name}/t`, '4');
    await a.roundTrip();
    equal(a.stats().framesReceived, before);
  },

  async 'two iterators of one subscription share it'({ connect }) {
    const a = await connect('a');
    const subscription = await a.subscribe(`${a.name}/#`);
    const waiting = [subscription.next(), subscription.next(), subscription.next()];
    for (const text of ['1', '2', '3', '4']) await a.publish(`${a.name}/t`, text);
    equal(
      (await Promise.all(waiting)).map(({ value }) => value?.text()),
      ['1', '2', '3'],
    );
    equal((await subscription.next()).value?.text(), '4');
    const [first, second] = [subscription.next(), subscription.next()];
    await subscription[Symbol.asyncDispose]();
    equal([(await first).done, (await second).done], [true, true]);
  },

  async 'publications for one receiver, and excluded topics'({ connect }) {
    const [a, b, c] = [await connect('a'), await connect('b'), await connect('c')];
    const [atB, atC] = [await b.subscribe(`${a.name}/#`), await c.subscribe(`${a.name}/#`)];
    await c.exclude(`${a.name}/secret`);
    await a.publishFor(`${a.name}/t`, b.name, 'for b');
    await a.publish(`${a.name}/secret`, 'secret');
    await a.publish(`${a.name}/t`, 'all');
    equal(
      (await take(atB, 3)).map((frame) => frame.text()),
      ['for b', 'secret', 'all'],
    );
    equal(
      (await take(atC, 1)).map((frame) => frame.text()),
      ['all'],
    );
    await c.unexclude(`${a.name}/secret`);
    await a.publish(`${a.name}/secret`, 'known');
    equal((await take(atC, 1))[0].text(), 'known');
  },

  async 'members of a group share publications'({ connect }) {
    const a = await connect('a');
    const workers = [await connect('w1'), await connect('w2')];
    const subscriptions = [];
    for (const worker of workers)
      subscriptions.push(await worker.subscribe(`${a.name}/#`, { share: 'workers' }));
    const keyed = [];
    for (const worker of workers)
      keyed.push(await worker.subscribe(`k${a.name}/#`, { key: { group: 'k', levels: 2 } }));
    for (let number = 0; number < 40; number += 1) {
      await a.publish(`${a.name}/${number}`, `${number}`);
      await a.publish(`k${a.name}/${number % 4}/x`, `${number}`);
    }
    for (const worker of workers) await worker.roundTrip();
    const drain = (/** @type {any} */ subscription) => {
      const taken = [];
      for (let frame = subscription.tryNext(); frame !== undefined; frame = subscription.tryNext())
        taken.push(frame);
      return taken;
    };
    const shared = subscriptions.map(drain);
    equal(shared.flat().length, 40);
    ok(
      shared.every((frames) => frames.length > 0),
      'one worker got everything',
    );
    const topics = keyed.map(
      (subscription) => new Set(drain(subscription).map((/** @type {any} */ frame) => frame.topic)),
    );
    equal(topics[0].size + topics[1].size, 4, 'a key went to both members');
  },

  async 'newest values, and filters that are written with their options'({ connect }) {
    const a = await connect('a');
    const latest = await a.subscribe(`${a.name}/l/#`, { latest: true });
    const every = await a.subscribe(`${a.name}/e`, { every: 50 });
    const lossy = await a.subscribe(`${a.name}/y`, { lossy: true });
    const written = await a.subscribe(`$latest/${a.name}/w`);
    for (const topic of ['l/x', 'e', 'y', 'w']) await a.publish(`${a.name}/${topic}`, '1');
    for (const subscription of [latest, every, lossy, written])
      equal((await take(subscription, 1))[0].text(), '1');
    const info = await a.call('.broker', 'client.info', { name: a.name });
    equal(info.options.map((/** @type {any} */ option) => option.filter).sort().length, 4);
  },

  async 'wrong options are refused before anything is sent'({ connect }) {
    const a = await connect('a');
    const sent = a.stats().framesSent;
    await rejects(a.subscribe('a', { every: 0 }), 'invalid-argument');
    await rejects(a.subscribe('a', { share: 'a/b' }), 'invalid-argument');
    await rejects(a.subscribe('a', { latest: true, lossy: true }), 'invalid-argument');
    await rejects(a.subscribe('$latest/a', { share: 'g' }), 'invalid-argument');
    await rejects(a.subscribe('', { latest: true }), 'invalid-argument');
    equal(a.stats().framesSent, sent);
    equal((await rejects(a.subscribe('$share/a'), 'refused')).code, 0x72);
  },

  async 'calls and their results'({ connect }) {
    const [a, b] = [await connect('a'), await connect('b')];
    class Appliance {
      inherited() {}
    }
    class Oven extends Appliance {
      #temperature = 20;
      temperature() {
        return this.#temperature;
      }
      /** @param {{ celsius: number }} params */
      async heat({ celsius }) {
        await null;
        if (celsius > 300) throw RpcError.invalidParams('too hot');
        this.#temperature = celsius;
        return { celsius, at: new Date(1000) };
      }
      fail() {
        throw new Error('burnt');
      }
      /** @param {unknown} _ @param {import('../../src/index.js').Call} call */
      whoami(_, call) {
        return [call.sender, call.realtime];
      }
      nothing() {}
      _hidden() {}
    }
    b.serve(new Oven());
    equal(await a.call(b.name, 'temperature'), 20);
    equal(await a.call(b.name, 'heat', { celsius: 180 }), { celsius: 180, at: new Date(1000) });
    equal(await a.call(b.name, 'temperature'), 180);
    equal(await a.call(b.name, 'whoami', undefined, { realtime: true }), [a.name, true]);
    equal(await a.call(b.name, 'nothing'), null);
    const refused = await rejects(a.call(b.name, 'heat', { celsius: 999 }), 'rpc');
    equal([refused.code, refused.text, refused instanceof RpcError], [-32602, 'too hot', true]);
    equal((await rejects(a.call(b.name, 'fail'), 'rpc')).text, 'burnt');
    for (const method of ['missing', 'constructor', '__proto__', 'toString', '_hidden', 'inherited']) {
      equal((await rejects(a.call(b.name, method), 'rpc')).code, -32601, method);
    }
    equal((await rejects(a.call(`${b.name}.missing`, 'x'), 'not-registered')).code, 0x71);
    equal((await rejects(a.call(b.name, 'heat', new Uint8Array([0xc1]), { raw: true }), 'rpc')).code, -32700);
    await rejects(() => b.serve({ x: () => 1 }), 'already-serving');
  },

  async 'many calls at once, in both directions'({ connect }) {
    const [a, b] = [await connect('a'), await connect('b')];
    for (const client of [a, b]) client.serve({ double: async (/** @type {number} */ n) => 2 * n });
    const calls = [];
    for (let number = 0; number < 2000; number += 1) {
      calls.push(a.call(b.name, 'double', number), b.call(a.name, 'double', -number));
    }
    const results = await Promise.all(calls);
    ok(results.every((result, index) => result === (index % 2 === 0 ? index : 1 - index) || result === 0));
  },

  async 'calls without reply, notifications and bytes'({ connect }) {
    const [a, b] = [await connect('a'), await connect('b')];
    /** @type {unknown[]} */
    const seen = [];
    const server = b.serve(
      {
        note: (/** @type {unknown} */ params, /** @type {any} */ call) =>
          void seen.push(params, call.wantsReply),
        echo: raw((params) => params),
      },
      { notification: ({ sender, payload }) => void seen.push(sender, payload.length) },
    );
    await a.call0(b.name, 'note', { x: 1 });
    await a.notify(b.name, 'abc');
    equal([...(await a.call(b.name, 'echo', new Uint8Array([1, 0, 2]), { raw: true }))], [1, 0, 2]);
    equal(await a.call(b.name, 'echo', ['x', null]), ['x', null]);
    equal(seen, [{ x: 1 }, false, a.name, 3]);
    await server.drain();
    await a.call0(b.name, 'note');
    equal((await take(b.frames, 1))[0].payload[0], 1);
    b.serve({ note: () => 'again' });
    equal(await a.call(b.name, 'note'), 'again');
  },

  async 'calls before the first server wait for it, or are frames'({ connect }) {
    const [a, b, c] = [await connect('a'), await connect('b', { queueCalls: true }), await connect('c')];
    const early = [a.call(b.name, 'double', 1), a.call(b.name, 'double', 2), a.call0(b.name, 'double', 3)];
    await a.call0(c.name, 'double', 4);
    await early[2];
    b.serve({ double: (/** @type {number} */ n) => 2 * n });
    equal(await Promise.all(early), [2, 4, undefined]);
    equal([...(await take(c.frames, 1))[0].payload].slice(0, 5), [1, 0, 0, 0, 0]);
    await rejects(async () => b.serve({ double() {} }), 'already-serving');
  },

  async 'cursors, item by item and in blocks'({ connect }) {
    const [a, b] = [await connect('a'), await connect('b')];
    b.serve({
      squares: cursorMethod('squares.next', function* (to) {
        for (let n = 0; n < to; n += 1) yield n * n;
      }),
      letters: cursorMethod('letters.next', async function* () {
        yield 'a';
        yield null;
      }),
    });
    const squares = [];
    for await (const square of await a.cursor(b.name, 'squares', 5, 'squares.next')) squares.push(square);
    equal(squares, [0, 1, 4, 9, 16]);
    const blocks = await a.cursor(b.name, 'squares', 5, 'squares.next');
    equal([await blocks.block(3), await blocks.block(3), await blocks.block(3)], [[0, 1, 4], [9, 16], []]);
    const letters = await a.cursor(b.name, 'letters', undefined, 'letters.next');
    equal(
      [await letters.next(), await letters.next(), await letters.next()],
      [
        { value: 'a', done: false },
        { value: null, done: false },
        { value: undefined, done: true },
      ],
    );
    equal((await rejects(a.call(b.name, 'squares.next', { u: 'x' }), 'rpc')).code, -32001);
    equal((await rejects(a.call(b.name, 'squares.next', 5), 'rpc')).code, -32602);
    const { u } = await a.call(b.name, 'squares', 5);
    equal((await rejects(b.call(b.name, 'squares.next', { u }), 'rpc')).code, -32001, 'of another client');
  },

  async 'the methods of the broker'({ connect }) {
    const a = await connect('a');
    equal(await a.call('.broker', 'test'), { ok: true });
    const { clients } = await a.call('.broker', 'client.list');
    ok(clients.some((/** @type {any} */ client) => client.name === a.name));
    equal((await rejects(a.call('.broker', 'missing'), 'rpc')).code, -32601);
    ok((await a.roundTrip()) >= 0);
    await a.ping();
  },

  async 'announcements have exact times'({ connect }) {
    const a = await connect('a');
    const info = await a.subscribe('.broker/info');
    const b = await connect('b');
    for (;;) {
      const { s, d, t } = (await take(info, 1))[0].msgpack();
      if (d !== b.name) continue;
      equal([s, typeof t], ['reg', 'bigint']);
      break;
    }
  },

  async 'names are unique, and those of the broker are refused'({ connect }) {
    const a = await connect('a');
    await rejects(connect('a'), 'name-taken');
    equal((await rejects(connect('.a'), 'name-refused')).code, 0x72);
    await a.close();
    await connect('a');
  },

  async 'secondary clients end with their primary'({ connect }) {
    const a = await connect('a');
    const [first, second] = [await a.secondary(), await a.secondary()];
    equal([first.name, second.name], [`${a.name}%%0`, `${a.name}%%1`]);
    await first.send(second.name, 'hello');
    const [frame] = await take(second.frames, 1);
    equal([frame.sender, frame.primarySender], [first.name, a.name]);
    const events = second.events();
    await a.close();
    equal((await events.next()).value?.type, 'disconnected');
    equal((await events.next()).value?.type, 'closed');
    await first.close();
    await second.close();
  },

  async 'an aborted operation rejects with the reason of its signal'({ connect }) {
    const a = await connect('a');
    a.serve({ never: () => new Promise(() => {}) });
    const controller = new AbortController();
    const { signal } = controller;
    const waiting = [
      a.call(a.name, 'never', undefined, { signal }),
      a.frames.next({ signal }),
      (await a.subscribe('x')).next({ signal }),
    ];
    const reason = new Error('enough');
    controller.abort(reason);
    const outcomes = await Promise.allSettled(waiting);
    ok(outcomes.every((outcome) => outcome.status === 'rejected' && outcome.reason === reason));
    for (const operation of [
      a.send(a.name, 'x', { signal }),
      a.subscribe('y', { signal }),
      a.addFilters('y', { signal }),
      a.roundTrip({ signal }),
      a.call(a.name, 'never', undefined, { signal }),
      a.secondary({ signal }),
    ]) {
      equal(
        await operation.then(
          () => 'resolved',
          (/** @type {unknown} */ error) => error === reason,
        ),
        true,
      );
    }
    await a.send(a.name, 'still works');
    equal((await take(a.frames, 1))[0].text(), 'still works');
  },

  async 'a subscription that is aborted after it was sent is undone'({ connect }) {
    const a = await connect('a');
    const controller = new AbortController();
    const pending = a.subscribe(`${a.name}/#`, { signal: controller.signal });
    await null;
    controller.abort();
    await rejects(pending, 'AbortError');
    await a.roundTrip();
    const before = a.stats().framesReceived;
    await a.publish(`${a.name}/x`, '1');
    await a.roundTrip();
    equal(a.stats().framesReceived, before);
  },

  async 'a call that is not answered ends with its timeout'({ connect }) {
    const [a, b] = [await connect('a'), await connect('b')];
    b.serve({ never: () => new Promise(() => {}) });
    const error = await rejects(a.call(b.name, 'never', undefined, { timeout: 20 }), 'timeout');
    ok(error.message.includes('"never"') && error.message.includes('0.02 s'), error.message);
  },

  async 'a slow consumer holds the sender, and loses nothing that is not reported'({ connect, canPause }) {
    const [a, b] = [await connect('a'), await connect('b', { queueBytes: 64 * 1024 })];
    const subscription = await b.subscribe(`${a.name}/#`);
    const payload = new Uint8Array(10_000);
    let sent = 0;
    const sending = (async () => {
      for (; sent < 3000; sent += 1) {
        new DataView(payload.buffer).setUint32(0, sent);
        await a.publish(`${a.name}/x`, payload, { qos: 'no' });
      }
    })();
    let number = 0;
    while (number < 3000) {
      const [frame] = await take(subscription, 1);
      if (canPause) equal(frame.missed, 0);
      number += frame.missed + 1;
      equal(new DataView(frame.payload.slice().buffer).getUint32(0), number - 1);
      if (number % 500 === 0) await sleep(20);
      // what is dropped at the end is reported by the next frame
      if (sent === 3000 && subscription.missed > 0) break;
    }
    await sending;
  },

  async 'frames that nobody takes are dropped and counted, and the client stays connected'({ connect }) {
    const [a, b] = [await connect('a'), await connect('b', { queueBytes: 20_000 })];
    for (let number = 0; number < 100; number += 1) await a.send(b.name, new Uint8Array(1000));
    await b.roundTrip();
    ok(b.frames.missed > 50, `${b.frames.missed}`);
    const [first] = await take(b.frames, 1);
    equal(first.missed, 0);
    while (b.frames.tryNext() !== undefined) {
      // takes what is queued
    }
    await a.send(b.name, 'again');
    const [next] = await take(b.frames, 1);
    equal([next.text(), next.missed], ['again', b.frames.missed]);
  },

  async 'close settles everything that waits'({ connect }) {
    const [a, b] = [await connect('a'), await connect('b')];
    b.serve({ never: () => new Promise(() => {}) });
    const subscription = await a.subscribe('x');
    const events = a.events();
    const call = a.call(b.name, 'never');
    const sends = Array.from({ length: 100 }, () => a.send(b.name, 'x'));
    const next = subscription.next();
    const frame = a.frames.next();
    const callEnds = rejects(call, 'closed');
    await Promise.all([a.close(), a.close()]);
    await callEnds;
    await Promise.all(sends);
    equal([(await next).done, (await frame).done, (await events.next()).value?.type], [true, true, 'closed']);
    equal((await events.next()).done, true);
    for (const operation of [
      a.send('x'),
      a.call('x', 'y'),
      a.subscribe('x'),
      a.roundTrip(),
      a.ping(),
      a.connected(),
    ]) {
      await rejects(operation, 'closed');
    }
    await a.close();
    await subscription.unsubscribe().catch(() => {});
  },

  async 'wrong arguments are typed errors that say what is expected'({ connect }) {
    /** @type {any} */
    const a = await connect('a');
    for (const [operation, text] of /** @type {[() => unknown, string][]} */ ([
      [() => a.send(5, 'x'), 'the target is 5: expected a string'],
      [() => a.send('x', { a: 1 }), 'JSON.stringify'],
      [() => a.send('x', 'y', { qos: 2 }), '"processed"'],
      [() => a.send('x', 'y', 'processed'), 'the options'],
      [() => a.send('x', 'y', { signal: 1 }), 'an AbortSignal'],
      [() => a.publish(undefined), 'the topic is undefined'],
      [() => a.publishFor('x', null), 'the receiver is null'],
      [() => a.subscribe(5), 'a string or an array of strings'],
      [() => a.subscribe(['a', 5]), 'the filter is 5'],
      [() => a.addFilters(), 'the filters is undefined'],
      [() => a.exclude({}), 'an object of type Object'],
      [() => a.call('x', 5), 'the method is 5'],
      [() => a.call('x', 'y', 'z', { raw: true }), 'a Uint8Array'],
      [() => a.call('x', 'y', 1, { timeout: '5' }), 'timeout is "5"'],
      [() => a.cursor('x', 'y', 1), 'the method that returns items is undefined'],
      [() => a.serve(5), 'the methods is 5'],
      [() => a.serve({}), 'at least one function'],
      [() => a.serve([() => 1]), 'an object whose functions are methods'],
      [() => connect('c', /** @type {any} */ ({ token: 'a b' })), 'letters, digits'],
      [() => a.serve({ x() {} }, { notification: 5 }), 'a function'],
    ])) {
      const error = await rejects(async () => operation(), 'invalid-argument');
      ok(error.message.includes(text), error.message);
    }
    await rejects(a.send('a\0b', 'x'), 'unsendable');
    await rejects(a.send('\ud800', 'x'), 'unsendable');
    await rejects(a.subscribe('a\0b'), 'unsendable');
    await rejects(
      a.call('x', 'y', () => {}),
      'conversion',
    );
    await rejects(a.call('x', 'y', [1n << 64n]), 'conversion');
    await rejects(connect('b', /** @type {any} */ ({ timeOut: 5 })), 'invalid-argument');
    await rejects(connect('b', /** @type {any} */ ({ timeout: '5' })), 'invalid-argument');
    await rejects(connect('b\0'), 'name-refused');
    await rejects(connect('b\ud800'), 'name-refused');
    const small = await connect('s', { maxFrameBytes: 100 });
    await rejects(small.send(a.name, new Uint8Array(101)), 'unsendable');
    await small.send(a.name, new Uint8Array(100));
    equal([...encode(5)], [5]);
  },
};
