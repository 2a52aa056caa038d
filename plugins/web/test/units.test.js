// What the page computes without a browser: formats, filters, forms, layouts.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import test from 'node:test';

import { encode, Extension } from '../../../clients/javascript/src/index.js';
import { age, bytes, quantity, span, toNumber } from '../page/format/numbers.js';
import { numbersIn, showBlock, showLine } from '../page/format/payload.js';
import { visible, visibleLines } from '../page/format/text.js';
import { printValue } from '../page/format/value.js';
import { ClientTable } from '../page/model/client-table.js';
import { EventLog } from '../page/model/event-log.js';
import { layOut, readFlows } from '../page/model/flows.js';
import { History } from '../page/model/history.js';
import { nameFilter } from '../page/model/mask.js';
import { readParameters, valueOf } from '../page/model/parameters.js';
import { sectionsOf } from '../page/model/plugin-docs.js';
import { Samples } from '../page/model/samples.js';
import { MAX_TOPICS, TopicTree } from '../page/model/topic-tree.js';

const utf8 = (/** @type {string} */ text) => new TextEncoder().encode(text);

test('numbers have three significant digits and a unit', () => {
  const shown = [0, 0.001, 0.25, 7, 9.5, 42.37, 1234, 9999.4, 12_345, 999_499, 1_240_000, 3e9, 1e15].map(
    quantity,
  );
  assert.deepEqual(shown, [
    '0',
    '< 0.01',
    '0.25',
    '7',
    '9.50',
    '42.4',
    '1,234',
    '9,999',
    '12.3 k',
    '999 k',
    '1.24 M',
    '3.00 G',
    '1.00e+15',
  ]);
  assert.deepEqual([0, 512, 1023, 1024, 1_258_291, 2 ** 50].map(bytes), [
    '0 B',
    '512 B',
    '1023 B',
    '1.00 KiB',
    '1.20 MiB',
    '1.00 PiB',
  ]);
  const spans = [0.4, 12, 850.4, 1200, 61_000, 3_780_000, 1_050_000_000].map(span);
  assert.deepEqual(spans, ['400 µs', '12 ms', '850 ms', '1.20 s', '1 min 1 s', '1 h 3 min', '12 d 3 h']);
  assert.deepEqual([300, 1000, 12_400].map(age), ['now', '1 s', '12 s']);
  assert.deepEqual([5n, '5', null, NaN, Infinity, {}].map(toNumber), [5, 0, 0, 0, 0, 0]);
});

test('texts are shown without characters that hide or reorder others', () => {
  assert.equal(visible('a\u202eb\u0000c\n\u200b\ud800'), 'a\\u{202e}b\\u{00}c\\n\\u{200b}\\u{d800}');
  assert.equal(visible('héllo שלום 😀'), 'héllo שלום 😀');
  assert.equal(visible('x'.repeat(300), 10), `${'x'.repeat(10)}… (300 characters)`);
  assert.equal(visible(undefined), '');
  assert.equal(visible(`e${'\u0301'.repeat(50)}`), `e${'\u0301'.repeat(3)}`);
  assert.equal(visibleLines('a\n\tb\u0007'), 'a\n\tb\\u{07}');
});

