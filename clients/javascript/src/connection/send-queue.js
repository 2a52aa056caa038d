/**
 * The sending side of a connection. Owns the frames to be written, the senders that wait for room, and the
 * decision when to write; never reads.
 *
 * Frames are encoded into a buffer when an operation is called, so that payloads can be changed afterwards.
 * The frames of one round of the event loop are written together. A frame whose acknowledgement is the only
 * one that is waited for is written at once: its sender probably waits for it.
 * @module
 */

import { nextRound } from '../clock.js';
import { Deque } from '../deque.js';
import { disconnected, ElbusError, timedOut } from '../errors.js';
import { QOS_REALTIME } from '../wire/constants.js';
import { encodeFilters, encodeRequest, PING, requestBound } from '../wire/request.js';

/** Size of the buffer that frames are encoded into, in bytes. */
const SLAB_BYTES = 64 * 1024;
/** A frame that can be longer gets a buffer of its own, in bytes. */
const SHARED_FRAME_BYTES = 16 * 1024;
/** This much is written without waiting for the end of the round, in bytes. */
const WRITE_BYTES = 64 * 1024;
/**
 * After this much, a sender without acknowledgements waits for the next round, so that others have their
 * turn.
 */
const ROUND_BYTES = 128 * 1024;

const DONE = Promise.resolve();

/** @typedef {import('../transport/transport.js').Transport} Transport */

/**
 * @typedef {object} Waiter
 * @property {() => void} run
 * @property {(error: Error) => void} fail
 * @property {number} deadline
 */

export class SendQueue {
  #limit;
  #timeout;
  #clock;
  #address;
  /** @type {Transport | undefined} */
  #transport;
  /** Why there is no transport. */
  #reason = /** @type {Error} */ (disconnected('not yet connected'));

  #slab = new Uint8Array(0);
  #start = 0;
  #at = 0;
  /** Encoded and not handed to the transport.
   * @type {Deque<Uint8Array>} */
  #chunks = new Deque();
  #bytes = 0;
  /** Handed to a transport that is full. */
  #unsent = 0;
  #full = false;

  #roundPending = false;
  #roundBytes = 0;
  /** @type {Promise<void> | undefined} */
  #roundEnd;

  /** @type {Deque<Waiter>} */
  #waiters = new Deque();
  /** @type {unknown} */
  #waitTimer = undefined;
  #releasing = false;
  /** @type {(() => void)[]} */
  #drained = [];

  sentSincePing = false;
  framesSent = 0;
  bytesSent = 0;

  /**
   * @param {import('../settings.js').Settings} settings
   * @param {string} address For errors.
   */
  constructor(settings, address) {
    this.#limit = settings.queueBytes;
    this.#timeout = settings.timeout;
    this.#clock = settings.clock;
    this.#address = address;
  }

  /**
   * Bytes queued for sending.
   * @returns {number}
   */
  get queuedBytes() {
    return this.#bytes + (this.#at - this.#start) + this.#unsent;
  }

  /**
   * Starts using a connection.
   * @param {Transport} transport
   */
  attach(transport) {
    this.#discard();
    this.#transport = transport;
  }

