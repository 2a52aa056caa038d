/**
 * The connection of a client, which outlives the sockets that it uses: connected, lost, connected again,
 * ended. Owns the order of these states. Operations are in `operations`, and what frames mean to their
 * consumers in `receive`.
 * @module
 */

import { abortable } from '../abort.js';
import { closed, disconnected, messageOf } from '../errors.js';
import { EventSender } from '../events.js';
import { Demux } from '../receive/demux.js';
import { Inbox } from '../receive/inbox.js';
import { PendingCalls } from '../receive/pending-calls.js';
import { ReadGate } from '../receive/read-gate.js';
import { backoffDelay } from '../settings.js';
import { DeliveryParser, FrameFault } from '../wire/delivery.js';
import { AckTable } from './acks.js';
import { KeepAlive } from './keep-alive.js';
import { Operations } from './operations.js';
import { register } from './register.js';
import { SendQueue } from './send-queue.js';
import { TopicOperations } from './topic-operations.js';

/** How long the broker can take to close a connection that the client has closed, in milliseconds. */
const CLOSE_TIMEOUT = 1000;
/** @typedef {import('../transport/transport.js').Transport} Transport */
/** @typedef {import('./register.js').Registered} Registered */

export class Connection {
  /** @type {Transport | undefined} */
  #transport;
  #keepAlive;
  #events = new EventSender();
  /** @type {'connecting' | 'connected' | 'disconnected' | 'closed'} */
  #state = 'connecting';
  /** Why there is no connection. */
  #reason = /** @type {Error} */ (disconnected('not yet connected'));
  #attempt = 0;
  /** Cancels the attempt or the delay before it. */
  #cancelAttempt = () => {};
  #closing = false;
  /** @type {Promise<void> | undefined} */
  #closed;
  #reads = 0;
  /** @type {{ resolve: () => void, reject: (error: Error) => void }[]} */
  #awaitConnected = [];
  /** @type {(() => void)[]} */
  #awaitEnd = [];

  reconnects = 0;
  bytesReceived = 0;
  /** Counts the connections, to tell the state of an earlier one from that of this one. */
  epoch = 0;