test('payloads are recognised', () => {
  const shown = (/** @type {Uint8Array} */ payload) => {
    const { format, text } = showLine(payload, 'auto');
    return [format, text];
  };
  assert.deepEqual(shown(utf8('71.5')), ['JSON', '71.5']);
  assert.deepEqual(shown(utf8('{"a": [1, "x"]}')), ['JSON', '{"a": [1, "x"]}']);
  assert.deepEqual(shown(utf8('door open')), ['text', 'door open']);
  assert.deepEqual(shown(utf8('{broken')), ['text', '{broken']);
  assert.deepEqual(shown(encode({ a: 1, b: new Uint8Array([1, 255]) })), [
    'msgpack',
    `{"a": 1, "b": h'01 ff'}`,
  ]);
  assert.deepEqual(shown(new Uint8Array([0xff, 0xfe, 0, 1])), ['hex', 'ff fe 00 01']);
  assert.deepEqual(shown(new Uint8Array()), ['empty', '']);
  assert.equal(showLine(utf8('71.5'), 'hex').text, '37 31 2e 35');
  assert.equal(showLine(utf8('x y'), 'json').format, 'not JSON');
  assert.equal(showLine(new Uint8Array([0xc1]), 'msgpack').format, 'not msgpack');
  assert.equal(showBlock(utf8('{"a":[]}'), 'auto').text, '{\n  "a": []\n}');
  assert.match(showBlock(new Uint8Array(5000), 'hex').text, /… \(5000 bytes\)$/);
});

test('values are printed within limits', () => {
  assert.equal(printValue(new Map([[1, 2n]]), { compact: true }), '{1: 2}');
  assert.equal(printValue(new Date(NaN)), 'invalid time');
  assert.equal(printValue(new Extension(7, new Uint8Array([1]))), "ext(7, h'01')");
  assert.ok(printValue(Array(100_000).fill('x'), { max: 1000 }).length <= 1001);
  /** @type {unknown} */
  let deep = 1;
  for (let level = 0; level < 100; level += 1) deep = [deep];
  assert.match(printValue(deep, { compact: true }), /^\[+…\]+$/);
});

test('numbers are found in payloads', () => {
  assert.deepEqual([...numbersIn(utf8('71.5'))], [['', 71.5]]);
  assert.deepEqual(
    [...numbersIn(utf8('{"a": 1, "b": {"c": true, "d": "x"}}'))],
    [
      ['a', 1],
      ['b.c', 1],
    ],
  );
  assert.deepEqual([...numbersIn(encode({ force: 1200.5 }))], [['force', 1200.5]]);
  assert.deepEqual([...numbersIn(utf8('door open'))], []);
  assert.ok(
    numbersIn(utf8(JSON.stringify(Object.fromEntries(Array.from({ length: 99 }, (_, i) => [`k${i}`, i])))))
      .size <= 24,
  );
});

test('masks are those of the bus; other filters are parts of names', () => {
  const matching = (/** @type {string} */ filter) => ['a', 'a.b', 'a.b.c', 'xa.b'].filter(nameFilter(filter));
  assert.deepEqual(matching(''), ['a', 'a.b', 'a.b.c', 'xa.b']);
  assert.deepEqual(matching('a.*'), ['a.b', 'a.b.c']);
  assert.deepEqual(matching('a.?'), ['a.b']);
  assert.deepEqual(matching('?.b'), ['a.b', 'xa.b']);
  assert.deepEqual(matching('*'), ['a', 'a.b', 'a.b.c', 'xa.b']);
  assert.deepEqual(matching('A.B'), ['a.b', 'a.b.c', 'xa.b']);
});

test('forms are built from the parameters that methods describe', () => {
  const keys = (/** @type {string} */ text) =>
    readParameters(text)?.map(({ key, type, isOptional }) => [key, type, isOptional]);
  assert.deepEqual(keys('none'), []);
  assert.deepEqual(keys('{name: str}'), [['name', 'text', false]]);
  assert.deepEqual(keys('{action: send|broadcast, name: str}'), [
    ['action', 'choice', false],
    ['name', 'text', false],
  ]);
  assert.deepEqual(keys('{filter: str, limit: int, after: str}, all optional')?.[1], [
    'limit',
    'integer',
    true,
  ]);
  assert.deepEqual(keys('{topic: str} or {filter: str}'), [
    ['topic', 'text', true],
    ['filter', 'text', true],
  ]);
  assert.deepEqual(keys('{topics: [text], rpc: bool}, all optional'), [
    ['topics', 'json', true],
    ['rpc', 'boolean', true],
  ]);
  assert.equal(keys('any bytes'), undefined);
  const [limit] = readParameters('{limit: int}') ?? [];
  assert.equal(valueOf(limit, '12'), 12);
  assert.equal(valueOf(limit, '99999999999999999999'), 99999999999999999999n);
  assert.throws(() => valueOf(limit, '1.5'), /limit is not an integer/);
  assert.throws(() => valueOf(limit, ''), /limit is missing/);
  const [list] = readParameters('{topics: [text]}, all optional') ?? [];
  assert.deepEqual([valueOf(list, '["a"]'), valueOf(list, '')], [['a'], undefined]);
  assert.throws(() => valueOf(list, 'a'), /texts need quotes/);
});

