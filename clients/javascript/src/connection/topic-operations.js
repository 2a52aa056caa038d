/**
 * Performs topic operations and keeps the wanted filters consistent with the broker's. Never the public
 * interface.
 * @module
 */

import { ElbusError } from '../errors.js';
import { Code, MISSED_TOPIC, Op } from '../wire/constants.js';
import { matchedPart } from '../wire/filter.js';
import { topicMatches } from '../wire/topic.js';
import { FilterState, frameGroups } from './filter-state.js';
import { operationText } from './operations.js';

/** Limit of filters that an error lists. */
const LISTED_FILTERS = 5;

/** @typedef {import('./filter-state.js').FilterUser} FilterUser */

export class TopicOperations {
  #connection;
  #state = new FilterState();
  /** Filters that the broker has refused when they were restored. */
  unrestored = 0;

  /** @param {import('./connection.js').Connection} connection */
  constructor(connection) {
    this.#connection = connection;
    connection.demux.framesFilters = {
      has: (filter) => this.#state.framesFilters().includes(filter),
      match: (topic) =>
        this.#state.framesFilters().some((filter) => topicMatches(matchedPart(filter), topic)),
    };
    connection.demux.isAlone = (topic) => this.#state.isAlone(topic);
  }

  /** The subscription to reports, once it was requested.
   * @type {Promise<void> | undefined} */
  #reports;
  /** Whether the reports are restored with the next connection. */
  #hasReports = false;

  /**
   * Subscribes to reports of what the broker drops, once. A client that may not get them is subscribed
   * without them.
   * @returns {Promise<void>}
   */
  requestReports() {
    this.#reports ??= this.#requestReports();
    return this.#reports;
  }

