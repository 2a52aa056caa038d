/// <reference lib="esnext.disposable" preserve="true" />
/**
 * The client: its operations and the state of its connection. Owns the meaning of an operation; waiting,
 * writing and reading are in `connection`.
 * @module
 */

import { abortable, checkSignal } from './abort.js';
import { parseAddress } from './address.js';
import {
  checkFilters,
  checkOptions,
  checkPayload,
  checkText,
  encodeParams,
  OPTIONS,
  qosBits,
} from './arguments.js';
import { Connection } from './connection/connection.js';
import { Features } from './connection/features.js';
import { plainRequest } from './connection/operations.js';
import { checkName } from './connection/register.js';
import { ElbusError, invalidArgument, messageOf, quoted } from './errors.js';
import { decode } from './msgpack/decode.js';
import { Frames, PendingSubscription, Subscription } from './receive/subscription.js';
import { Cursor } from './rpc/cursor.js';
import { ServeHandle, Server } from './rpc/serve.js';
import { boolean, number, resolveSettings } from './settings.js';
import { Op, primaryOf, SECONDARY_SEPARATOR } from './wire/constants.js';
import { optionNames, optionsPrefix, withOptions } from './wire/filter.js';
import { notificationHead } from './wire/rpc.js';

/** @typedef {import('./settings.js').ClientSettings} ClientSettings */
/** @typedef {import('./wire/constants.js').Qos} Qos */

/**
 * What is sent: text as UTF-8, or bytes.
 * @typedef {string | Uint8Array | ArrayBuffer | ArrayBufferView} Payload
 */

/**
 * Options of an operation.
 * @typedef {object} SendOptions
 * @property {Qos} [qos] Whether the broker acknowledges the operation, and whether it is real-time. Default:
 *   `processed`: the promise settles with the acknowledgement. With `no` it resolves when the frame is queued
 *   here.
 * @property {AbortSignal} [signal] Rejects the promise. A frame that is queued is sent nevertheless.
 */

/**
 * Options of an operation without further choices.
 * @typedef {object} OperationOptions
 * @property {AbortSignal} [signal] Rejects the promise.
 */

/**
 * Options of a subscription; {@link import('./wire/filter.js').FilterOptions} describes those that the broker
 * knows.
 * @typedef {import('./wire/filter.js').FilterOptions & OperationOptions} SubscribeOptions
 */

/**
 * Options of a call.
 * @typedef {object} CallOptions
 * @property {number} [timeout] How long to wait for the reply, in ms. Default: the client's timeout.
 * @property {boolean} [realtime] Whether the request is sent as real-time. By convention the reply then is,
 *   too.
 * @property {boolean} [raw] Parameters and result are bytes instead of values. The result shares memory with
 *   frames that arrived together.
 * @property {AbortSignal} [signal] Rejects the promise. The method runs nevertheless.
 */

/**
 * Options of a call without reply.
 * @typedef {SendOptions & { raw?: boolean }} Call0Options
 */

/**
 * Counters of a client.
 * @typedef {object} ClientStats
 * @property {number} framesSent Frames queued for sending, including pings.
 * @property {number} bytesSent Bytes of these frames.
 * @property {number} framesReceived Received messages, broadcasts and publications.
 * @property {number} bytesReceived Bytes received over all connections, without their handshakes.
 * @property {number} unclaimed Received frames without a consumer: late replies.
 * @property {number} reconnects Successful reconnections.
 * @property {number} queuedBytes Bytes currently queued for sending.
 * @property {number} unrestored Filters that the broker has refused when they were restored after a lost
 *   connection.
 */

/**
 * Connects and registers under a name, which must be unique at the broker.
 *
 * ```js
 * const client = await connect('/tmp/elbus.sock', 'plant.display', { reconnect: true });
 * ```
 * @param {string | URL} address The path of a UNIX socket, `host:port`, `tls://host:port`, or in browsers and
 *   elsewhere `ws://` or `wss://`.
 * @param {string} name
 * @param {ClientSettings} [settings]
 * @returns {Promise<Client>}
 * @throws {ElbusError} `bad-address`, `no-broker`, `not-a-broker`, `tls`, `name-taken`, `name-refused`,
 *   `no-primary`, `access-denied`, `disconnected`, `timeout`, `invalid-argument`.
 */
export async function connect(address, name, settings = {}) {
  return Client.open(address, name, settings, {});
}

/**
 * A client of a broker: registered under a name, over any transport; from {@link connect}.
 *
 * All methods can be called concurrently. Frames are written in the order of the calls. An operation with
 * acknowledgement settles with the broker's answer; pipeline operations by not awaiting each before the next.
 */