test('rates of clients come from consecutive lists', () => {
  const table = new ClientTable();
  const client = (/** @type {string} */ name, /** @type {number} */ frames) => {
    return {
      name,
      kind: 'tcp',
      r_frames: frames,
      r_bytes: frames * 10,
      w_frames: 0,
      w_bytes: 0,
      queue: 0,
      instances: 1,
    };
  };
  table.update({ clients: [client('a', 1000), client('b', 5)] }, 1000);
  assert.deepEqual(
    table.rows.map(({ sends }) => sends),
    [0, 0],
  );
  table.update({ clients: [client('a', 1500), client('c', 7)] }, 3000);
  assert.deepEqual(
    table.rows.map(({ name, sends }) => [name, sends]),
    [
      ['a', 250],
      ['c', 0],
    ],
  );
  table.update({ clients: [client('a', 3)] }, 4000);
  assert.equal(table.get('a')?.sends, 0, 'another client of the same name');
  table.update({ clients: Array.from({ length: 50_010 }, (_, number) => client(`n${number}`, 0)) }, 5000);
  assert.deepEqual([table.rows.length, table.omitted], [50_000, 10]);
  table.update(undefined, 6000);
  assert.equal(table.rows.length, 0);
});

test('topics are a tree with limits', () => {
  const tree = new TopicTree();
  const add = (/** @type {string} */ topic, now = 0) =>
    tree.add({ topic, payload: utf8('1'), sender: 's' }, now);
  ['a/b', 'a/b/c', 'a', '', '/', 'x/y'].forEach((topic) => add(topic));
  assert.deepEqual(
    tree.visibleNodes(() => true).map(({ key }) => key),
    ['/', '//', '/a', '/a/b', '/a/b/c', '/x', '/x/y'],
  );
  assert.deepEqual(
    tree.visibleNodes((name) => name === 'a/b/c').map(({ key }) => key),
    ['/a', '/a/b', '/a/b/c'],
  );
  add(`${'l/'.repeat(600)}x`);
  assert.equal(tree.ignored, 1);
  add('d/'.repeat(100));
  assert.ok(tree.visibleNodes(() => true).every(({ level }) => level <= 16));
  for (let number = 0; number < 3 * MAX_TOPICS; number += 1) add(`many/${number}`, number);
  assert.ok(tree.size <= MAX_TOPICS && tree.size > MAX_TOPICS / 2, `${tree.size}`);
  assert.equal(tree.get('a/b'), undefined, 'the oldest are dropped');
  tree.clear();
  assert.deepEqual(
    tree.visibleNodes(() => true),
    [],
  );
});

test('samples are bounded', () => {
  const samples = new Samples();
  for (let number = 0; number < 10_000; number += 1) samples.add(number * 200, number);
  assert.equal(samples.values.length, 3000);
  samples.add(10_000 * 200 + 16 * 60_000, 1);
  assert.equal(samples.values.length, 1);
  assert.equal(samples.isDue(10_000 * 200 + 16 * 60_000 + 50), false);
});

