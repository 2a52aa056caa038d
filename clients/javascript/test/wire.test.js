/**
 * The wire format against the cases of protocol/conformance.
 * @module
 */

import assert from 'node:assert/strict';
import test from 'node:test';

import { DeliveryParser, FrameFault } from '../src/wire/delivery.js';
import { matchedPart, optionsPrefix, parseFilter } from '../src/wire/filter.js';
import { encodeRegistration, greetingFault } from '../src/wire/handshake.js';
import { encodeFilters, encodeRequest, PING, requestBound } from '../src/wire/request.js';
import { decodeRpc, errorHead, notificationHead, replyHead, requestHead } from '../src/wire/rpc.js';
import { isWellFormed, textBytes } from '../src/wire/text.js';
import { topicMatches } from '../src/wire/topic.js';
import { concat, hex } from './support/bytes.js';
import { readCases } from './support/conformance.js';
import { randomSource } from './support/random.js';

const decoder = new TextDecoder();
const encoder = new TextEncoder();
const le = (/** @type {number} */ value) => Uint8Array.of(value, value >>> 8, value >>> 16, value >>> 24);
const fromLe = (/** @type {Uint8Array} */ bytes) => new DataView(bytes.slice().buffer).getUint32(0, true);

/**
 * Parses input that arrives in chunks. Returns the items and the end in the words of the cases.
 * @param {Uint8Array} input
 * @param {number[]} splits Where chunks end.
 * @param {number} limit
 */
function parseDeliveries(input, splits, limit) {
  /** @type {[string, [string, Uint8Array][]][]} */
  const items = [];
  const parser = new DeliveryParser(limit, {
    ack: (id, code) =>
      items.push([
        'ack',
        [
          ['op_id', le(id)],
          ['code', Uint8Array.of(code)],
        ],
      ]),
    frame(frame) {
      const { kind, sender, topic, payload, realtime } = frame;
      /** @type {[string, Uint8Array][]} */
      const fields = [['sender', encoder.encode(sender)]];
      if (kind === 'publish') fields.push(['topic', encoder.encode(topic)]);
      fields.push(['payload', payload], ['realtime', Uint8Array.of(Number(realtime))]);
      items.push([kind, fields]);
    },
  });
  let from = 0;
  try {
    for (const to of [...splits, input.length]) {
      if (to > from) parser.push(input.slice(from, to));
      from = to;
    }
  } catch (error) {
    if (!(error instanceof FrameFault)) throw error;
    return { items, end: `error ${error.fault}${error.field === undefined ? '' : ` ${error.field}`}` };
  }
  return { items, end: parser.pendingBytes > 0 ? 'more' : 'end' };
}

/** @param {[string, [string, Uint8Array][]][]} items */
function shown(items) {
  return items.map(
    ([kind, fields]) => `${kind} ${fields.map(([key, bytes]) => `${key}=${hex(bytes)}`).join(' ')}`,
  );
}

test('deliveries do not depend on how they arrive', () => {
  for (const { title, limit, input, items, end } of readCases('deliveries.txt')) {
    const expected = items.filter(([kind]) => kind !== 'nop');
    const wanted = end === 'more' && input.length === 0 ? 'end' : end;
    const everywhere = Array.from({ length: input.length }, (_, at) => at);
    const splits = [[], everywhere, ...everywhere.slice(0, 300).map((at) => [at])];
    for (const split of splits) {
      const parsed = parseDeliveries(input, split, limit);
      assert.deepEqual(
        { items: shown(parsed.items), end: parsed.end },
        { items: shown(expected), end: wanted },
        title,
      );
    }
  }
});

test('a declared length costs no memory', () => {
  const parser = new DeliveryParser(0xffffffff, { ack() {}, frame() {} });
  const before = process.memoryUsage().arrayBuffers;
  parser.push(Uint8Array.of(0x12, 0xff, 0xff, 0xff, 0xff, 0));
  parser.push(new Uint8Array(1000));
  assert.ok(process.memoryUsage().arrayBuffers - before < 1_000_000);
  assert.equal(parser.pendingBytes, 1006);
});

