// The log of one plugin instance: its lines for administrators, else its events. Bounded.

import { toNumber } from '../format/numbers.js';
import { EventLog } from './event-log.js';

const MAX_LINES = 300;
const MAX_TEXT = 1000;

/** @typedef {{ at: number, level: string, text: string }} LogLine */

/** The newest lines of an instance. */
export class PluginLog {
  /** In order. @type {LogLine[]} */
  lines = [];
  #name;
  #isAdministrator;
  #newest = 0;
  #events = new EventLog();
  #isFetching = false;

  /**
   * @param {string} name
   * @param {boolean} isAdministrator Whether the page may read the log of the broker.
   */
  constructor(name, isAdministrator) {
    this.#name = name;
    this.#isAdministrator = isAdministrator;
  }

  /**
   * Fetches what is new.
   * @param {import('../bus/bus.js').Bus} bus
   * @param {AbortSignal} signal
   */
  async fetch(bus, signal) {
    if (this.#isFetching) return;
    this.#isFetching = true;
    try {
      await this.#fetch(bus, signal);
    } finally {
      this.#isFetching = false;
    }
  }

  /**
   * @param {import('../bus/bus.js').Bus} bus
   * @param {AbortSignal} signal
   */
  async #fetch(bus, signal) {
    if (!this.#isAdministrator) {
      await this.#events.fetch(bus, signal);
      const own = this.#events.events.filter(
        ({ subject, kind }) => subject === this.#name && kind !== 'connect',
      );
      this.lines = own
        .slice(-MAX_LINES)
        .map(({ at, level, kind, text }) => ({ at, level: level || kind, text }));
      return;
    }
    // with lines of the broker about the instance, which name it in a field
    const answer = await bus.call('log.recent', { after: this.#newest }, signal);
    this.#newest = toNumber(answer?.newest);
    const about = `plugin=${JSON.stringify(this.#name)}`;
    const all = Array.isArray(answer?.lines) ? answer.lines : [];
    const lines = all.filter(
      (/** @type {any} */ line) => line?.plugin === this.#name || String(line?.text).includes(about),
    );
    this.lines.push(
      ...lines.map((/** @type {any} */ line) => ({
        at: toNumber(line?.at_ms),
        level: String(line?.level ?? '').slice(0, 20),
        text: String(line?.text ?? '').slice(0, MAX_TEXT),
      })),
    );
    this.lines.splice(0, this.lines.length - MAX_LINES);
  }
}