  /**
   * Stops using the connection: discards the queue and fails the senders that wait.
   * @param {Error} reason
   */
  detach(reason) {
    this.#transport = undefined;
    this.#reason = reason;
    this.#discard();
    this.#clock.clearTimer(this.#waitTimer);
    this.#waitTimer = undefined;
    for (const waiter of this.#waiters.clear()) waiter.fail(reason);
    for (const resolve of this.#drained.splice(0)) resolve();
  }

  #discard() {
    this.#chunks.clear();
    this.#bytes = 0;
    this.#unsent = 0;
    this.#start = this.#at;
    this.#full = false;
  }

  /**
   * Throws if there is no connection.
   */
  checkConnected() {
    if (this.#transport === undefined) throw this.#reason;
  }

  /**
   * Returns whether a frame has to wait for room.
   * @param {boolean} realtime
   * @returns {boolean}
   * @throws {ElbusError} `queue-full`: even a real-time frame has no room.
   */
  mustWait(realtime) {
    const queued = this.queuedBytes;
    if (!realtime) return queued > this.#limit || this.#waiters.length > 0;
    const limit = 2 * this.#limit;
    if (queued > limit) {
      const rule = `the limit for real-time frames is ${limit} (twice queueBytes)`;
      throw new ElbusError('queue-full', `${queued} bytes are queued; ${rule}`);
    }
    return false;
  }

  /**
   * Calls `run` when there is room, in the order of these calls, or `fail` if there is none in time.
   * @param {() => void} run
   * @param {(error: Error) => void} fail
   */
  wait(run, fail) {
    this.#waiters.push({ run, fail, deadline: this.#clock.now() + this.#timeout });
    this.#waitTimer ??= this.#clock.setTimer(() => this.#expire(), this.#timeout);
  }

  #expire() {
    this.#waitTimer = undefined;
    const now = this.#clock.now();
    for (;;) {
      const waiter = this.#waiters.peek();
      if (waiter === undefined) return;
      if (waiter.deadline > now) {
        this.#waitTimer = this.#clock.setTimer(() => this.#expire(), waiter.deadline - now);
        return;
      }
      this.#waiters.shift();
      const what = `waiting for space in the send queue (the broker at ${this.#address} does not read)`;
      waiter.fail(timedOut(what, this.#timeout));
    }
  }

  /**
   * Queues a frame with target and payload.
   * @param {number} opId
   * @param {import('./operations.js').Request} request
   * @param {boolean} alone Write at once.
   */
  send(opId, { op, qos, target, receiver, head, payload }, alone) {
    const bytes = this.#reserve(requestBound(target, receiver, head, payload));
    const from = this.#at;
    this.#at = encodeRequest(bytes, from, opId, op | qos, target, receiver, head, payload);
    this.#queued(this.#at - from, alone || (qos & QOS_REALTIME) !== 0);
  }

  /**
   * Queues a topic operation, which is acknowledged.
   * @param {number} opId
   * @param {number} op
   * @param {readonly string[]} filters
   * @param {boolean} alone Write at once.
   */
  sendFilters(opId, op, filters, alone) {
    this.#append(encodeFilters(opId, op, filters));
    this.#queued(0, alone);
  }

  /** Queues a ping. */
  ping() {
    this.#append(PING);
    this.#queued(0, false);
  }

  /**
   * Queues encoded bytes of a frame.
   * @param {Uint8Array} bytes
   */
  #append(bytes) {
    this.#closeRegion();
    this.#chunks.push(bytes);
    this.#bytes += bytes.length;
    this.bytesSent += bytes.length;
    this.#roundBytes += bytes.length;
  }

  /**
   * Makes room for a frame at `#at` of the returned buffer.
   * @param {number} bound
   * @returns {Uint8Array}
   */
  #reserve(bound) {
    if (bound > this.#slab.length - this.#at) {
      this.#closeRegion();
      this.#slab = new Uint8Array(bound > SHARED_FRAME_BYTES ? bound : SLAB_BYTES);
      this.#start = 0;
      this.#at = 0;
    }
    return this.#slab;
  }

  /** Moves the frames that were encoded last to the chunks. */
  #closeRegion() {
    if (this.#at === this.#start) return;
    this.#chunks.push(this.#slab.subarray(this.#start, this.#at));
    this.#bytes += this.#at - this.#start;
    this.#start = this.#at;
  }

  /**
   * Decides when the queued frame is written.
   * @param {number} bytes Its length, unless it was appended.
   * @param {boolean} atOnce
   */
  #queued(bytes, atOnce) {
    this.framesSent += 1;
    this.bytesSent += bytes;
    this.#roundBytes += bytes;
    this.sentSincePing = true;
    if (this.#full) return;
    if (atOnce || this.#bytes + this.#at - this.#start >= WRITE_BYTES) this.#flush();
    else this.#scheduleRound();
  }

  #scheduleRound() {
    if (this.#roundPending) return;
    this.#roundPending = true;
    nextRound(() => {
      this.#roundPending = false;
      this.#roundBytes = 0;
      if (!this.#full) this.#flush();
    });
  }

  /**
   * Returns a promise for a sender without acknowledgement. A loop of sends must let other tasks run.
   * @returns {Promise<void>}
   */
  turn() {
    if (this.#roundBytes < ROUND_BYTES) {
      // the count of bytes ends with the round
      if (!this.#roundPending) this.#scheduleRound();
      return DONE;
    }
    this.#roundEnd ??= new Promise((resolve) => {
      nextRound(() => {
        this.#roundBytes = 0;
        this.#roundEnd = undefined;
        resolve();
      });
    });
    return this.#roundEnd;
  }

  /** Hands chunks to the transport while it has room. */
  #flush() {
    const transport = this.#transport;
    if (transport === undefined) return;
    this.#closeRegion();
    while (!this.#full) {
      const chunk = this.#chunks.shift();
      if (chunk === undefined) break;
      this.#bytes -= chunk.length;
      this.#full = !transport.write(chunk);
      if (this.#transport !== transport) return; // the write has ended the connection
      if (this.#full) this.#unsent = chunk.length;
    }
    this.#release();
  }

  /** The transport has room again. */
  drain() {
    this.#full = false;
    this.#unsent = 0;
    this.#flush();
  }

  /** Lets senders continue that wait for room. */
  #release() {
    if (this.#releasing) return; // a sender that continues has flushed the queue
    this.#releasing = true;
    while (this.#waiters.length > 0 && this.queuedBytes <= this.#limit / 2) {
      this.#runWaiters();
    }
    this.#releasing = false;
    if (this.#drained.length > 0 && this.queuedBytes === 0) {
      for (const resolve of this.#drained.splice(0)) resolve();
    }
  }

  #runWaiters() {
    while (this.queuedBytes <= this.#limit) {
      const waiter = this.#waiters.shift();
      if (waiter === undefined) break;
      waiter.run();
    }
    if (this.#waiters.length === 0) {
      this.#clock.clearTimer(this.#waitTimer);
      this.#waitTimer = undefined;
    }
  }

  /**
   * Waits until everything is written, or the connection is lost.
   * @returns {Promise<void>}
   */
  drained() {
    if (this.#transport === undefined) return DONE;
    if (!this.#full) this.#flush();
    if (this.queuedBytes === 0 && this.#waiters.length === 0) return DONE;
    return new Promise((resolve) => this.#drained.push(resolve));
  }
}
