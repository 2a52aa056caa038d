// The methods of the plugin web with invented answers, served by a client of the bus.

import { connect } from '../../../../clients/javascript/src/index.js';

const INTERVAL = 1000;
const VALUES = 900;

/** @param {number} index @param {number} mean */
const wave = (index, mean) =>
  Math.round(mean * (1 + 0.3 * Math.sin(index / 40) + 0.15 * Math.sin(index / 7)));

/**
 * Serves the methods. What is changed in `answers` is what they return.
 * @param {string} address
 */
export async function serveWebMethods(address) {
  const client = await connect(address, 'test.web');
  /** @type {Record<string, (params: any) => unknown>} */
  const answers = {
    'web.history': (params) => history(params?.after ?? 0),
    'web.top': () => top(),
    'web.map': () => map(),
    'web.calls': () => calls(),
    'web.events': (params) => events(params?.after ?? 0),
  };
  client.serve((/** @type {unknown} */ params, /** @type {any} */ call) => {
    const answer = answers[call.method];
    if (answer === undefined) throw new Error(`no method ${call.method}`);
    return answer(params);
  });
  return { client, answers };
}

const start = Date.now();

/**
 * Values by the second. The first 15 minutes have passed when the methods are served.
 * @param {number} after
 */
function history(after) {
  const second = (/** @type {number} */ time) => Math.floor(time / INTERVAL);
  const newest = second(Date.now());
  const first = Math.max(after, newest - VALUES) + 1;
  const origin = second(start) - VALUES;
  const indexes = Array.from({ length: newest - first + 1 }, (_, at) => first + at - origin);
  const gap = (/** @type {number} */ index) => index > 200 && index < 230;
  const of = (/** @type {number} */ mean) => indexes.map((index) => (gap(index) ? null : wave(index, mean)));
  const during = (
    /** @type {[number, number]} */ [from, to],
    /** @type {(index: number) => number} */ value,
    other = 0,
  ) => indexes.map((index) => (index > from && index < to ? value(index) : other));
  return {
    interval_ms: INTERVAL,
    newest,
    newest_ms: newest * INTERVAL,
    series: {
      messages_in: of(42_000),
      messages_out: of(118_000),
      bytes_in: of(9_400_000),
      bytes_out: of(31_000_000),
      queued_bytes: during([600, 700], (index) => wave(index, 6_000_000), 40_000),
      refused: during([640, 690], (index) => wave(index, 320)),
      held_seconds: during([610, 690], () => 0.4),
      clients: indexes.map((index) => 180 + Math.round(index / 30)),
      missed: during([650, 690], (index) => wave(index, 90)),
    },
  };
}

function top() {
  return [
    {
      name: 'plant.archive',
      reason: 'holds_senders',
      detail: 'has held 3 senders for 4.2 s in the last minute',
      value: 4.2,
    },
    {
      name: 'plant.display',
      reason: 'queue',
      detail: '6.10 MiB are queued of at most 8.00 MiB',
      value: 6_396_313,
    },
    { name: 'plant.plc.press', reason: 'sends', detail: '38,400 messages per second', value: 38_400 },
    { name: 'plant.recorder', reason: 'receives', detail: '96,000 messages per second', value: 96_000 },
    { name: 'plant.lamp', reason: 'refused', detail: '320 messages per second were refused', value: 320 },
  ];
}

function map() {
  /** @type {object[]} */
  const edges = [];
  for (let line = 1; line <= 6; line += 1) {
    for (const device of ['press', 'oven', 'robot', 'belt']) {
      const from = `line${line}.plc.${device}`;
      edges.push({
        from,
        to: `line${line}/${device}`,
        kind: 'topic',
        messages: 4000 * line + device.length * 300,
        bytes: 400_000,
      });
      edges.push({ from, to: `hmi.line${line}`, kind: 'message', messages: 120 * line, bytes: 12_000 });
    }
    edges.push({
      from: `hmi.line${line}`,
      to: `line${line}.plc.press`,
      kind: 'rpc',
      messages: 40 + line,
      bytes: 4000,
    });
    edges.push({
      from: `hmi.line${line}`,
      to: 'plant.recipes',
      kind: 'rpc',
      messages: 15 * line,
      bytes: 9000,
    });
  }
  for (let number = 1; number <= 18; number += 1)
    edges.push({
      from: `sensor.hall.${number}`,
      to: 'hall/temperature',
      kind: 'topic',
      messages: 60 * number,
      bytes: 600,
    });
  edges.push({ from: 'plant.archive', to: 'archive/state', kind: 'topic', messages: 900, bytes: 90_000 });
  return { since_ms: Date.now() - 60_000, sampled: true, missed: 120, edges };
}

function calls() {
  const call = (
    /** @type {number} */ ago,
    /** @type {string} */ method,
    /** @type {number} */ duration_ms,
  ) => ({
    at_ms: Date.now() - ago,
    caller: 'hmi.line1',
    target: 'plant.recipes',
    method,
    duration_ms,
  });
  return {
    slow: [call(4000, 'recipe.load', 1840), call(61_000, 'recipe.list', 412.5)],
    errors: [
      { ...call(9000, 'recipe.save', 12), error: { code: -32602, text: 'celsius must be at most 300' } },
    ],
  };
}

const all = Array.from({ length: 60 }, (_, index) => eventOf(index + 1));

/** @param {number} number */
function eventOf(number) {
  const samples = [
    { kind: 'connect', subject: 'hmi.line1', text: 'connected over websocket from 10.0.4.17' },
    { kind: 'disconnect', subject: 'hmi.line2', text: 'connection reset by the peer' },
    { kind: 'stall', subject: 'plant.archive', text: 'took nothing for 4.0 s; 8.0 MiB were queued' },
    { kind: 'log', subject: 'panel', level: 'warn', text: 'connection refused: unknown token' },
    { kind: 'plugin', subject: 'announce', text: 'started' },
    { kind: 'reload', subject: '', text: 'broker.toml: 1 restarted, 7 unchanged' },
  ];
  return {
    number,
    at_ms: start - (61 - number) * 13_000,
    ...samples[(number * 7) % 11 < 6 ? (number * 7) % 11 : 0],
  };
}

/** @param {number} after */
function events(after) {
  return { events: all.filter(({ number }) => number > after), newest: all.length, missed: 0 };
}
