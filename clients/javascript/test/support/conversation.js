/**
 * Runs conversations (protocol/conformance/README.md): the runner is the broker, and time is virtual.
 * @module
 */

import assert from 'node:assert/strict';

import { Client } from '../../src/client.js';
import { ElbusError, RpcError } from '../../src/errors.js';
import { decode } from '../../src/msgpack/decode.js';
import { encode } from '../../src/msgpack/encode.js';
import { raw } from '../../src/rpc/methods.js';
import { concat, hex, parseBytes, parseFields, words } from './bytes.js';
import { MemoryBroker, settle, VirtualClock } from './virtual.js';

const decoder = new TextDecoder();

/**
 * @typedef {{ title: string, lines: { number: number, text: string }[] }} Conversation
 */

/**
 * Splits a file into conversations.
 * @param {string} text
 * @returns {Conversation[]}
 */
export function parseConversations(text) {
  /** @type {Conversation[]} */
  const conversations = [];
  text.split('\n').forEach((line, index) => {
    const trimmed = line.trim();
    if (trimmed === '' || trimmed.startsWith('#')) return;
    if (trimmed.startsWith('conversation ')) conversations.push({ title: trimmed.slice(13), lines: [] });
    else conversations.at(-1)?.lines.push({ number: index + 1, text: trimmed });
  });
  return conversations;
}

/**
 * Returns the number of bytes of which the broker writes only the beginning; 0 if there are none.
 * @param {Conversation} conversation
 */
function cutBytes(conversation) {
  const line = conversation.lines.find(({ text }) => text.startsWith('cut '));
  return line === undefined ? 0 : parseBytes(words(line.text).slice(1)).bytes.length;
}

/**
 * Runs a conversation, for every length of what is cut if the broker goes away within something.
 * @param {Conversation} conversation
 * @param {number} step How many bytes of the broker arrive together.
 */
export async function runConversation(conversation, step) {
  await runOnce(conversation, step, 0);
  for (let cut = 1; cut < cutBytes(conversation); cut += 1) await runOnce(conversation, step, cut);
}

/**
 * @param {Conversation} conversation
 * @param {number} step
 * @param {number} cut How many bytes of a cut line the broker writes.
 */
async function runOnce(conversation, step, cut) {
  const run = new Run(step, cut);
  for (const { number, text } of conversation.lines) {
    try {
      await run.line(words(text));
      await settle();
    } catch (error) {
      if (error instanceof Error) error.message = `line ${number}, ${text}: ${error.message}`;
      throw error;
    }
  }
  await run.finish();
}

/**
 * Runs a conversation up to a line, or until the broker has sent a number of bytes, and interrupts it: the
 * client is closed, its operations are cancelled, or the broker goes away. Checks that everything ends.
 * Returns whether the conversation was interrupted.
 * @param {Conversation} conversation
 * @param {{ line?: number, byte?: number, close?: boolean, cancel?: boolean }} interruption
 */
export async function interruptConversation(
  conversation,
  { line = Infinity, byte = Infinity, close, cancel },
) {
  const run = new Run(Infinity, 0, byte);
  const where = `${conversation.title}, line ${line}, byte ${byte}`;
  try {
    for (const { text } of conversation.lines.slice(0, line)) {
      await run.line(words(text));
      await settle();
    }
  } catch (error) {
    if (byte === Infinity) throw error; // without the broker the rest of the conversation is another
  }
  const interrupted = run.gone || byte === Infinity;
  await run.interrupt(where, close === true, cancel === true);
  return interrupted;
}

/**
 * @typedef {{ outcome?: string, abort: AbortController, value?: any, cancelled?: boolean }} Operation
 */

class Run {
  #step;
  #cut;
  /** The broker goes away when it has sent this many bytes. */
  #bytesLeft;
  /** Whether the broker has gone away. */
  gone = false;
  #clock = new VirtualClock();
  #broker = new MemoryBroker();
  /** @type {import('./virtual.js').MemoryConnection | undefined} */
  #connection;
  /** Written by the client and not yet compared. */
  #received = /** @type {Uint8Array} */ (new Uint8Array(0));
  #handshakeBytes = 0;
  /** Bytes of the handshake that were not compared. */
  #settings = { timeout: 5000, reconnect: /** @type {any} */ (false) };
  #seesPings = false;
  #pingInterval = 1000;
  /** @type {Client | undefined} */
  #client;
  /** @type {Map<string, Operation>} */
  #operations = new Map();
  /** @type {Map<string, Uint8Array>} */
  #ids = new Map();
  /** @type {string[]} */
  #events = [];
  /** @type {any[]} */
  #calls = [];
  /** @type {any[]} */
  #notifications = [];
  /** @type {Map<string, any>} */
  #called = new Map();

