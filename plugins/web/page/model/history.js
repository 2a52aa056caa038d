// The history of web.history, fetched piece by piece. Answers are checked: times and series have the same
// length.

import { toNumber } from '../format/numbers.js';

/** Values of one series that are kept: a quarter of an hour of seconds. */
const MAX_VALUES = 900;
const MAX_SERIES = 64;

/** The values of the last 15 minutes. */
export class History {
  /** Unix times in milliseconds. */
  times = new Float64Array();
  /** @type {Map<string, (number | null)[]>} */
  #series = new Map();
  #newest = 0;

  /**
   * Returns the values of a series, as many as there are times.
   * @param {string} name
   * @returns {(number | null)[]}
   */
  series(name) {
    return this.#series.get(name) ?? Array(this.times.length).fill(null);
  }

  /**
   * Fetches what is new.
   * @param {import('../bus/bus.js').Bus} bus
   * @param {AbortSignal} signal
   */
  async fetch(bus, signal) {
    const answer = await bus.call('web.history', { after: this.#newest }, signal);
    // the plugin has restarted: it numbers from the beginning
    if (toNumber(answer?.newest) < this.#newest) this.#series.clear();
    this.#newest = toNumber(answer?.newest);
    this.#add(typeof answer?.series === 'object' && answer.series !== null ? answer.series : {});
    this.#setTimes(toNumber(answer?.newest_ms), Math.max(toNumber(answer?.interval_ms), 1));
  }

  /** @param {object} given */
  #add(given) {
    const entries = Object.entries(given)
      .slice(0, MAX_SERIES)
      .filter(([, values]) => Array.isArray(values));
    const added = Math.max(0, ...entries.map(([, values]) => Math.min(values.length, MAX_VALUES)));
    const length = Math.min(MAX_VALUES, added + Math.max(0, ...lengths(this.#series)));
    /** @type {Map<string, (number | null)[]>} */
    const next = new Map();
    for (const name of new Set([...this.#series.keys(), ...entries.map(([name]) => name)])) {
      if (next.size >= MAX_SERIES) break;
      const values = entries.find(([other]) => other === name)?.[1] ?? [];
      const fresh = values.slice(-MAX_VALUES).map(readValue);
      const all = [...(this.#series.get(name) ?? []), ...Array(added - fresh.length).fill(null), ...fresh];
      next.set(name, [
        ...Array(Math.max(0, length - all.length)).fill(null),
        ...all.slice(-length || all.length),
      ]);
    }
    this.#series = next;
  }

  /**
   * @param {number} newest
   * @param {number} interval
   */
  #setTimes(newest, interval) {
    const length = Math.max(0, ...lengths(this.#series));
    this.times = Float64Array.from({ length }, (_, index) => newest - (length - 1 - index) * interval);
  }
}

/** @param {Map<string, unknown[]>} series */
function lengths(series) {
  return Array.from(series.values(), (values) => values.length);
}

/** @param {unknown} value */
function readValue(value) {
  return value === null ? null : toNumber(value);
}