  /**
   * @param {import('../address.js').Address} address
   * @param {string} name
   * @param {import('../settings.js').Settings} settings
   */
  constructor(address, name, settings) {
    this.target = address;
    this.name = name;
    this.settings = settings;
    const { clock, timeout, holdLimit, queueBytes, overflow } = settings;
    this.acks = new AckTable(clock, timeout);
    this.sendQueue = new SendQueue(settings, address.text);
    this.calls = new PendingCalls(clock);
    this.gate = new ReadGate(clock, holdLimit, () => this.acks.size + this.calls.size > 0);
    this.frames = new Inbox(queueBytes, overflow, this.gate);
    // nothing waits for a consumer that may not exist
    this.frames.claimed = false;
    this.demux = new Demux(this.frames, this.calls);
    this.operations = new Operations(this);
    this.topics = new TopicOperations(this);
    this.#keepAlive = new KeepAlive(settings, {
      reads: () => this.#reads,
      paused: () => this.gate.paused,
      pingIfIdle: () => this.#pingIfIdle(),
      probe: () => this.operations.probeUnawaited(),
      silent: (seconds) => this.#lost(disconnected(`the broker has been silent for ${seconds.toFixed(1)} s`)),
    });
  }

  /** @returns {string} */
  get address() {
    return this.target.text;
  }

  /** @returns {boolean} */
  get isConnected() {
    return this.#state === 'connected';
  }

  /**
   * Whether the client connects again when its connection is lost.
   * @returns {boolean}
   */
  get reconnecting() {
    return this.settings.reconnect !== undefined && !this.#closing && this.#state !== 'closed';
  }

  /**
   * Connects for the first time.
   * @param {AbortSignal | undefined} signal
   * @returns {Promise<void>}
   */
  open(signal) {
    /** @type {() => void} */
    let cancel = () => {};
    const opened = new Promise((/** @type {(value: void) => void} */ resolve, reject) => {
      const done = (/** @type {Registered} */ registered) => {
        this.#attach(registered);
        resolve();
      };
      cancel = register(this.target, this.name, this.settings, done, reject);
    });
    return abortable(opened, signal, () => {
      // the client can have registered in this round of the event loop
      if (this.#state === 'connected') void this.close();
      else cancel();
    });
  }

  /**
   * Returns a new inbox with the client's limit and overflow policy.
   * @param {import('../settings.js').Overflow} [overflow]
   * @returns {Inbox}
   */
  newInbox(overflow = this.settings.overflow) {
    return new Inbox(this.settings.queueBytes, overflow, this.gate);
  }

  /** @returns {import('../events.js').ConnectionEvents} */
  listen() {
    return this.#events.listen();
  }

  /**
   * Waits for a connection.
   * @returns {Promise<void>}
   */
  connected() {
    if (this.#state === 'connected') return Promise.resolve();
    if (this.#state === 'closed') return Promise.reject(this.#reason);
    return new Promise((resolve, reject) => this.#awaitConnected.push({ resolve, reject }));
  }

  /**
   * Starts using a connection: restores subscriptions and exclusions, which take effect before any later
   * operation.
   * @param {Registered} registered
   */
  #attach({ transport, events, rest }) {
    this.#transport = transport;
    this.#attempt = 0;
    this.epoch += 1;
    this.#cancelAttempt = () => {};
    const parser = new DeliveryParser(DeliveryParser.bodyLimit(this.settings.maxFrameBytes), {
      ack: (id, code) => this.acks.complete(id, code),
      frame: (frame) => this.demux.deliver(frame),
    });
    events.data = (chunk) => this.#data(parser, chunk);
    events.drain = () => this.sendQueue.drain();
    events.end = (error) => this.#ended(error);
    this.sendQueue.attach(transport);
    this.gate.attach(transport);
    if (this.epoch > 1) this.topics.restore();
    this.#keepAlive.start();
    this.#state = 'connected';
    for (const { resolve } of this.#awaitConnected.splice(0)) resolve();
    this.#events.emit({ type: 'connected' });
    if (rest.length > 0) this.#data(parser, rest);
  }

  /**
   * @param {DeliveryParser} parser
   * @param {Uint8Array} chunk
   */
  #data(parser, chunk) {
    this.#reads += 1;
    this.bytesReceived += chunk.length;
    this.#keepAlive.received();
    try {
      parser.push(chunk);
    } catch (error) {
      const text =
        error instanceof FrameFault
          ? 'the broker sent an invalid frame'
          : 'a received frame cannot be handled';
      this.#lost(disconnected(`${text}: ${messageOf(error)}`, error));
      return;
    }
    this.gate.update();
  }

  /** @param {Error | undefined} error */
  #ended(error) {
    if (error === undefined) this.#lost(disconnected('the broker has closed the connection'));
    else this.#lost(disconnected(messageOf(error), error));
  }

  /**
   * Stops using the connection. Operations in flight fail.
   * @param {Error} reason
   */
  #lost(reason) {
    if (this.#state !== 'connected') return;
    this.#detach();
    if (this.#closing) {
      this.#end(closed());
      return;
    }
    this.#reason = reason;
    this.#state = 'disconnected';
    this.#failAll(reason);
    this.#events.emit({ type: 'disconnected', reason: reasonOf(reason) });
    this.#retry(reason);
  }

  #detach() {
    this.#keepAlive.stop();
    this.gate.detach();
    this.#transport?.destroy();
    this.#transport = undefined;
  }

  /** @param {Error} reason */
  #failAll(reason) {
    this.sendQueue.detach(reason);
    this.acks.failAll(reason);
    this.calls.failAll(reason);
  }

  /**
   * Tries to connect again, unless the attempts are used up.
   * @param {Error} reason
   */
  #retry(reason) {
    const { reconnect, clock } = this.settings;
    this.#attempt += 1;
    const after = reconnect === undefined ? undefined : backoffDelay(reconnect, this.#attempt);
    if (after === undefined) {
      this.#end(reason);
      return;
    }
    this.#events.emit({ type: 'retrying', attempt: this.#attempt, after, reason: reasonOf(reason) });
    const timer = clock.setTimer(() => {
      const done = (/** @type {Registered} */ registered) => {
        this.reconnects += 1;
        this.#attach(registered);
      };
      this.#cancelAttempt = register(this.target, this.name, this.settings, done, (error) =>
        this.#retry(error),
      );
    }, after);
    this.#cancelAttempt = () => clock.clearTimer(timer);
  }

  /**
   * Ends the client.
   * @param {Error} reason
   */
  #end(reason) {
    this.#reason = reason;
    this.#state = 'closed';
    this.#failAll(reason);
    this.demux.end();
    for (const { reject } of this.#awaitConnected.splice(0)) reject(reason);
    this.#events.emit({ type: 'closed' });
    for (const resolve of this.#awaitEnd.splice(0)) resolve();
  }

  /**
   * Writes the send queue, within the timeout, and disconnects. The name is free when the promise resolves.
   * @returns {Promise<void>}
   */
  close() {
    this.#closed ??= this.#close();
    return this.#closed;
  }

  async #close() {
    this.#closing = true;
    if (this.#state === 'closed') {
      this.#reason = closed();
      this.sendQueue.detach(this.#reason);
      return;
    }
    const ended = new Promise((/** @type {(value: void) => void} */ resolve) => this.#awaitEnd.push(resolve));
    const transport = this.#transport;
    if (transport === undefined) {
      this.#cancelAttempt();
      this.#end(closed());
      return;
    }
    const { clock, timeout } = this.settings;
    // a broker that does not read delays the end only by the timeout
    const finish = () => {
      if (this.#transport !== transport) return;
      this.#detach();
      this.#end(closed());
    };
    let timer = clock.setTimer(finish, timeout);
    void this.sendQueue.drained().then(async () => {
      if (this.#transport !== transport) return;
      clock.clearTimer(timer);
      timer = clock.setTimer(finish, CLOSE_TIMEOUT);
      transport.resume();
      // the outcomes of what was written are still on their way
      if (!transport.canHalfClose) await this.acks.idle();
      if (this.#transport === transport) transport.end();
    });
    await ended;
    clock.clearTimer(timer);
  }

  #pingIfIdle() {
    if (!this.sendQueue.sentSincePing) this.sendQueue.ping();
    this.sendQueue.sentSincePing = false;
  }

  /**
   * Throws if operations cannot be started.
   */
  checkOpen() {
    if (this.#closing) throw closed();
    this.sendQueue.checkConnected();
  }

  /**
   * Throws if operations that are remembered for the next connection cannot be started.
   */
  checkOpenOrReconnecting() {
    if (!this.reconnecting) this.checkOpen();
  }
}

/**
 * Returns the text of an error without the prefix that all lost connections have.
 * @param {Error} error
 * @returns {string}
 */
function reasonOf(error) {
  return error.message.replace(/^not connected: /, '');
}
