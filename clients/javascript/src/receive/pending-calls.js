/**
 * Calls that wait for their reply. Owns call ids, timeouts and outcomes; never sends.
 * @module
 */

import { fromCode } from '../errors.js';
import { NO_REPLY } from '../wire/rpc.js';

/**
 * @typedef {object} PendingCall
 * @property {string} target
 * @property {(result: Uint8Array) => void} resolve
 * @property {(error: Error) => void} reject
 * @property {unknown} timer
 * @property {() => void} settled Called once, before the outcome.
 */

export class PendingCalls {
  /** @type {Map<number, PendingCall>} */
  #calls = new Map();
  #lastId = NO_REPLY;
  /** The ids have wrapped around: all of them have been issued. */
  #wrapped = false;
  #clock;

  /** @param {import('../clock.js').Clock} clock */
  constructor(clock) {
    this.#clock = clock;
  }

  /** @returns {number} */
  get size() {
    return this.#calls.size;
  }

  /**
   * Returns a new id.
   * @returns {number}
   */
  issueId() {
    do {
      this.#lastId = (this.#lastId + 1) >>> 0;
      if (this.#lastId === NO_REPLY) this.#wrapped = true;
    } while (this.#lastId === NO_REPLY || this.#calls.has(this.#lastId));
    return this.#lastId;
  }

  /**
   * Adds a call. The returned promise settles with its outcome.
   * @param {number} id
   * @param {string} target
   * @param {number} timeout Milliseconds.
   * @param {() => Error} timedOut
   * @param {() => void} settled
   * @returns {Promise<Uint8Array>}
   */
  add(id, target, timeout, timedOut, settled) {
    return new Promise((resolve, reject) => {
      const timer =
        timeout === Infinity ? undefined : this.#clock.setTimer(() => this.fail(id, timedOut()), timeout);
      this.#calls.set(id, { target, resolve, reject, timer, settled });
    });
  }

  /**
   * Completes a call with a reply. Returns `false` if no call with this id to this sender is pending.
   * @param {number} id
   * @param {string} sender
   * @param {Uint8Array | Error} outcome
   * @returns {boolean}
   */
  complete(id, sender, outcome) {
    const call = this.#calls.get(id);
    if (call === undefined || call.target !== sender) return false;
    this.#settle(id, call);
    if (outcome instanceof Error) call.reject(outcome);
    else call.resolve(outcome);
    return true;
  }

  /**
   * Fails a call.
   * @param {number} id
   * @param {Error} error
   */
  fail(id, error) {
    const call = this.#calls.get(id);
    if (call === undefined) return;
    this.#settle(id, call);
    call.reject(error);
  }

  /**
   * Fails a call that the broker has not delivered.
   * @param {number} id
   * @param {number} code
   */
  refuse(id, code) {
    const call = this.#calls.get(id);
    if (call !== undefined) this.fail(id, fromCode(code, 'call to', call.target));
  }

  /**
   * Fails all calls.
   * @param {Error} error
   */
  failAll(error) {
    for (const id of [...this.#calls.keys()]) this.fail(id, error);
  }

  /**
   * Returns whether an id has been issued before.
   * @param {number} id
   * @returns {boolean}
   */
  wasIssued(id) {
    return id !== NO_REPLY && (this.#wrapped || id <= this.#lastId);
  }

  /**
   * @param {number} id
   * @param {PendingCall} call
   */
  #settle(id, call) {
    this.#calls.delete(id);
    this.#clock.clearTimer(call.timer);
    call.settled();
  }
}
