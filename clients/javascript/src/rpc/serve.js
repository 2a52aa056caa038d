/// <reference lib="esnext.disposable" preserve="true" />
/**
 * Serves calls and notifications. Owns their order and the limit of concurrent calls; what they do is the
 * method's.
 * @module
 */

import { Deque } from '../deque.js';
import { ElbusError, RpcError, rpcCodeOf } from '../errors.js';
import { Code, Op, primaryOf, QOS_REALTIME } from '../wire/constants.js';
import { decodeRpc, errorHead, NO_REPLY, replyHead } from '../wire/rpc.js';
import { decodeText } from '../wire/text.js';
import { isThenable, methodTable, resultBytes } from './methods.js';

/** Limit of concurrent calls of one client; further ones stay queued. */
const MAX_CONCURRENT_CALLS = 1024;
/** Notifications queued for their handler before the calls behind them wait as well. */
const QUEUED_NOTIFICATIONS = 1024;

/** @typedef {import('../frame.js').Frame} Frame */
/** @typedef {import('./methods.js').Call} Call */

/**
 * A notification to this client.
 * @typedef {object} Notification
 * @property {string} sender The full name of the sender.
 * @property {Uint8Array} payload
 */

/**
 * @typedef {object} ServeOptions
 * @property {(notification: Notification) => unknown} [notification] Receives notifications: one at a time,
 *   in order. What it throws is ignored. Without it they are dropped.
 */

/**
 * Handle of a server of calls; from `client.serve`. The server ends with the client.
 */
export class ServeHandle {
  #stop;

  /**
   * @internal
   * @param {() => Promise<void>} stop
   */
  constructor(stop) {
    this.#stop = stop;
  }

  /**
   * Stops accepting calls: further ones arrive at `client.frames`. Calls that have arrived are answered.
   */
  stop() {
    void this.#stop();
  }

  /**
   * Stops accepting calls, and waits until all that have arrived are answered.
   * @returns {Promise<void>}
   */
  drain() {
    return this.#stop();
  }

  /**
   * As {@link drain}, for `await using`.
   * @returns {Promise<void>}
   */
  [Symbol.asyncDispose]() {
    return this.#stop();
  }
}

/** A server of calls. */
export class Server {
  #connection;
  #inbox;
  /** @type {(params: Uint8Array, call: Call) => unknown} */
  #answer;
  #notification;
  #active = 0;
  /** @type {(() => void) | undefined} */
  #slotFreed;
  /** @type {Deque<Notification>} */
  #notifications = new Deque();
  #notifying = false;
  /** @type {Promise<void>} */
  #ended;
  /** @type {(() => void) | undefined} */
  #idle;

  /**
   * @param {import('../connection/connection.js').Connection} connection
   * @param {import('../receive/inbox.js').Inbox} inbox
   * @param {object} methods
   * @param {ServeOptions} options
   */
  constructor(connection, inbox, methods, options) {
    this.#connection = connection;
    this.#inbox = inbox;
    this.#answer = methodTable(methods);
    this.#notification = options.notification;
    this.#ended = this.#run();
  }

  /**
   * Waits until everything that has arrived is handled, after the inbox has ended.
   * @returns {Promise<void>}
   */
  async finished() {
    await this.#ended;
    if (this.#active > 0 || this.#notifying)
      await new Promise((/** @type {(value: void) => void} */ resolve) => {
        this.#idle = resolve;
      });
  }

  async #run() {
    for (;;) {
      const { value: frame, done } = await this.#inbox.next();
      if (done) return;
      const message = decodeRpc(frame.payload);
      if (typeof message === 'string') continue; // the demux delivers none
      if (message.kind === 'notification') {
        this.#notify({ sender: frame.sender, payload: message.payload });
      } else if (message.kind === 'request') {
        this.#call(frame, message.id, message.method, message.params);
      }
      while (this.#active >= MAX_CONCURRENT_CALLS || this.#notifications.length >= QUEUED_NOTIFICATIONS) {
        await new Promise((/** @type {(value: void) => void} */ resolve) => {
          this.#slotFreed = resolve;
        });
      }
    }
  }

  #freeSlot() {
    const freed = this.#slotFreed;
    this.#slotFreed = undefined;
    freed?.();
    if (this.#active === 0 && !this.#notifying) this.#idle?.();
  }

  /**
   * @param {Frame} frame
   * @param {number} id
   * @param {Uint8Array} name
   * @param {Uint8Array} params
   */
  #call(frame, id, name, params) {
    const { sender, realtime } = frame;
    const method = decodeText(name);
    if (method === undefined) {
      this.#reply(sender, realtime, id, new RpcError(rpcCodeOf(Code.BAD_DATA)));
      return;
    }
    const primarySender = primaryOf(sender);
    const call = { sender, primarySender, method, params, realtime, wantsReply: id !== NO_REPLY };
    /** @type {unknown} */
    let outcome;
    let isPromise = false;
    try {
      outcome = this.#answer(params, call);
      isPromise = isThenable(outcome); // runs code of the method as well
    } catch (error) {
      outcome = RpcError.from(error);
    }
    if (!isPromise) {
      this.#finish(sender, realtime, id, outcome);
      return;
    }
    this.#active += 1;
    Promise.resolve(outcome)
      .catch((error) => RpcError.from(error))
      .then((result) => {
        this.#finish(sender, realtime, id, result);
        this.#active -= 1;
        this.#freeSlot();
      });
  }

  /**
   * @param {string} caller
   * @param {boolean} realtime
   * @param {number} id
   * @param {unknown} outcome
   */
  #finish(caller, realtime, id, outcome) {
    if (id === NO_REPLY) return;
    this.#reply(caller, realtime, id, outcome instanceof RpcError ? outcome : resultBytes(outcome));
  }

  /**
   * @param {string} target
   * @param {boolean} realtime
   * @param {number} id
   * @param {Uint8Array | RpcError} outcome
   */
  #reply(target, realtime, id, outcome) {
    if (id === NO_REPLY) return;
    const isError = outcome instanceof RpcError;
    const head = isError ? errorHead(id, outcome.code) : replyHead(id);
    const payload = isError ? outcome.data : outcome;
    const qos = realtime ? QOS_REALTIME : 0;
    const sent = this.#connection.operations.send({
      op: Op.MESSAGE,
      qos,
      target,
      receiver: '',
      head,
      payload,
    });
    sent.catch((error) => {
      // a lost connection is reported elsewhere; a result that is too long is reported to the caller
      const tooLong = error instanceof ElbusError && error.kind === 'unsendable' && !isError;
      if (tooLong)
        this.#reply(target, realtime, id, RpcError.internal(`the result cannot be sent: ${error.message}`));
    });
  }

  /** @param {Notification} notification */
  #notify(notification) {
    if (this.#notification === undefined) return;
    this.#notifications.push(notification);
    if (!this.#notifying) void this.#handleNotifications(this.#notification);
  }

  /** @param {(notification: Notification) => unknown} handler */
  async #handleNotifications(handler) {
    this.#notifying = true;
    for (;;) {
      const notification = this.#notifications.shift();
      if (notification === undefined) break;
      try {
        await handler(notification);
      } catch {
        // nobody waits for the outcome of a notification
      }
      this.#freeSlot();
    }
    this.#notifying = false;
    this.#freeSlot();
  }
}