test('flows are placed in two columns with few crossings', () => {
  const edges = [];
  for (let number = 0; number < 20; number += 1)
    edges.push({
      from: `s${number}`,
      to: `r${(number * 7) % 20}`,
      kind: 'message',
      messages: 100 - number,
      bytes: 1,
    });
  const { senders, receivers, links } = layOut(readFlows({ edges }));
  assert.deepEqual([senders.length, receivers.length, links.length], [20, 20, 20]);
  const crossings = links.reduce(
    (sum, a) => sum + links.filter((b) => a.from.row < b.from.row && a.to.row > b.to.row).length,
    0,
  );
  assert.equal(crossings, 0);
  const many = Array.from({ length: 500 }, (_, at) => ({
    from: `s${at}`,
    to: 't',
    kind: 'topic',
    messages: at,
    bytes: 0,
  }));
  const large = layOut(readFlows({ edges: many }));
  assert.deepEqual([large.senders.length, large.omitted], [50, 450]);
  assert.equal(large.receivers[0].isTopic, true);
  assert.deepEqual(readFlows({ edges: [null, 1, { from: 1 }] }), []);
});

test('subscribers of topics have a column of their own', () => {
  const flow = (/** @type {string} */ to, kind = 'topic', topic = undefined) => ({
    from: 'a',
    to,
    kind,
    messages: 5,
    bytes: 1,
    ...(topic ? { topic } : {}),
  });
  const flows = readFlows({
    edges: [flow('t/#', 'topic', /** @type {any} */ ('t/1')), flow('u'), flow('b', 'message')],
  });
  assert.deepEqual(
    flows.map(({ topic }) => topic),
    ['t/1', 'u', 'b'],
  );
  const all = new Map([
    ['t/#', ['x', 'y']],
    ['u', ['y']],
    ['b', ['z']],
    ['gone', ['z']],
  ]);
  const layout = layOut(flows, all);
  assert.deepEqual(layout.subscribers.map(({ name }) => name).sort(), ['x', 'y']);
  const lines = layout.links.filter(({ kind }) => kind === 'subscription');
  assert.deepEqual(lines.map(({ from, to }) => `${from.name} ${to.name}`).sort(), ['t/# x', 't/# y', 'u y']);
  const crowd = Array.from({ length: 1000 }, (_, at) => `c${at}`);
  assert.equal(layOut(flows, new Map([['u', crowd]])).subscribers.length, 50);
});

test('the history is fetched piece by piece, and checked', async () => {
  const history = new History();
  const { signal } = new AbortController();
  /** @type {number[]} */
  const asked = [];
  /** @type {any} */
  let answer;
  const bus = /** @type {any} */ ({
    async call(/** @type {string} */ _, /** @type {any} */ { after }) {
      asked.push(after);
      return answer;
    },
  });
  const a = () => history.series('a');
  answer = { interval_ms: 1000, newest_ms: 5000, newest: 3, series: { a: [1, null, 3], b: [9], c: 'x' } };
  await history.fetch(bus, signal);
  assert.deepEqual([...history.times], [3000, 4000, 5000]);
  assert.deepEqual(
    [a(), history.series('b')],
    [
      [1, null, 3],
      [null, null, 9],
    ],
  );
  assert.deepEqual(history.series('missing'), [null, null, null]);
  answer = { interval_ms: 1000, newest_ms: 6000, newest: 4, series: { a: [4] } };
  await history.fetch(bus, signal);
  assert.deepEqual(
    [[...history.times], a(), history.series('b')],
    [
      [3000, 4000, 5000, 6000],
      [1, null, 3, 4],
      [null, null, 9, null],
    ],
  );
  answer = { interval_ms: 1000, newest_ms: 6000, newest: 4, series: { a: [], b: [] } };
  await history.fetch(bus, signal);
  assert.deepEqual(a(), [1, null, 3, 4]);
  answer = { interval_ms: 1000, newest_ms: 9000, newest: 1000, series: { a: Array(900).fill(7) } };
  await history.fetch(bus, signal);
  assert.deepEqual([a().length, history.times.length, a()[0]], [900, 900, 7]);
  answer = { interval_ms: 1000, newest_ms: 9000, newest: 2, series: { a: [1, 2] } };
  await history.fetch(bus, signal);
  assert.deepEqual([a(), history.times.length], [[1, 2], 2], 'the plugin has restarted');
  assert.deepEqual(asked, [0, 3, 4, 4, 1000]);
  answer = undefined;
  await history.fetch(bus, signal);
  assert.deepEqual(a(), []);
});