test('requests are encoded as the cases have them', () => {
  let compared = 0;
  for (const { title, input, items, end } of readCases('requests.txt')) {
    if (end !== 'end' || items.length === 0 || /ping/.test(title)) continue;
    const frames = items.map(([kind, fields]) => encodeItem(kind, fields));
    assert.equal(hex(concat(...frames)), hex(input), title);
    compared += items.length;
  }
  assert.ok(compared > 20, `${compared}`);
  assert.equal(hex(PING), '00'.repeat(9));
});

/** @type {Record<string, number>} */
const OPS = {
  message: 0x12,
  broadcast: 0x13,
  publish: 0x01,
  'publish-for': 0x06,
  subscribe: 0x02,
  unsubscribe: 0x03,
  exclude: 0x04,
  unexclude: 0x05,
};

/**
 * @param {string} kind
 * @param {[string, Uint8Array][]} fields
 */
function encodeItem(kind, fields) {
  const get = (/** @type {string} */ key) => fields.find(([name]) => name === key)?.[1] ?? new Uint8Array(0);
  const text = (/** @type {string} */ key) => decoder.decode(get(key));
  const opId = fromLe(get('op_id'));
  const qos = get('qos')[0] << 6;
  const filters = fields.filter(([name]) => name === 'filter').map(([, bytes]) => decoder.decode(bytes));
  if (filters.length > 0) {
    const bytes = encodeFilters(opId, OPS[kind], filters);
    bytes[4] = OPS[kind] | qos; // the client always asks for an acknowledgement
    return bytes;
  }
  const head = new Uint8Array(0);
  const bytes = new Uint8Array(requestBound(text('target'), text('receiver'), head, get('payload')));
  const end = encodeRequest(
    bytes,
    0,
    opId,
    OPS[kind] | qos,
    text('target'),
    text('receiver'),
    head,
    get('payload'),
  );
  return bytes.subarray(0, end);
}

test('registrations are encoded as the cases have them', () => {
  assert.equal(hex(encodeRegistration('a.b')), 'eb0100' + '0300' + '612e62');
  assert.equal(hex(encodeRegistration('é')), 'eb0100' + '0200' + 'c3a9');
  assert.equal(encodeRegistration('x'.repeat(65535)).length, 5 + 65535);
  assert.equal(greetingFault(Uint8Array.of(0xeb, 1, 0)), undefined);
  assert.match(String(greetingFault(Uint8Array.of(0xeb, 2, 0))), /version 2/);
  assert.match(String(greetingFault(encoder.encode('HTT'))), /48 54 54/);
});

test('payloads of RPC', () => {
  for (const { title, input, items, end } of readCases('rpc.txt')) {
    const decoded = decodeRpc(input);
    if (typeof decoded === 'string') {
      assert.equal(`error ${decoded}`, end.replace(' method', ''), title);
      continue;
    }
    /** @type {[string, Uint8Array][]} */
    const fields = [];
    if ('id' in decoded) fields.push(['call_id', le(decoded.id)]);
    if (decoded.kind === 'error') fields.push(['code', le(decoded.code).subarray(0, 2)]);
    for (const key of ['method', 'params', 'result', 'data', 'payload']) {
      if (key in decoded) fields.push([key, /** @type {any} */ (decoded)[key]]);
    }
    assert.deepEqual(shown([[decoded.kind, fields]]), shown(items), title);
    const [head, rest] = encodeRpc(decoded);
    if (head) assert.equal(hex(concat(head, rest)), hex(input), title);
  }
});

/** @param {import('../src/wire/rpc.js').RpcPayload} decoded */
function encodeRpc(decoded) {
  const none = /** @type {const} */ ([undefined, new Uint8Array(0)]);
  switch (decoded.kind) {
    case 'notification':
      return /** @type {const} */ ([notificationHead(), decoded.payload]);
    case 'reply':
      return /** @type {const} */ ([replyHead(decoded.id), decoded.result]);
    case 'error':
      return /** @type {const} */ ([errorHead(decoded.id, decoded.code), decoded.data]);
    default: {
      const method = decoder.decode(decoded.method);
      return method.includes('\ufffd')
        ? none
        : /** @type {const} */ ([requestHead(decoded.id, method), decoded.params]);
    }
  }
}

