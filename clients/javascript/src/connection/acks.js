/**
 * Operations that wait for their acknowledgement. Owns operation ids and timeouts; never sends.
 *
 * Ids count up and a broker acknowledges in order, so that an entry is found by its distance from the oldest
 * one.
 * @module
 */

import { Deque } from '../deque.js';

/**
 * An operation that waits.
 * @typedef {object} PendingAck
 * @property {(code: number) => void} acked
 * @property {(error: Error) => void} lost The connection was lost.
 * @property {() => void} expired The acknowledgement has not come in time.
 * @property {number} deadline Set by the table.
 */

export class AckTable {
  /** @type {Deque<PendingAck | undefined>} */
  #entries = new Deque();
  /** The id of the oldest entry. */
  #first = 1;
  #pending = 0;
  #clock;
  #timeout;
  /** @type {unknown} */
  #timer = undefined;

  /**
   * @param {import('../clock.js').Clock} clock
   * @param {number} timeout Milliseconds.
   */
  constructor(clock, timeout) {
    this.#clock = clock;
    this.#timeout = timeout;
  }

  /** @type {(() => void)[]} */
  #idle = [];

  /**
   * Waits until no operation waits.
   * @returns {Promise<void>}
   */
  idle() {
    if (this.#pending === 0) return Promise.resolve();
    return new Promise((resolve) => this.#idle.push(resolve));
  }

  /**
   * The number of operations that wait.
   * @returns {number}
   */
  get size() {
    return this.#pending;
  }

  /**
   * The id of the next entry.
   * @returns {number}
   */
  get nextId() {
    return (this.#first + this.#entries.length) >>> 0;
  }

  /**
   * Adds an entry under {@link AckTable.nextId}.
   * @param {PendingAck} entry
   * @param {boolean} expires Whether it has a timeout.
   */
  insert(entry, expires) {
    entry.deadline = expires ? this.#clock.now() + this.#timeout : Infinity;
    this.#entries.push(entry);
    this.#pending += 1;
    if (expires) this.#timer ??= this.#clock.setTimer(() => this.#expire(), this.#timeout);
  }

  /**
   * Completes an operation. Ids that are unknown, or whose operation was abandoned, are ignored.
   * @param {number} id
   * @param {number} code
   */
  complete(id, code) {
    this.#remove(id)?.acked(code);
  }

  /**
   * Forgets an operation: its acknowledgement will be ignored.
   * @param {number} id
   */
  abandon(id) {
    this.#remove(id);
  }

  /**
   * Fails all operations.
   * @param {Error} error
   */
  failAll(error) {
    this.#first = this.nextId;
    const entries = this.#entries.clear();
    this.#pending = 0;
    this.#clock.clearTimer(this.#timer);
    this.#timer = undefined;
    for (const entry of entries) entry?.lost(error);
    this.#reportIdle();
  }

  /**
   * @param {number} id
   * @returns {PendingAck | undefined}
   */
  #remove(id) {
    const index = (id - this.#first) >>> 0;
    if (index >= this.#entries.length) return undefined;
    const entry = this.#entries.at(index);
    if (entry === undefined) return undefined;
    this.#pending -= 1;
    this.#entries.set(index, undefined);
    if (index === 0) this.#dropHead();
    if (this.#pending === 0) this.#reportIdle();
    return entry;
  }

  #reportIdle() {
    for (const resolve of this.#idle.splice(0)) resolve();
  }

  #dropHead() {
    while (this.#entries.length > 0 && this.#entries.peek() === undefined) {
      this.#entries.shift();
      this.#first = (this.#first + 1) >>> 0;
    }
  }

  /** Ends the operations whose time is over. All have the same timeout, so the oldest are first. */
  #expire() {
    this.#timer = undefined;
    const now = this.#clock.now();
    const expired = [];
    let next = Infinity;
    for (let index = 0; index < this.#entries.length; index += 1) {
      const entry = this.#entries.at(index);
      if (entry === undefined || entry.deadline === Infinity) continue;
      if (entry.deadline > now) {
        next = entry.deadline;
        break;
      }
      this.#entries.set(index, undefined);
      this.#pending -= 1;
      expired.push(entry);
    }
    this.#dropHead();
    if (next < Infinity) this.#timer = this.#clock.setTimer(() => this.#expire(), next - now);
    for (const entry of expired) entry.expired();
    if (this.#pending === 0) this.#reportIdle();
  }
}
