// What client.info says about clients, fetched for those that are visible. Bounded in number and concurrency.

/** Clients whose details are kept. */
const MAX_KEPT = 1000;
/** Details older than this are fetched again, in milliseconds. */
const FRESH = 10_000;
const CONCURRENT = 4;

/** @typedef {{ at: number, info: any }} Kept */

/** Fetches and keeps details of clients. */
export class ClientDetails {
  /** @type {Map<string, Kept>} */
  #kept = new Map();
  /** @type {string[]} */
  #wanted = [];
  #running = 0;
  #bus;
  #signal;
  #changed;

  /**
   * @param {import('../bus/bus.js').Bus} bus
   * @param {AbortSignal} signal
   * @param {() => void} changed Called after an answer.
   */
  constructor(bus, signal, changed) {
    this.#bus = bus;
    this.#signal = signal;
    this.#changed = changed;
  }

  /**
   * Returns the details of a client if they are known.
   * @param {string} name
   */
  get(name) {
    return this.#kept.get(name)?.info;
  }

  /**
   * Requests the details of these clients instead of others that were requested before.
   * @param {string[]} names
   */
  want(names) {
    const now = performance.now();
    this.#wanted = names.filter((name) => now - (this.#kept.get(name)?.at ?? -Infinity) > FRESH);
    while (this.#running < CONCURRENT && this.#wanted.length > 0) this.#run();
  }

  async #run() {
    this.#running += 1;
    for (let name = this.#wanted.shift(); name !== undefined; name = this.#wanted.shift()) {
      if (this.#signal.aborted) break;
      // a client that has left has no details
      const info = await this.#bus.call('client.info', { name }, this.#signal).catch(() => undefined);
      this.#kept.delete(name);
      this.#kept.set(name, { at: performance.now(), info });
      for (const oldest of this.#kept.keys()) {
        if (this.#kept.size <= MAX_KEPT) break;
        this.#kept.delete(oldest);
      }
      this.#changed();
    }
    this.#running -= 1;
  }
}