test('filters with options', () => {
  for (const { title, input, items, end } of readCases('subscriptions.txt')) {
    const text = decoder.decode(input);
    const parsed = parseFilter(text);
    if (typeof parsed === 'string') {
      assert.equal(`error ${parsed}`, end, title);
      assert.equal(matchedPart(text), text);
      continue;
    }
    /** @type {[string, Uint8Array][]} */
    const fields = [];
    if (parsed.share !== undefined) fields.push(['share', encoder.encode(parsed.share)]);
    if (parsed.key)
      fields.push(['key', encoder.encode(parsed.key.group)], ['levels', Uint8Array.of(parsed.key.levels)]);
    if (parsed.mode) fields.push(['mode', encoder.encode(parsed.mode)]);
    if (parsed.every !== undefined) fields.push(['millis', le(parsed.every)]);
    fields.push(['filter', encoder.encode(parsed.filter)]);
    assert.deepEqual([shown([['subscription', fields]]), end], [shown(items), 'end'], title);
    assert.equal(matchedPart(text), parsed.filter);
    // the options as the client writes them are the text
    const { share, key, mode, every } = parsed;
    const prefix = optionsPrefix({
      ...(share === undefined ? {} : { share }),
      ...(key === undefined ? {} : { key }),
      ...(mode === 'latest' ? { latest: true } : {}),
      ...(mode === 'lossy' ? { lossy: true } : {}),
      ...(every === undefined ? {} : { every }),
    });
    assert.equal(prefix + parsed.filter, text, title);
  }
});

test('topics match filters', () => {
  for (const [filter, topic, matches] of /** @type {[string, string, boolean][]} */ ([
    ['a/b', 'a/b', true],
    ['a/b', 'a/c', false],
    ['a/b', 'a', false],
    ['a', 'a/b', false],
    ['+', 'a', true],
    ['+', '', true],
    ['+', 'a/b', false],
    ['+/+', '/', true],
    ['a/+/c', 'a/b/c', true],
    ['a/+/c', 'a//c', true],
    ['a/+/c', 'a/c', false],
    ['#', '', true],
    ['#', '/x', true],
    ['a/#', 'a', false],
    ['a/#', 'a/', true],
    ['a/#', 'a/b/c', true],
    ['a/#/b', 'a/x', true],
    ['a+', 'a+', true],
    ['a+', 'ab', false],
    ['', '', true],
    ['', 'a', false],
    ['a/', 'a', false],
    ['.broker/#', '.broker/info', true],
    ['a/+', 'a/+', true],
    ['a/b', 'a/+', false],
  ])) {
    assert.equal(topicMatches(filter, topic), matches, `${filter} ${topic}`);
  }
});

test('lengths of texts', () => {
  for (const text of ['', 'abc', 'é', '€', '😀', 'a😀é€', 'x'.repeat(100) + 'é']) {
    assert.equal(textBytes(text), encoder.encode(text).length, text);
    assert.ok(isWellFormed(text));
  }
  for (const text of ['\ud800', 'a\udc00', '\ud800a', '\udc00\ud800', '\ud83d'])
    assert.ok(!isWellFormed(text));
});

test('texts that repeat, begin alike, are empty or long', () => {
  const random = randomSource(3);
  const texts = [
    '',
    'a',
    'ab',
    'abc',
    'x'.repeat(128),
    'x'.repeat(129),
    'x'.repeat(1000),
    'é',
    'ab/é',
    'abd',
  ];
  /** @type {string[]} */
  const parsed = [];
  const parser = new DeliveryParser(100_000, {
    ack() {},
    frame: ({ sender, topic }) => parsed.push(`${sender}|${topic}`),
  });
  const expected = [];
  for (let count = 0; count < 5000; count += 1) {
    const [sender, topic] = [texts[random(texts.length)], texts[random(texts.length)]];
    expected.push(`${sender}|${topic}`);
    const body = concat(encoder.encode(sender), Uint8Array.of(0), encoder.encode(topic), Uint8Array.of(0, 1));
    parser.push(concat(Uint8Array.of(1), le(body.length), Uint8Array.of(0), body));
  }
  assert.deepEqual(parsed, expected);
});
