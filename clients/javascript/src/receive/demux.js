/**
 * Routes each received frame to its consumer: the caller of a reply, the server of calls, the subscriptions
 * whose filter matches, or the frames of the client. Owns these tables; never reads a socket.
 * @module
 */

import { RpcError } from '../errors.js';
import { MISSED_TOPIC } from '../wire/constants.js';
import { isShared, matchedPart } from '../wire/filter.js';
import { decodeRpc, RpcKind } from '../wire/rpc.js';
import { topicMatches } from '../wire/topic.js';

/** Limit of topics whose subscriptions are remembered; other clients choose topics. */
const CACHED_TOPICS = 4096;
/** Longer topics are not remembered, in UTF-16 units. */
const CACHED_TOPIC_UNITS = 256;

/** @typedef {import('../frame.js').Frame} Frame */
/** @typedef {import('./inbox.js').Inbox} Inbox */

export class Demux {
  #frames;
  #calls;
  /** @type {Map<number, { filters: string[], alone: string[], shared: string[], inbox: Inbox }>} */
  #subscriptions = new Map();
  #nextId = 1;
  /** @type {Map<string, Inbox[]>} */
  #topics = new Map();
  /** @type {Inbox | undefined} */
  #server;
  #ended = false;

  /** What `addFilters` has added: a filter, and whether one matches a topic.
   * @type {{ has: (filter: string) => boolean, match: (topic: string) => boolean }} */
  framesFilters = { has: () => false, match: () => true };

  /** Whether the broker delivers publications to a topic because of a filter that no group shares. Set by the
   * owner of all filters.
   * @type {(topic: string) => boolean} */
  isAlone = () => false;

  received = 0;
  /** Frames without a consumer. */
  unclaimed = 0;

  /**
   * @param {Inbox} frames
   * @param {import('./pending-calls.js').PendingCalls} calls
   */
  constructor(frames, calls) {
    this.#frames = frames;
    this.#calls = calls;
  }

  /** @param {Frame} frame */
  deliver(frame) {
    this.received += 1;
    if (frame.kind === 'publish' && frame.topic === MISSED_TOPIC && this.#isReport(frame)) return;
    if (frame.kind === 'publish' && this.#subscriptions.size > 0) {
      const inboxes = this.#matching(frame.topic);
      if (inboxes.length > 0) {
        this.#push(inboxes[0], frame);
        for (let index = 1; index < inboxes.length; index += 1) this.#push(inboxes[index], frame.clone());
        return;
      }
    } else if (frame.kind === 'message' && this.#isRpc(frame)) {
      return;
    }
    this.#push(this.#frames, frame);
  }

  /**
   * Counts a report of the broker for the consumers that have its filter. Returns whether the program has not
   * subscribed to reports itself.
   * @param {Frame} frame
   * @returns {boolean}
   */
  #isReport(frame) {
    if (frame.sender === '.broker') {
      const { filter, count } = reportOf(frame);
      for (const { filters, inbox } of this.#subscriptions.values()) {
        if (filters.includes(filter)) inbox.addMissed(count);
      }
      if (this.framesFilters.has(filter)) this.#frames.addMissed(count);
    }
    return this.#matching(MISSED_TOPIC).length === 0 && !this.framesFilters.match(MISSED_TOPIC);
  }

