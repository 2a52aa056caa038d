/**
 * The subscriptions and exclusions that the user wants, which outlive a connection: the broker forgets them
 * when it ends. Owns the sets; never sends.
 * @module
 */

import { Op, WARNINGS_TOPIC } from '../wire/constants.js';
import { isShared, matchedPart } from '../wire/filter.js';
import { topicMatches } from '../wire/topic.js';

/** Limit of filters in one frame when they are restored. */
const MAX_FRAME_FILTERS = 1000;
/** Limit of their UTF-16 units; a broker refuses frames of more than 4 MiB. */
const MAX_FRAME_UNITS = 1 << 19;

/**
 * Splits filters into groups that fit into one frame.
 * @param {readonly string[]} filters
 * @returns {string[][]}
 */
export function frameGroups(filters) {
  /** @type {string[][]} */
  const groups = [];
  /** @type {string[]} */
  let group = [];
  let units = 0;
  for (const filter of filters) {
    const length = filter.length + 1;
    if (group.length > 0 && (group.length === MAX_FRAME_FILTERS || units + length > MAX_FRAME_UNITS)) {
      groups.push(group);
      group = [];
      units = 0;
    }
    group.push(filter);
    units += length;
  }
  if (group.length > 0) groups.push(group);
  return groups;
}

/**
 * Which part of a client uses a filter: `addFilters`, or a subscription with its own queue.
 * @typedef {'frames' | 'subscription'} FilterUser
 */

export class FilterState {
  /** @type {Map<string, { frames: boolean, subscriptions: number, acknowledged: boolean }>} */
  #subscribed = new Map();
  /** @type {Set<string>} */
  #excluded = new Set();
  /** The user has unsubscribed from the topic that the broker subscribes every client to. */
  #warningsDeclined = false;

  /**
   * Adds a use of a filter. Returns whether it is new, and `unsubscribe` reverts it.
   * @param {string} filter
   * @param {FilterUser} user
   * @returns {boolean}
   */
  subscribe(filter, user) {
    if (filter === WARNINGS_TOPIC) this.#warningsDeclined = false;
    let uses = this.#subscribed.get(filter);
    if (uses === undefined) {
      uses = { frames: false, subscriptions: 0, acknowledged: false };
      this.#subscribed.set(filter, uses);
    }
    if (user === 'subscription') {
      uses.subscriptions += 1;
      return true;
    }
    const isNew = !uses.frames;
    uses.frames = true;
    return isNew;
  }

  /**
   * Removes a use of a filter. Returns whether it was the last one, so that the broker has to unsubscribe the
   * client.
   * @param {string} filter
   * @param {FilterUser} user
   * @returns {boolean}
   */
  unsubscribe(filter, user) {
    const uses = this.#subscribed.get(filter);
    if (uses !== undefined) {
      if (user === 'frames') uses.frames = false;
      else uses.subscriptions = Math.max(uses.subscriptions - 1, 0);
      if (uses.frames || uses.subscriptions > 0) return false;
      this.#subscribed.delete(filter);
    }
    if (filter === WARNINGS_TOPIC) this.#warningsDeclined = true;
    return true;
  }

  /**
   * Returns whether the filter is in use.
   * @param {string} filter
   * @returns {boolean}
   */
  isSubscribed(filter) {
    return this.#subscribed.has(filter);
  }

  /**
   * Notes that the broker has acknowledged these filters.
   * @param {readonly string[]} filters
   */
  acknowledge(filters) {
    for (const filter of filters) {
      const uses = this.#subscribed.get(filter);
      if (uses !== undefined) uses.acknowledged = true;
    }
  }

  /**
   * Returns whether the broker delivers publications to a topic because of a filter that no group shares.
   * Takes as long as there are filters.
   * @param {string} topic
   * @returns {boolean}
   */
  isAlone(topic) {
    for (const [filter, { acknowledged }] of this.#subscribed) {
      if (acknowledged && !isShared(filter) && topicMatches(matchedPart(filter), topic)) return true;
    }
    return false;
  }

  /**
   * Returns the filters of `addFilters`.
   * @returns {string[]}
   */
  framesFilters() {
    return [...this.#subscribed].filter(([, uses]) => uses.frames).map(([filter]) => filter);
  }

  /**
   * Adds an exclusion. Returns whether it is new.
   * @param {string} filter
   * @returns {boolean}
   */
  exclude(filter) {
    const isNew = !this.#excluded.has(filter);
    this.#excluded.add(filter);
    return isNew;
  }

  /** @param {string} filter */
  unexclude(filter) {
    this.#excluded.delete(filter);
  }

  /**
   * Returns whether restoring the state includes this operation on the filter.
   * @param {number} op
   * @param {string} filter
   * @returns {boolean}
   */
  includes(op, filter) {
    if (op === Op.EXCLUDE) return this.#excluded.has(filter);
    if (op === Op.UNSUBSCRIBE) return this.#warningsDeclined && filter === WARNINGS_TOPIC;
    return this.isSubscribed(filter);
  }

  /**
   * Returns the operations that restore this state with a new connection, in order: exclusions first.
   * @returns {[number, string[]][]}
   */
  operations() {
    return [
      [Op.EXCLUDE, [...this.#excluded]],
      [Op.SUBSCRIBE, [...this.#subscribed.keys()]],
      [Op.UNSUBSCRIBE, this.#warningsDeclined ? [WARNINGS_TOPIC] : []],
    ];
  }
}