export class Client {
  #connection;
  #given;
  #features;
  #frames;
  /** Counts the secondary clients of the primary. */
  #secondaries;
  #seams;

  /**
   * Clients are created by {@link connect}.
   * @internal
   * @param {Connection} connection
   * @param {ClientSettings} given
   * @param {{ count: number }} secondaries
   * @param {import('./settings.js').Seams} seams
   */
  constructor(connection, given, secondaries, seams) {
    this.#connection = connection;
    this.#given = given;
    this.#features = new Features(connection);
    this.#frames = new Frames(connection.frames);
    this.#secondaries = secondaries;
    this.#seams = seams;
  }

  /**
   * Connects. `seams` replace parts of the client in tests.
   * @internal
   * @param {string | URL} address
   * @param {string} name
   * @param {ClientSettings} given
   * @param {import('./settings.js').Seams} seams
   * @returns {Promise<Client>}
   */
  static async open(address, name, given, seams) {
    return Client.#open(parseAddress(address), name, given, seams, { count: 0 });
  }

  /**
   * @param {import('./address.js').Address} address
   * @param {string} name
   * @param {ClientSettings} given
   * @param {import('./settings.js').Seams} seams
   * @param {{ count: number }} secondaries
   * @returns {Promise<Client>}
   */
  static async #open(address, name, given, seams, secondaries) {
    if (typeof name !== 'string') throw invalidArgument('the name', name, 'a string');
    const settings = resolveSettings(given, seams);
    const signal = checkSignal(given.signal);
    checkName(name);
    const connection = new Connection(address, name, settings);
    const client = new Client(connection, given, secondaries, seams);
    if (settings.queueCalls) client.#queueCalls();
    await connection.open(signal);
    return client;
  }

  /**
   * The name that the client is registered under.
   * @returns {string}
   */
  get name() {
    return this.#connection.name;
  }

  /**
   * The broker's address, without a token that it contains.
   * @returns {string}
   */
  get address() {
    return this.#connection.address;
  }

  /**
   * Whether the client is connected.
   * @returns {boolean}
   */
  get isConnected() {
    return this.#connection.isConnected;
  }

  /**
   * The received frames that no subscription or server takes: messages, broadcasts, and the publications of
   * {@link addFilters}.
   * @returns {Frames}
   */
  get frames() {
    return this.#frames;
  }

  /**
   * Waits until the client is connected.
   * @returns {Promise<void>}
   * @throws {ElbusError} The reason why the client has ended.
   */
  connected() {
    return this.#connection.connected();
  }

  /**
   * Returns the future changes of the connection.
   * @returns {import('./events.js').ConnectionEvents}
   */
  events() {
    return this.#connection.listen();
  }

  /**
   * Returns the client's counters.
   * @returns {ClientStats}
   */
  stats() {
    const { sendQueue, demux, bytesReceived, reconnects, topics } = this.#connection;
    return {
      framesSent: sendQueue.framesSent,
      bytesSent: sendQueue.bytesSent,
      framesReceived: demux.received,
      bytesReceived,
      unclaimed: demux.unclaimed,
      reconnects,
      queuedBytes: sendQueue.queuedBytes,
      unrestored: topics.unrestored,
    };
  }

  /**
   * Writes the send queue, within the client's timeout, and disconnects. The name is free when the promise
   * resolves. Operations that have not ended are rejected with `closed`.
   * @returns {Promise<void>}
   */
  close() {
    return this.#connection.close();
  }

  /**
   * As {@link close}, for `await using`.
   * @returns {Promise<void>}
   */
  [Symbol.asyncDispose]() {
    return this.close();
  }

  /**
   * Sends a message to one client.
   *
   * ```js
   * await client.send('plant.display', '71.5');                // queued for the display
   * await client.send('plant.display', '71.5', { qos: 'no' }); // queued here
   * ```
   * @param {string} target
   * @param {Payload} [payload]
   * @param {SendOptions} [options]
   * @returns {Promise<void>}
   * @throws {ElbusError} `disconnected`, `closed`, `timeout`, `queue-full` (real-time only), `unsendable`,
   *   `invalid-argument`; with acknowledgement also `not-registered`, `not-delivered`, `access-denied`,
   *   `refused`.
   */
  send(target, payload, options) {
    return this.#send(Op.MESSAGE, 'the target', target, '', payload, options);
  }

  /**
   * Sends a message to all clients whose name matches a mask: `?` matches one part of a name, `*` all
   * remaining parts.
   * @param {string} mask
   * @param {Payload} [payload]
   * @param {SendOptions} [options]
   * @returns {Promise<void>}
   * @throws {ElbusError} As {@link send}. It is not an error if no client matches.
   */
  broadcast(mask, payload, options) {
    return this.#send(Op.BROADCAST, 'the mask', mask, '', payload, options);
  }

  /**
   * Publishes to a topic.
   * @param {string} topic
   * @param {Payload} [payload]
   * @param {SendOptions} [options]
   * @returns {Promise<void>}
   * @throws {ElbusError} As {@link send}. It is not an error if the topic has no subscriber.
   */
  publish(topic, payload, options) {
    return this.#send(Op.PUBLISH, 'the topic', topic, '', payload, options);
  }

  /**
   * Publishes to the subscribers of a topic whose primary name is `receiver`.
   * @param {string} topic
   * @param {string} receiver
   * @param {Payload} [payload]
   * @param {SendOptions} [options]
   * @returns {Promise<void>}
   * @throws {ElbusError} As {@link publish}.
   */
  publishFor(topic, receiver, payload, options) {
    try {
      checkText('the receiver', receiver);
    } catch (error) {
      return Promise.reject(error);
    }
    return this.#send(Op.PUBLISH_FOR, 'the topic', topic, receiver, payload, options);
  }

  /**
   * @param {number} op
   * @param {string} what
   * @param {string} target
   * @param {string} receiver
   * @param {Payload | undefined} payload
   * @param {SendOptions | undefined} options
   * @returns {Promise<void>}
   */
  #send(op, what, target, receiver, payload, options) {
    try {
      const { qos, signal } = checkOptions(options, OPTIONS.send);
      const request = plainRequest(
        op,
        qosBits(qos),
        checkText(what, target),
        checkPayload(payload),
        receiver,
      );
      return this.#connection.operations.send(request, checkSignal(signal));
    } catch (error) {
      return Promise.reject(error);
    }
  }

  /**
   * Subscribes to one or more topic filters: `+` matches one level of a topic, `#` all remaining ones. The
   * result can be awaited, or iterated at once.
   *
   * With `reconnect` the client subscribes again after each lost connection. Without a connection this then
   * succeeds at once. Filters can begin with options as text (`$latest/sensors/#`); options in the second
   * argument are checked: the broker must know them.
   *
   * ```js
   * for await (const frame of client.subscribe(['alarm/#', 'fire'])) console.log(frame.topic, frame.text());
   * const jobs = await client.subscribe('jobs/#', { share: 'workers' });
   * ```
   * @param {string | Iterable<string>} filters
   * @param {SubscribeOptions} [options]
   * @returns {PendingSubscription}
   * @throws {ElbusError} As {@link send} with acknowledgement; `not-supported`. If the broker refuses one of
   *   the filters, the client is subscribed to none of them.
   */
  subscribe(filters, options) {
    return PendingSubscription.start(() => this.#subscribe(filters, options));
  }

  /**
   * @param {string | Iterable<string>} filters
   * @param {SubscribeOptions | undefined} options
   * @returns {Promise<Subscription>}
   */
  async #subscribe(filters, options) {
    const given = checkOptions(options, OPTIONS.subscribe);
    const prefix = optionsPrefix(given);
    const texts = checkFilters(filters).map((filter) => withOptions(prefix, filter));
    const signal = checkSignal(given.signal);
    const connection = this.#connection;
    if (prefix !== '') {
      connection.checkOpenOrReconnecting();
      const reports = await this.#features.check(optionNames(given), signal);
      if (reports) await abortable(connection.topics.requestReports(), signal);
    }
    // registered first: nothing that arrives before the acknowledgement is missed
    const inbox = connection.newInbox();
    const id = connection.demux.addSubscription(texts, inbox);
    try {
      await connection.topics.subscribe(texts, 'subscription', signal);
    } catch (error) {
      connection.demux.removeSubscription(id);
      inbox.discard();
      throw error;
    }
    return new Subscription(inbox, () => {
      const unused = connection.demux.removeSubscription(id);
      return connection.topics.unsubscribe(unused, 'subscription');
    });
  }

  /**
   * Subscribes {@link frames} to one or more topic filters. Publications that match arrive there, in order
   * with messages and broadcasts.
   * @param {string | Iterable<string>} filters
   * @param {OperationOptions} [options]
   * @returns {Promise<void>}
   * @throws {ElbusError} As {@link send} with acknowledgement. If the broker refuses one of the filters, none
   *   is added.
   */
  async addFilters(filters, options) {
    const { signal } = checkOptions(options, OPTIONS.operation);
    return this.#connection.topics.subscribe(checkFilters(filters), 'frames', checkSignal(signal));
  }

  /**
   * Reverts {@link addFilters}. A filter that a subscription uses as well stays subscribed.
   * @param {string | Iterable<string>} filters
   * @param {OperationOptions} [options]
   * @returns {Promise<void>}
   * @throws {ElbusError} As {@link addFilters}.
   */
  async removeFilters(filters, options) {
    const { signal } = checkOptions(options, OPTIONS.operation);
    return this.#connection.topics.unsubscribe(checkFilters(filters), 'frames', checkSignal(signal));
  }

  /**
   * Excludes topics: publications that match one of these filters are not delivered, even if they match a
   * subscription.
   * @param {string | Iterable<string>} filters
   * @param {OperationOptions} [options]
   * @returns {Promise<void>}
   * @throws {ElbusError} As {@link addFilters}.
   */
  async exclude(filters, options) {
    const { signal } = checkOptions(options, OPTIONS.operation);
    return this.#connection.topics.exclude(checkFilters(filters), checkSignal(signal));
  }

  /**
   * Reverts {@link exclude}.
   * @param {string | Iterable<string>} filters
   * @param {OperationOptions} [options]
   * @returns {Promise<void>}
   * @throws {ElbusError} As {@link addFilters}.
   */
  async unexclude(filters, options) {
    const { signal } = checkOptions(options, OPTIONS.operation);
    return this.#connection.topics.unexclude(checkFilters(filters), checkSignal(signal));
  }

  /**
   * Sends a ping, which the broker does not answer. The client also pings by itself; see `pingInterval`.
   * @returns {Promise<void>}
   * @throws {ElbusError} `disconnected`, `closed`.
   */
  async ping() {
    this.#connection.checkOpen();
    this.#connection.sendQueue.ping();
  }

  /**
   * Measures how long the broker takes to acknowledge an operation that changes nothing, in ms.
   * @param {OperationOptions} [options]
   * @returns {Promise<number>}
   * @throws {ElbusError} `disconnected`, `closed`, `timeout`.
   */
  async roundTrip(options) {
    const { signal } = checkOptions(options, OPTIONS.operation);
    const { clock } = this.#connection.settings;
    const start = clock.now();
    await this.#connection.operations.probe(checkSignal(signal));
    return clock.now() - start;
  }

  /**
   * Calls a method of another client and waits for its result. Parameters and result are values of msgpack;
   * without parameters pass `undefined`. Many calls can be in flight at once.
   *
   * If the target is not registered the call fails at once. If the target disconnects before it replies, the
   * call times out.
   *
   * ```js
   * const percent = await client.call('plant.lamp', 'brightness', 150);
   * ```
   * @param {string} target
   * @param {string} method
   * @param {unknown} [params]
   * @param {CallOptions} [options]
   * @returns {Promise<any>}
   * @throws {ElbusError} `rpc`: an `RpcError`, if the method returns an error; `timeout`, `conversion`, and
   *   as {@link send}.
   */
  async call(target, method, params, options) {
    const { raw, ...given } = checkOptions(options, OPTIONS.call);
    const timeout = number('timeout', given.timeout, this.#connection.settings.timeout);
    const realtime = boolean('realtime', given.realtime, false);
    const signal = checkSignal(given.signal);
    checkText('the target', target);
    checkText('the method', method);
    const bytes = encodeParams(params, boolean('raw', raw, false));
    const result = await this.#connection.operations.call(target, method, bytes, {
      timeout,
      realtime,
      signal,
    });
    if (raw) return result;
    if (result.length === 0) return undefined;
    try {
      return decode(result);
    } catch (cause) {
      const text = `the result of ${quoted(method)} of ${quoted(target)} is not msgpack: ${messageOf(cause)}`;
      throw new ElbusError('conversion', text, { cause });
    }
  }

  /**
   * Calls a method without a reply.
   * @param {string} target
   * @param {string} method
   * @param {unknown} [params]
   * @param {Call0Options} [options]
   * @returns {Promise<void>}
   * @throws {ElbusError} As {@link send}.
   */
  async call0(target, method, params, options) {
    const { qos, raw, signal } = checkOptions(options, OPTIONS.call0);
    checkText('the target', target);
    checkText('the method', method);
    const bytes = encodeParams(params, boolean('raw', raw, false));
    return this.#connection.operations.call0(target, method, bytes, qosBits(qos), checkSignal(signal));
  }

  /**
   * Sends an RPC notification.
   * @param {string} target
   * @param {Payload} [payload]
   * @param {SendOptions} [options]
   * @returns {Promise<void>}
   * @throws {ElbusError} As {@link send}.
   */
  async notify(target, payload, options) {
    const { qos, signal } = checkOptions(options, OPTIONS.send);
    const request = plainRequest(
      Op.MESSAGE,
      qosBits(qos),
      checkText('the target', target),
      checkPayload(payload),
    );
    return this.#connection.operations.send({ ...request, head: notificationHead() }, checkSignal(signal));
  }

  /**
   * Calls a method that opens a cursor: a long result that is fetched in parts. `next` is the method that
   * returns its items; the server documents both.
   *
   * ```js
   * const squares = await client.cursor('math', 'squares', 1000, 'squares.next');
   * for await (const square of squares) console.log(square);
   * ```
   * @param {string} target
   * @param {string} method
   * @param {unknown} params
   * @param {string} next
   * @param {CallOptions} [options] Without `raw`; also used for the calls of `next`.
   * @returns {Promise<Cursor>}
   * @throws {ElbusError} As {@link call}.
   */
  async cursor(target, method, params, next, options) {
    checkText('the method that returns items', next);
    const given = checkOptions(options, OPTIONS.cursor);
    const token = Cursor.tokenOf(await this.call(target, method, params, given), method);
    const { signal: _, ...later } = given;
    return new Cursor(
      (nextParams, signal) =>
        this.call(target, next, nextParams, signal === undefined ? later : { ...later, signal }),
      token,
    );
  }

  /**
   * Serves calls, and notifications if there is a function for them; they no longer arrive at {@link frames}.
   *
   * The functions of `methods` are its methods: they get the parameters and a {@link
   * import('./rpc/methods.js').Call}, and return the result, or a promise of it. `undefined` is sent as nil.
   * An `RpcError` that a method throws is sent to the caller, any other error as an internal error with its
   * message. Up to 1,024 calls run concurrently. If `methods` is a function, it answers the calls of all
   * methods. An instance of a class serves the functions of its own class, without those that it inherits and
   * those whose name begins with `_`.
   *
   * ```js
   * const server = client.serve({
   *   brightness: (percent) => Math.min(percent, 100),
   *   async whoami(_, call) { return call.sender; },
   * });
   * ```
   * @param {object} methods
   * @param {import('./rpc/serve.js').ServeOptions} [options]
   * @returns {ServeHandle}
   * @throws {ElbusError} `already-serving`, `invalid-argument`.
   */
  serve(methods, options) {
    if ((typeof methods !== 'object' && typeof methods !== 'function') || methods === null) {
      throw invalidArgument('the methods', methods, 'an object whose functions are methods');
    }
    const given = checkOptions(options, OPTIONS.serve);
    if (given.notification !== undefined && typeof given.notification !== 'function') {
      throw invalidArgument('the option notification', given.notification, 'a function');
    }
    const connection = this.#connection;
    const { demux, settings } = connection;
    const inbox = this.#queuedCalls ?? connection.newInbox('block');
    if (this.#queuedCalls === undefined && !demux.canServe) {
      const remedy = 'stop its server first, or use a secondary client';
      throw new ElbusError('already-serving', `the client already serves calls: ${remedy}`);
    }
    const server = new Server(connection, inbox, methods, given);
    if (this.#queuedCalls === undefined) demux.startServing(inbox);
    this.#queuedCalls = undefined;
    return new ServeHandle(async () => {
      demux.stopServing(inbox);
      /** @type {unknown} */
      let timer;
      const timeout = new Promise((/** @type {(value: void) => void} */ resolve) => {
        timer = settings.clock.setTimer(resolve, settings.timeout);
      });
      await Promise.race([server.finished(), timeout]);
      settings.clock.clearTimer(timer);
    });
  }

  /** The queue of calls that arrive before they are served.
   * @type {import('./receive/inbox.js').Inbox | undefined} */
  #queuedCalls = undefined;

  #queueCalls() {
    this.#queuedCalls = this.#connection.newInbox('block');
    this.#connection.demux.startServing(this.#queuedCalls);
  }

  /**
   * Connects a secondary client: another connection with the name `NAME%%0`, `NAME%%1` and so on, and the
   * settings of this client. The broker disconnects it when this client disconnects.
   * @param {OperationOptions} [options]
   * @returns {Promise<Client>}
   * @throws {ElbusError} As {@link connect}.
   */
  async secondary(options) {
    const { signal } = checkOptions(options, OPTIONS.operation);
    const name = `${primaryOf(this.name)}${SECONDARY_SEPARATOR}${this.#secondaries.count}`;
    this.#secondaries.count += 1;
    const { signal: _, ...settings } = this.#given;
    const given = signal === undefined ? settings : { ...settings, signal };
    return Client.#open(this.#connection.target, name, given, this.#seams, this.#secondaries);
  }
}