  async #requestReports() {
    this.#hasReports = true;
    try {
      const change = this.#queueChange(
        Op.SUBSCRIBE,
        () => [MISSED_TOPIC],
        () => {},
        undefined,
      );
      await this.#allowDisconnected(change);
    } catch {
      this.#hasReports = false;
    }
  }

  /**
   * @param {readonly string[]} filters
   * @param {FilterUser} user
   * @param {AbortSignal | undefined} signal
   * @returns {Promise<void>}
   */
  async subscribe(filters, user, signal) {
    await this.#changeOrRevert(
      Op.SUBSCRIBE,
      filters,
      (filter) => this.#state.subscribe(filter, user),
      (filter) => this.#release(filter, user),
      (added) => this.unsubscribe(added, user),
      signal,
    );
    this.#state.acknowledge(filters);
    this.#connection.demux.filtersChanged();
  }

  /**
   * Removes a use of a filter. Returns whether it was the last one.
   * @param {string} filter
   * @param {FilterUser} user
   * @returns {boolean}
   */
  #release(filter, user) {
    this.#connection.demux.filtersChanged();
    return this.#state.unsubscribe(filter, user);
  }

  /**
   * @param {readonly string[]} filters
   * @param {FilterUser} user
   * @param {AbortSignal | undefined} [signal]
   * @returns {Promise<void>}
   */
  async unsubscribe(filters, user, signal) {
    const unused = filters.filter((filter) => this.#release(filter, user));
    const change = this.#queueChange(
      Op.UNSUBSCRIBE,
      // another part of the client can have subscribed to a filter again meanwhile
      () => unused.filter((filter) => !this.#state.isSubscribed(filter)),
      () => {},
      signal,
    );
    return this.#allowDisconnected(change);
  }

  /**
   * @param {readonly string[]} filters
   * @param {AbortSignal | undefined} signal
   * @returns {Promise<void>}
   */
  exclude(filters, signal) {
    return this.#changeOrRevert(
      Op.EXCLUDE,
      filters,
      (filter) => this.#state.exclude(filter),
      (filter) => this.#state.unexclude(filter),
      (added) => this.unexclude(added, undefined),
      signal,
    );
  }

  /**
   * @param {readonly string[]} filters
   * @param {AbortSignal | undefined} signal
   * @returns {Promise<void>}
   */
  unexclude(filters, signal) {
    const remove = () => filters.forEach((filter) => this.#state.unexclude(filter));
    return this.#allowDisconnected(this.#queueChange(Op.UNEXCLUDE, () => filters, remove, signal));
  }

  /** Requests the filters that an earlier connection had, with a new one. */
  restore() {
    if (this.#hasReports) this.#restoreGroup(Op.SUBSCRIBE, [MISSED_TOPIC]);
    for (const [op, filters] of this.#state.operations()) {
      for (const group of frameGroups(filters)) this.#restoreGroup(op, group);
    }
  }

  /**
   * Requests filters again. One refused filter affects all others of its frame: then each half is requested.
   * @param {number} op
   * @param {readonly string[]} filters
   */
  #restoreGroup(op, filters) {
    this.#connection.operations.restoreFilters(op, filters, (code) => {
      if (code === Code.OK) return;
      // other codes apply to all filters of the frame, for example a limit
      const concernsOne = code === Code.ACCESS_DENIED || code === Code.BAD_DATA;
      if (!concernsOne || filters.length === 1) {
        this.unrestored += filters.length;
        return;
      }
      const half = Math.floor(filters.length / 2);
      for (const part of [filters.slice(0, half), filters.slice(half)]) {
        const inUse = part.filter((filter) => this.#state.includes(op, filter));
        if (inUse.length > 0) this.#restoreGroup(op, inUse);
      }
    });
  }

  /**
   * Changes the state and the broker's. A refusal reverts only what this call has added. So does an abort or
   * a timeout, after which the broker can have performed it, or will: it gets the opposite operation.
   * @param {number} op
   * @param {readonly string[]} filters
   * @param {(filter: string) => boolean} add
   * @param {(filter: string) => void} remove
   * @param {(filters: readonly string[]) => Promise<void>} undo
   * @param {AbortSignal | undefined} signal
   * @returns {Promise<void>}
   */
  async #changeOrRevert(op, filters, add, remove, undo, signal) {
    /** @type {string[]} */
    let added = [];
    const addAll = () => {
      added = filters.filter(add);
    };
    try {
      await this.#allowDisconnected(this.#queueChange(op, () => filters, addAll, signal));
    } catch (error) {
      const isUnknown = signal?.aborted || (error instanceof ElbusError && error.kind === 'timeout');
      if (isUnknown && added.length > 0) undo(added).catch(() => {});
      else added.forEach(remove);
      throw error;
    }
  }

  /**
   * Without a connection a change succeeds if the client reconnects: it is then restored.
   * @param {Promise<void>} change
   * @returns {Promise<void>}
   */
  async #allowDisconnected(change) {
    try {
      await change;
    } catch (error) {
      if (!isDisconnected(error) || !this.#connection.reconnecting) throw error;
    }
  }

  /**
   * Queues a change and applies it to the state at the same time, so that the state cannot differ from what
   * the broker receives.
   * @param {number} op
   * @param {() => readonly string[]} filters
   * @param {() => void} update
   * @param {AbortSignal | undefined} signal
   * @returns {Promise<void>}
   */
  async #queueChange(op, filters, update, signal) {
    const { operations, sendQueue } = this.#connection;
    let updated = false;
    const run = async () => {
      updated = true;
      const changed = filters();
      if (changed.length === 0) return; // on the wire that would be the empty filter
      update();
      const queue = (/** @type {number} */ id, /** @type {boolean} */ alone) =>
        sendQueue.sendFilters(id, op, changed, alone);
      await operations.acknowledged(queue, operationText(op), list(changed), signal);
    };
    try {
      await operations.queueWhenRoom(run, signal);
    } catch (error) {
      // there is no connection: the next one gets the state
      if (!updated && isDisconnected(error)) update();
      throw error;
    }
  }
}

/**
 * @param {unknown} error
 * @returns {boolean}
 */
function isDisconnected(error) {
  return error instanceof ElbusError && error.kind === 'disconnected';
}

/**
 * Lists the filters of an operation for an error: the broker does not report which of them it refuses.
 * @param {readonly string[]} filters
 * @returns {string}
 */
function list(filters) {
  const more = filters.length - LISTED_FILTERS;
  const listed = filters.slice(0, LISTED_FILTERS).join(', ');
  return more > 0 ? `${listed} and ${more} more filters` : listed;
}