test('events are fetched piece by piece, and bounded', async () => {
  const log = new EventLog();
  const { signal } = new AbortController();
  /** @type {number[]} */
  const asked = [];
  /** @type {any[]} */
  const answers = [
    { events: [{ number: 1, at_ms: 1, kind: 'log', subject: 'a', text: 'x' }], newest: 1, missed: 4 },
    { events: [], newest: 1, missed: 0 },
    { events: Array.from({ length: 3000 }, (_, at) => ({ number: at + 2 })), newest: 3001, missed: 0 },
  ];
  const bus = /** @type {any} */ ({
    async call(/** @type {string} */ _, /** @type {any} */ { after }) {
      asked.push(after);
      return answers.shift();
    },
  });
  assert.equal(await log.fetch(bus, signal), true);
  assert.equal(await log.fetch(bus, signal), false);
  await log.fetch(bus, signal);
  assert.deepEqual([asked, log.events.length, log.missed], [[0, 1, 1], 2000, 5]);
});

test('the sample configuration has a section for each plugin', () => {
  const text = readFileSync(new URL('../../../config/broker.toml', import.meta.url), 'utf8');
  const sections = new Map(sectionsOf(text));
  for (const code of [
    'unix',
    'tcp',
    'websocket',
    'rpc',
    'announce',
    'monitor',
    'fifo',
    'acl',
    'validate',
    'retain',
    'inproc',
    'activate',
  ])
    assert.ok(sections.has(code), code);
  assert.match(sections.get('websocket') ?? '', /^# Web pages/);
  assert.match(sections.get('unix') ?? '', /stall_seconds/);
});

/** The colours of a scheme by name. @param {string} css */
function colours(css) {
  const found = [...css.matchAll(/--([a-z0-9-]+): #([0-9a-f]{6});/g)];
  return new Map(
    found.map(([, name, digits]) => [name, digits.match(/../g)?.map((pair) => Number.parseInt(pair, 16))]),
  );
}

/** The relative luminance of WCAG 2. @param {number[] | undefined} colour */
function luminance(colour) {
  const [red, green, blue] = (colour ?? []).map((value) => {
    const part = value / 255;
    return part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
}

test('texts have enough contrast, light and dark', () => {
  const css = readFileSync(new URL('../page/style.css', import.meta.url), 'utf8');
  const [light, dark] = css.split('@media (prefers-color-scheme: dark)');
  const kinds = ['connect', 'disconnect', 'stall', 'reload', 'plugin', 'log', 'refused', 'missed'];
  const pairs = [
    ...['page', 'surface', 'raised', 'selected', 'hover'].flatMap((back) => [
      ['text', back],
      ['muted', back],
    ]),
    ...['surface', 'page', 'selected'].map((back) => ['accent', back]),
    ['on-accent', 'accent'],
    ...['good', 'warn', 'bad'].flatMap((name) => [
      [name, `${name}-back`],
      [name, 'surface'],
    ]),
    ...kinds.map((kind) => [`event-${kind}`, 'raised']),
  ];
  for (const scheme of [
    colours(light.slice(0, light.indexOf('}'))),
    colours(dark.slice(0, dark.indexOf('}'))),
  ]) {
    for (const [text, back] of pairs) {
      const [a, b] = [scheme.get(text), scheme.get(back)].map(luminance).sort((x, y) => y - x);
      const contrast = (a + 0.05) / (b + 0.05);
      assert.ok(contrast >= 4.5, `${text} on ${back}: ${contrast.toFixed(2)}`);
    }
  }
});