  /**
   * @param {number} step
   * @param {number} cut
   * @param {number} [bytes]
   */
  constructor(step, cut, bytes = Infinity) {
    this.#step = step;
    this.#cut = cut;
    this.#bytesLeft = bytes;
  }

  /** @param {string[]} line */
  async line(line) {
    const [head, ...rest] = line;
    switch (head) {
      case 'settings':
        return this.#set(rest);
      case 'do':
        return this.#start(rest);
      case 'cancel': {
        const operation = this.#operation(rest[0]);
        operation.cancelled = true;
        return operation.abort.abort();
      }
      case 'accepted':
        return this.#accept();
      case 'registered':
        this.#accept();
        this.#write(parseBytes(['EB0100']));
        await settle();
        this.#expect(parseBytes(['EB0100', 'len16(', rest[0], ')']));
        return this.#write(parseBytes(['01', '01']));
      case '>':
        return this.#expect(parseBytes(rest));
      case '<':
        return this.#write(parseBytes(rest));
      case 'cut':
        this.#write(parseBytes(rest), this.#cut);
        await settle();
        return this.#connection?.close();
      case 'close':
        this.#connection?.close();
        this.#assertNothingWritten();
        return undefined;
      case 'closed':
        this.#assertNothingWritten();
        assert.ok(this.#connection?.clientClosed, 'the client has not closed the connection');
        return this.#connection?.close();
      case 'refuse':
        this.#broker.listens = false;
        return undefined;
      case 'listen':
        this.#broker.listens = true;
        return undefined;
      case 'advance':
        return this.#clock.advance(Number(rest[0]));
      case '=':
        return this.#ended(rest[0], rest.slice(1));
      case 'pending':
        return assert.equal(this.#operation(rest[0]).outcome, undefined);
      case 'frame':
        return this.#frame(rest);
      case 'event':
        return assert.equal(this.#events.shift(), rest.join(' '));
      case 'called': {
        const call = this.#calls.shift();
        assert.ok(call, 'no call has arrived');
        this.#called.set(rest[0], call);
        return compareFields(parseFields(rest.slice(1)), call);
      }
      case 'answer':
        return this.#answer(rest);
      case 'notified': {
        const notification = this.#notifications.shift();
        assert.ok(notification, 'no notification has arrived');
        return compareFields(parseFields(rest), notification);
      }
      default:
        throw new Error(`unknown line ${head}`);
    }
  }

  async finish() {
    this.#assertNothingWritten();
    assert.deepEqual(
      this.#events.filter((event) => event !== 'closed'),
      [],
      'further events',
    );
    assert.deepEqual([this.#calls, this.#notifications], [[], []], 'further calls');
    for (const [label, { outcome, cancelled }] of this.#operations) {
      if (!cancelled) assert.equal(outcome, 'compared', `the outcome of ${label} was not compared`);
    }
    for (const [label, { value }] of this.#operations) {
      assert.equal(value?.tryNext?.(), undefined, `further frames of ${label}`);
    }
    assert.equal(this.#client?.frames.tryNext(), undefined, 'further frames');
    const closed = this.#client?.close();
    await settle();
    this.#assertNothingWritten();
    this.#connection?.close();
    await closed;
    assert.equal(this.#clock.timers, 0, 'timers are left');
  }

  /** @param {string[]} line */
  #set(line) {
    for (const setting of line.join(' ').split(',')) {
      const [key, first, second] = setting.trim().split(' ');
      if (key === 'timeout') this.#settings.timeout = Number(first);
      else if (key === 'reconnect' && first !== 'off') {
        this.#settings.reconnect = { firstDelay: Number(first), maxDelay: Number(second), jitter: 0 };
      } else if (key === 'ping') {
        this.#seesPings = true;
        this.#pingInterval = Number(first);
      }
    }
  }

  /** @param {string} label */
  #operation(label) {
    const operation = this.#operations.get(label);
    assert.ok(operation, `no operation ${label}`);
    return operation;
  }

  /** @param {string[]} line */
  #start([label, name, ...rest]) {
    /** @type {Operation} */
    const operation = { abort: new AbortController() };
    assert.ok(!this.#operations.has(label), `${label} exists`);
    this.#operations.set(label, operation);
    this.#perform(operation, name, rest).then(
      (outcome) => {
        operation.outcome = outcome;
      },
      (error) => {
        operation.outcome = outcomeOf(error);
      },
    );
  }

  /**
   * @param {Operation} operation
   * @param {string} name
   * @param {string[]} rest
   * @returns {Promise<string>}
   */
  async #perform(operation, name, rest) {
    if (name === 'connect') return this.#connect(unquoted(rest[0]), operation.abort.signal);
    const client = /** @type {Client} */ (this.#client);
    const { signal } = operation.abort;
    /** @type {any} */
    const options = { signal };
    switch (name) {
      case 'send':
      case 'broadcast':
      case 'publish':
        await client[name](unquoted(rest[1]), parseBytes(rest.slice(2)).bytes, { qos: rest[0], ...options });
        return 'ok';
      case 'publish_for': {
        const [qos, topic, receiver, ...payload] = rest;
        await client.publishFor(unquoted(topic), unquoted(receiver), parseBytes(payload).bytes, {
          qos,
          ...options,
        });
        return 'ok';
      }
      case 'add_filters':
        await client.addFilters(rest.map(unquoted), options);
        return 'ok';
      case 'remove_filters':
        await client.removeFilters(rest.map(unquoted), options);
        return 'ok';
      case 'exclude':
      case 'unexclude':
        await client[name](rest.map(unquoted), options);
        return 'ok';
      case 'subscribe': {
        const filters = rest.filter((word) => word.startsWith('"')).map(unquoted);
        const given = subscribeOptions(rest.slice(filters.length));
        operation.value = await client.subscribe(filters, { ...given, ...options });
        return 'ok';
      }
      case 'unsubscribe':
        await this.#operation(rest[0]).value.unsubscribe();
        return 'ok';
      case 'call': {
        const params = parseBytes(rest.slice(2)).bytes;
        const result = await client.call(unquoted(rest[0]), unquoted(rest[1]), params, {
          raw: true,
          ...options,
        });
        return `ok ${hex(result)}`.trim();
      }
      case 'call0': {
        const params = parseBytes(rest.slice(2)).bytes;
        await client.call0(unquoted(rest[0]), unquoted(rest[1]), params, {
          raw: true,
          qos: 'no',
          ...options,
        });
        return 'ok';
      }
      case 'notify':
        await client.notify(unquoted(rest[0]), parseBytes(rest.slice(1)).bytes, { qos: 'no', ...options });
        return 'ok';
      case 'serve':
        client.serve(
          raw(
            (params, { sender, method }) =>
              new Promise((resolve, reject) => {
                this.#calls.push({ sender, method, params, resolve, reject });
              }),
          ),
          { notification: ({ sender, payload }) => this.#notifications.push({ sender, payload }) },
        );
        return 'ok';
      case 'cursor': {
        const [target, method, ...more] = rest;
        const next = /** @type {string} */ (more.pop());
        // parameters are values here
        const params = decode(parseBytes(more).bytes);
        operation.value = await client.cursor(
          unquoted(target),
          unquoted(method),
          params,
          unquoted(next),
          options,
        );
        return 'ok';
      }
      case 'next': {
        const { value, done } = await this.#operation(rest[0]).value.next(options);
        return done ? 'end' : `ok ${hex(encode(value))}`;
      }
      case 'block': {
        const items = await this.#operation(rest[0]).value.block(Number(rest[1]), options);
        return items.length === 0 ? 'end' : `ok ${hex(encode(items))}`;
      }
      case 'round_trip':
        await client.roundTrip(options);
        return 'ok';
      case 'close':
        await client.close();
        return 'ok';
      default:
        throw new Error(`unknown operation ${name}`);
    }
  }

  /**
   * @param {string} name
   * @param {AbortSignal} signal
   */
  async #connect(name, signal) {
    const settings = { ...this.#settings, pingInterval: this.#pingInterval };
    const seams = { clock: this.#clock, dial: this.#broker.dial };
    const client = await Client.open('/run/elbus.sock', name, { ...settings, signal }, seams);
    this.#client = client;
    void (async () => {
      for await (const event of client.events()) {
        this.#events.push(
          event.type === 'retrying' ? `retrying ${event.attempt} ${event.after}` : event.type,
        );
      }
    })();
    return 'ok';
  }

  #accept() {
    const connection = this.#broker.pending.shift();
    assert.ok(connection, 'the client does not connect');
    this.#assertNothingWritten();
    this.#connection = connection;
    this.#received = new Uint8Array(0);
    this.#handshakeBytes = 0;
  }

  /**
   * @param {import('./bytes.js').Pattern} pattern
   * @param {number} [length] How many of the bytes are written.
   */
  #write({ bytes, ids }, length = bytes.length) {
    for (const { at, name } of ids) {
      const id = this.#ids.get(name);
      if (id === undefined) throw new Error(`id:${name} is not bound`);
      bytes.set(id, at);
    }
    const sent = bytes.subarray(0, Math.min(this.#bytesLeft, length));
    if (sent.length > 0) this.#connection?.send(sent, Math.min(this.#step, sent.length));
    this.#bytesLeft -= sent.length;
    if (sent.length < length && !this.gone) {
      this.gone = true;
      this.#connection?.close();
    }
  }

  /**
   * Interrupts the conversation, and checks that everything ends.
   * @param {string} where
   * @param {boolean} close
   * @param {boolean} cancel
   */
  async interrupt(where, close, cancel) {
    await settle();
    const connections = [this.#connection];
    if (cancel) for (const { abort } of this.#operations.values()) abort.abort();
    if (close) {
      // as a program does that ends: the broker answers the end of the connection
      const closed = this.#client?.close();
      await settle();
      connections[0]?.close();
      await this.#clock.advance(0);
      if (this.#client) {
        await Promise.race([
          closed,
          this.#clock.advance(100_000).then(() => assert.fail(`close hangs: ${where}`)),
        ]);
        assert.ok(!this.#client.isConnected, where);
      }
    }
    await settle();
    // what still waits ends with its timeout
    if (!this.gone || cancel) await this.#clock.advance(12_000);
    for (const [label, { outcome, value }] of this.#operations) {
      if (value?.next && value.tryNext) value.return?.();
      const serves = outcome === undefined && /^(serve|close)$/.test(label);
      assert.ok(
        outcome !== undefined || serves || this.#isUnconnected(label),
        `${label} has not ended: ${where}`,
      );
      assert.match(outcome ?? 'ok', /^(ok|end|compared|error|AbortError)/, where);
    }
    const closed = this.#client?.close();
    await settle();
    for (const connection of [this.#connection, ...this.#broker.pending]) connection?.close();
    await this.#clock.advance(20_000);
    await closed;
    assert.equal(this.#clock.timers, 0, `timers are left: ${where}`);
  }

  /**
   * Whether an operation could not be started because the client did not connect.
   * @param {string} label
   */
  #isUnconnected(label) {
    return this.#client === undefined && label !== 'c';
  }

  /** @param {import('./bytes.js').Pattern} pattern */
  #expect({ bytes, ids }) {
    this.#read();
    const written = this.#received.subarray(0, bytes.length);
    for (const { at, name } of ids) {
      const id = written.slice(at, at + 4);
      const known = this.#ids.get(name);
      if (name !== '?' && known === undefined && id.length === 4) this.#ids.set(name, id);
      bytes.set(known ?? id, at);
    }
    assert.equal(hex(written), hex(bytes));
    assert.ok(
      written.length === bytes.length && written.every((byte, index) => byte === bytes[index]),
      'bytes differ',
    );
    this.#received = this.#received.subarray(bytes.length);
  }

  /**
   * Takes what the client has written, without pings and probes unless pings are part of the conversation.
   */
  #read() {
    let bytes = this.#connection?.read() ?? new Uint8Array(0);
    if (this.#handshakeBytes === 0) {
      // greeting and name come in one write
      if (bytes.length === 0) return;
      this.#handshakeBytes = 5 + bytes[3] + 256 * bytes[4];
      this.#received = concat(this.#received, bytes.subarray(0, this.#handshakeBytes));
      bytes = bytes.subarray(this.#handshakeBytes);
    }
    while (bytes.length > 0) {
      const isPing = bytes[4] === 0;
      const length = 9 + (isPing ? 0 : new DataView(bytes.buffer, bytes.byteOffset).getUint32(5, true));
      const isProbe = decoder.decode(bytes.subarray(9, length)) === '.client/probe';
      if (!(isPing || isProbe) || this.#seesPings)
        this.#received = concat(this.#received, bytes.subarray(0, length));
      bytes = bytes.subarray(length);
    }
  }

  #assertNothingWritten() {
    this.#read();
    assert.equal(hex(this.#received), '', 'the client has written more');
  }

  /**
   * @param {string} label
   * @param {string[]} expected
   */
  #ended(label, expected) {
    const operation = this.#operation(label);
    assert.equal(operation.outcome, expectedOutcome(expected));
    operation.outcome = 'compared';
  }

  /** @param {string[]} line */
  #frame([label, kind, ...fields]) {
    const consumer = label === 'frames' ? this.#client?.frames : this.#operation(label).value;
    const frame = consumer.tryNext();
    assert.ok(frame, 'no frame has arrived');
    assert.equal(frame.kind, kind);
    compareFields(parseFields(padded(fields)), frame);
  }

  /** @param {string[]} line */
  #answer([label, outcome, ...rest]) {
    const call = this.#called.get(label);
    if (outcome === 'ok') call.resolve(parseBytes(rest).bytes);
    else call.reject(new RpcError(Number(rest[0]), parseBytes(rest.slice(1)).bytes));
  }
}

/**
 * @param {[string, Uint8Array][]} fields
 * @param {any} actual
 */
function compareFields(fields, actual) {
  for (const [key, bytes] of fields) {
    const value = actual[key];
    if (typeof value === 'boolean' || typeof value === 'number') assert.equal(Number(value), bytes[0], key);
    else if (typeof value === 'string') assert.equal(value, decoder.decode(bytes), key);
    else if (value instanceof Uint8Array) {
      assert.equal(hex(value), hex(bytes), key);
      assert.ok(value.length === bytes.length && value.every((byte, index) => byte === bytes[index]), key);
    } else throw new Error(`no field ${key}`);
  }
}

/**
 * Numbers of frames are decimal digits.
 * @param {string[]} fields
 */
function padded(fields) {
  return fields.map((word, index) =>
    ['realtime', 'missed'].includes(fields[index - 1]) ? `u32=${word}` : word,
  );
}

/** @param {string} word */
function unquoted(word) {
  if (!/^".*"$/.test(word)) throw new Error(`${word} is not a text in quotes`);
  return word.slice(1, -1);
}

/** @param {string[]} rest */
function subscribeOptions(rest) {
  /** @type {import('../../src/index.js').SubscribeOptions} */
  const options = {};
  const left = [...rest];
  while (left.length > 0) {
    switch (left.shift()) {
      case 'share':
        options.share = left.shift();
        break;
      case 'key':
        options.key = { group: String(left.shift()), levels: Number(left.shift()) };
        break;
      case 'latest':
        options.latest = true;
        break;
      case 'every':
        options.every = Number(left.shift());
        break;
      case 'lossy':
        options.lossy = true;
        break;
      default:
        throw new Error('unknown option');
    }
  }
  return options;
}

/**
 * Returns the outcome of an operation that has failed, in the words of the conversations.
 * @param {unknown} error
 * @returns {string}
 */
function outcomeOf(error) {
  if (error instanceof RpcError) return `error rpc ${error.code} ${hex(error.data)}`.trim();
  if (error instanceof DOMException) return error.name;
  if (!(error instanceof ElbusError)) return String(error instanceof Error ? error.stack : error);
  const code = ['name-refused', 'refused'].includes(error.kind) ? ` ${error.code?.toString(16)}` : '';
  return `error ${error.kind}${code}`;
}

/** @param {string[]} line */
function expectedOutcome(line) {
  if (line[0] === 'error' && line[1] === 'rpc') {
    return `error rpc ${line[2]} ${hex(parseBytes(line.slice(3)).bytes)}`.trim();
  }
  if (line[0] === 'ok') return `ok ${hex(parseBytes(line.slice(1)).bytes)}`.trim();
  return line.join(' ');
}
