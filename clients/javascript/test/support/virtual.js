/**
 * Time that a test moves, and a broker in memory that a test writes and reads.
 * @module
 */

import { ElbusError } from '../../src/errors.js';
import { concat } from './bytes.js';

/** Lets everything happen that does not wait for time or for bytes. */
export async function settle() {
  for (let round = 0; round < 4; round += 1) {
    await new Promise((resolve) => {
      setImmediate(resolve);
    });
  }
}

/** @typedef {import('../../src/clock.js').Clock} Clock */
/** @typedef {import('../../src/transport/transport.js').Transport} Transport */

/** @implements {Clock} */
export class VirtualClock {
  #now = 0;
  #order = 0;
  /** @type {Map<number, { at: number, callback: () => void }>} */
  #timers = new Map();

  now = () => this.#now;

  /** The number of timers that are set. */
  get timers() {
    return this.#timers.size;
  }

  /** @type {import('../../src/clock.js').Clock['setTimer']} */
  setTimer = (callback, delay) => {
    this.#order += 1;
    this.#timers.set(this.#order, { at: this.#now + delay, callback });
    return this.#order;
  };

  /** @type {import('../../src/clock.js').Clock['clearTimer']} */
  clearTimer = (timer) => {
    this.#timers.delete(timer);
  };

  /**
   * Lets time pass while timers are late.
   * @param {number} millis
   */
  skip(millis) {
    this.#now += millis;
  }

  /**
   * Lets time pass; what is due happens in order.
   * @param {number} millis
   */
  async advance(millis) {
    const end = this.#now + millis;
    for (;;) {
      await settle();
      const due = [...this.#timers].filter(([, { at }]) => at <= end);
      due.sort(([a, { at: atA }], [b, { at: atB }]) => atA - atB || a - b);
      const next = due[0];
      if (next === undefined) break;
      const [id, { at, callback }] = next;
      this.#timers.delete(id);
      this.#now = Math.max(this.#now, at);
      callback();
    }
    this.#now = end;
    await settle();
  }
}

/**
 * The broker's side of one connection.
 * @implements {Transport}
 */
export class MemoryConnection {
  /** @type {import('../../src/transport/transport.js').TransportEvents | undefined} */
  #events;
  /** @type {Uint8Array[]} */
  #written = [];
  #over = false;

  canPause = true;
  canHalfClose = true;
  paused = false;
  /** The client has closed its side. */
  clientClosed = false;
  /** What `write` returns: whether the socket has room. */
  room = true;

  // the client's side

  /** @param {import('../../src/transport/transport.js').TransportEvents} events */
  start(events) {
    this.#events = events;
  }

  /** @param {Uint8Array} chunk */
  write(chunk) {
    if (!this.#over) this.#written.push(Uint8Array.from(chunk));
    return this.room;
  }

  pause() {
    this.paused = true;
  }

  resume() {
    this.paused = false;
  }

  end() {
    this.clientClosed = true;
  }

  destroy() {
    this.clientClosed = true;
    this.#over = true;
  }

  // the broker's side

  /** Returns what the client has written and was not returned before. */
  read() {
    return concat(...this.#written.splice(0));
  }

  /**
   * @param {Uint8Array} bytes
   * @param {number} [step] Bytes that arrive together.
   */
  send(bytes, step = bytes.length) {
    for (let at = 0; at < bytes.length; at += step) {
      if (this.#over) return;
      this.#events?.data(bytes.slice(at, at + step));
    }
  }

  /** The socket has room again. */
  drain() {
    this.room = true;
    this.#events?.drain();
  }

  /** @param {Error} [error] */
  close(error) {
    if (this.#over) return;
    this.#over = true;
    this.#events?.end(error);
  }
}

/** A broker in memory: a list of connections. */
export class MemoryBroker {
  listens = true;
  /** @type {MemoryConnection[]} */
  pending = [];

  /** @type {import('../../src/transport/transport.js').Dial} */
  dial = async (address) => {
    if (!this.listens) throw new ElbusError('no-broker', `no broker at ${address.text}`);
    const connection = new MemoryConnection();
    this.pending.push(connection);
    return connection;
  };
}
