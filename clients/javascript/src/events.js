/**
 * Changes of a connection, queued for listeners. Takes no action.
 * @module
 */

/**
 * A change of the connection:
 *
 * - `connected`: registered again; subscriptions and exclusions take effect before any operation that
 *   follows.
 * - `disconnected`: the connection was lost.
 * - `retrying`: attempt number `attempt` follows after `after` milliseconds.
 * - `closed`: the client has ended; no event follows.
 * - `missed`: this many events were dropped, because the listener is slow.
 * @typedef {{ type: 'connected' }
 * | { type: 'disconnected', reason: string } | { type: 'retrying', attempt: number, after: number, reason:
 * string } | { type: 'closed' } | { type: 'missed', count: number }} ConnectionEvent
 */

/** Events that are queued for a slow listener. */
const QUEUED_EVENTS = 64;

/**
 * The changes of a connection since `client.events()` was called.
 *
 * ```js
 * for await (const event of client.events()) console.log(event.type);
 * ```
 * @implements {AsyncIterableIterator<ConnectionEvent>}
 */
export class ConnectionEvents {
  /** @type {ConnectionEvent[]} */
  #queue = [];
  #missed = 0;
  #ended = false;
  /** @type {((result: IteratorResult<ConnectionEvent, undefined>) => void)[]} */
  #waiters = [];
  /** @type {(events: ConnectionEvents) => void} */
  #forget;

  /**
   * Listeners are created by the client.
   * @internal
   * @param {(events: ConnectionEvents) => void} forget
   */
  constructor(forget) {
    this.#forget = forget;
  }

  /**
   * Returns the next event; done after `closed`.
   * @returns {Promise<IteratorResult<ConnectionEvent, undefined>>}
   */
  next() {
    if (this.#missed > 0) {
      const count = this.#missed;
      this.#missed = 0;
      return Promise.resolve({ value: { type: 'missed', count }, done: false });
    }
    const value = this.#queue.shift();
    if (value !== undefined) return Promise.resolve({ value, done: false });
    if (this.#ended) return Promise.resolve({ value: undefined, done: true });
    return new Promise((resolve) => this.#waiters.push(resolve));
  }

  /**
   * Stops listening.
   * @returns {Promise<IteratorResult<ConnectionEvent, undefined>>}
   */
  return() {
    this.#queue = [];
    this.#missed = 0;
    this.end();
    this.#forget(this);
    return Promise.resolve({ value: undefined, done: true });
  }

  /** @returns {this} */
  [Symbol.asyncIterator]() {
    return this;
  }

  /**
   * @internal
   * @param {ConnectionEvent} event
   */
  push(event) {
    if (this.#ended) return;
    const waiter = this.#waiters.shift();
    if (waiter !== undefined) {
      waiter({ value: event, done: false });
    } else {
      this.#queue.push(event);
      if (this.#queue.length > QUEUED_EVENTS) {
        this.#queue.shift();
        this.#missed += 1;
      }
    }
  }

  /** @internal */
  end() {
    this.#ended = true;
    for (const waiter of this.#waiters.splice(0)) waiter({ value: undefined, done: true });
  }
}

/** Sends events to all listeners. */
export class EventSender {
  /** @type {Set<ConnectionEvents>} */
  #listeners = new Set();
  #ended = false;

  /** @returns {ConnectionEvents} */
  listen() {
    const listener = new ConnectionEvents((events) => this.#listeners.delete(events));
    if (this.#ended) listener.end();
    else this.#listeners.add(listener);
    return listener;
  }

  /** @param {ConnectionEvent} event */
  emit(event) {
    for (const listener of this.#listeners) listener.push(event);
    if (event.type !== 'closed') return;
    this.#ended = true;
    for (const listener of this.#listeners) listener.end();
    this.#listeners.clear();
  }
}
