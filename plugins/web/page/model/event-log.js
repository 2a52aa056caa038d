// The events of web.events, fetched piece by piece. Bounded in number and length.

import { toNumber } from '../format/numbers.js';

/** Events that are kept. */
const MAX_EVENTS = 2000;
const MAX_TEXT = 1000;

/**
 * @typedef {{ number: number, at: number, kind: string, level: string, subject: string, text: string }}
 *   BusEvent
 */

/** The newest events. */
export class EventLog {
  /** In order. @type {BusEvent[]} */
  events = [];
  /** Events that the page has not received, or no longer keeps. */
  missed = 0;
  #newest = 0;

  /**
   * Fetches what is new. Returns whether there is something.
   * @param {import('../bus/bus.js').Bus} bus
   * @param {AbortSignal} signal
   */
  async fetch(bus, signal) {
    const answer = await bus.call('web.events', { after: this.#newest }, signal);
    const newest = toNumber(answer?.newest);
    if (newest < this.#newest) this.events = []; // the plugin has restarted
    this.#newest = newest;
    this.missed += toNumber(answer?.missed);
    const list = Array.isArray(answer?.events) ? answer.events.slice(-MAX_EVENTS) : [];
    this.events.push(...list.map(readEvent));
    this.missed += Math.max(0, this.events.length - MAX_EVENTS);
    this.events.splice(0, this.events.length - MAX_EVENTS);
    return list.length > 0;
  }
}

/**
 * @param {any} event
 * @returns {BusEvent}
 */
function readEvent(event) {
  const text = (/** @type {unknown} */ value) => (typeof value === 'string' ? value.slice(0, MAX_TEXT) : '');
  return {
    number: toNumber(event?.number),
    at: toNumber(event?.at_ms),
    kind: text(event?.kind),
    level: text(event?.level),
    subject: text(event?.subject),
    text: text(event?.text),
  };
}