  /**
   * @param {Inbox} inbox
   * @param {Frame} frame
   */
  #push(inbox, frame) {
    if (!inbox.push(frame)) this.unclaimed += 1;
  }

  /**
   * Delivers a message that is RPC. Returns whether it has a consumer.
   * @param {Frame} frame
   * @returns {boolean}
   */
  #isRpc(frame) {
    switch (frame.firstByte) {
      case RpcKind.REPLY:
      case RpcKind.ERROR: {
        const reply = decodeRpc(frame.payload);
        if (typeof reply === 'string') return false;
        if (reply.kind === 'reply') return this.#complete(reply.id, frame.sender, reply.result);
        return (
          reply.kind === 'error' &&
          this.#complete(reply.id, frame.sender, new RpcError(reply.code, reply.data))
        );
      }
      case RpcKind.REQUEST:
      case RpcKind.NOTIFICATION:
        if (this.#server === undefined || typeof decodeRpc(frame.payload) === 'string') return false;
        this.#push(this.#server, frame);
        return true;
      default:
        return false;
    }
  }

  /**
   * @param {number} id
   * @param {string} sender
   * @param {Uint8Array | Error} outcome
   * @returns {boolean}
   */
  #complete(id, sender, outcome) {
    if (this.#calls.complete(id, sender, outcome)) return true;
    if (!this.#calls.wasIssued(id)) return false;
    this.unclaimed += 1; // the caller has given up
    return true;
  }

  /**
   * Returns the inboxes of the subscriptions that get the publications to a topic.
   * @param {string} topic
   * @returns {Inbox[]}
   */
  #matching(topic) {
    const known = this.#topics.get(topic);
    if (known !== undefined) return known;
    const matches = (/** @type {string} */ filter) => topicMatches(filter, topic);
    /** @type {Inbox[]} */
    const inboxes = [];
    /** @type {Inbox[]} */
    const members = [];
    for (const { alone, shared, inbox } of this.#subscriptions.values()) {
      if (alone.some(matches)) inboxes.push(inbox);
      else if (shared.some(matches)) members.push(inbox);
    }
    // what the client gets by a filter without a group, another member gets because of the group
    if (members.length > 0 && !this.isAlone(topic)) members.forEach((inbox) => inboxes.push(inbox));
    if (topic.length <= CACHED_TOPIC_UNITS) {
      if (this.#topics.size >= CACHED_TOPICS) this.#topics.clear();
      this.#topics.set(topic, inboxes);
    }
    return inboxes;
  }

  /** Has the cached consumers of topics determined again. */
  filtersChanged() {
    this.#topics.clear();
  }

  /**
   * Adds a subscription: publications that match are delivered to the inbox. Returns its id.
   * @param {string[]} filters
   * @param {Inbox} inbox
   * @returns {number}
   */
  addSubscription(filters, inbox) {
    const id = this.#nextId;
    this.#nextId += 1;
    const alone = filters.filter((filter) => !isShared(filter)).map(matchedPart);
    const shared = filters.filter(isShared).map(matchedPart);
    this.#subscriptions.set(id, { filters, alone, shared, inbox });
    this.#topics.clear();
    if (this.#ended) inbox.end();
    return id;
  }

  /**
   * Removes a subscription. Returns its filters; none if it was removed before.
   * @param {number} id
   * @returns {string[]}
   */
  removeSubscription(id) {
    const filters = this.#subscriptions.get(id)?.filters ?? [];
    this.#subscriptions.delete(id);
    this.#topics.clear();
    return filters;
  }

  /**
   * Whether no inbox receives calls.
   * @returns {boolean}
   */
  get canServe() {
    return this.#server === undefined;
  }

  /**
   * Delivers calls and notifications to the inbox.
   * @param {Inbox} inbox
   */
  startServing(inbox) {
    this.#server = inbox;
    if (this.#ended) inbox.end();
  }

  /**
   * Ends the inbox of calls; further calls and notifications are delivered as ordinary frames.
   * @param {Inbox} inbox
   */
  stopServing(inbox) {
    inbox.end();
    if (this.#server === inbox) this.#server = undefined;
  }

  /** Ends all inboxes. */
  end() {
    this.#ended = true;
    for (const { inbox } of this.#subscriptions.values()) inbox.end();
    this.#server?.end();
    this.#frames.end();
  }
}

/**
 * Returns the filter and the count of a report; none if it is damaged.
 * @param {Frame} frame
 * @returns {{ filter: string, count: number }}
 */
function reportOf(frame) {
  try {
    const { filter, count } = frame.msgpack();
    if (typeof filter === 'string' && Number.isSafeInteger(count) && count > 0) return { filter, count };
  } catch {
    // not a report
  }
  return { filter: '', count: 0 };
}
