// The clients of the broker with their rates, computed from consecutive answers of client.list.

import { toNumber } from '../format/numbers.js';

/** Clients that the page keeps at most. */
const MAX_CLIENTS = 50_000;

/**
 * A client. Rates are per second.
 * @typedef {object} ClientRow
 * @property {string} name
 * @property {string} kind
 * @property {string} source
 * @property {string} port
 * @property {number} instances
 * @property {number} queue Queued frames.
 * @property {number} sends
 * @property {number} receives
 * @property {number} sendsBytes
 * @property {number} receivesBytes
 * @property {number[]} totals Frames and bytes from and to the client.
 * @property {number} seen The number of the answer that had it last.
 */

/** Rows by name. A row is changed in place, so that views can keep it. */
export class ClientTable {
  /** @type {Map<string, ClientRow>} */
  #rows = new Map();
  #answers = 0;
  #at = 0;
  /** How many clients are left out because there are too many. */
  omitted = 0;

  /** @returns {ClientRow[]} */
  get rows() {
    return [...this.#rows.values()];
  }

  /** @param {string} name */
  get(name) {
    return this.#rows.get(name);
  }

  /**
   * Takes an answer of `client.list`.
   * @param {any} answer
   * @param {number} now Milliseconds of any clock.
   */
  update(answer, now) {
    const list = Array.isArray(answer?.clients) ? answer.clients : [];
    const seconds = (now - this.#at) / 1000;
    const isFirst = this.#answers === 0;
    this.#answers += 1;
    this.#at = now;
    this.omitted = Math.max(0, list.length - MAX_CLIENTS);
    for (const client of this.omitted > 0 ? list.slice(0, MAX_CLIENTS) : list)
      if (typeof client?.name === 'string') this.#updateRow(client, isFirst ? 0 : seconds);
    for (const [name, row] of this.#rows) if (row.seen !== this.#answers) this.#rows.delete(name);
  }

  /**
   * @param {any} client
   * @param {number} seconds Since the last answer; 0 if there is none.
   */
  #updateRow(client, seconds) {
    const totals = [client.r_frames, client.r_bytes, client.w_frames, client.w_bytes].map(toNumber);
    const { name } = client;
    let row = this.#rows.get(name);
    if (row === undefined) {
      const none = {
        sends: 0,
        receives: 0,
        sendsBytes: 0,
        receivesBytes: 0,
        queue: 0,
        instances: 1,
        seen: 0,
      };
      row = { name, kind: '', source: '', port: '', ...none, totals };
      this.#rows.set(name, row);
    }
    const before = row.totals;
    // a smaller total belongs to another client of the same name
    const per = (/** @type {number} */ at) =>
      seconds > 0 && totals[at] >= before[at] ? (totals[at] - before[at]) / seconds : 0;
    row.sends = per(0);
    row.sendsBytes = per(1);
    row.receives = per(2);
    row.receivesBytes = per(3);
    row.totals = totals;
    row.kind = String(client.kind ?? '');
    row.source = typeof client.source === 'string' ? client.source : '';
    row.port = typeof client.port === 'string' ? client.port : '';
    row.queue = toNumber(client.queue);
    row.instances = toNumber(client.instances);
    row.seen = this.#answers;
  }
}
