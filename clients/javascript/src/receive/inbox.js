/**
 * The queue of received frames between a connection and one consumer. Owns its limit, the choice of frames to
 * drop, and the count of dropped frames; does not know the source of frames.
 * @module
 */

import { checkSignal, onAbort } from '../abort.js';
import { Deque } from '../deque.js';

/** @typedef {import('../frame.js').Frame} Frame */
/** @typedef {IteratorResult<Frame, undefined>} FrameResult */

/** @type {FrameResult} */
const END = Object.freeze({ value: undefined, done: true });

export class Inbox {
  /** @type {Deque<Frame>} */
  #frames = new Deque();
  #overflow;
  #gate;
  /** Memory of the buffers that queued frames keep, in bytes. */
  #pinned = 0;
  /** @type {Uint8Array | undefined} */
  #lastChunk;
  /** Frames dropped after the last queued frame; the next one will report them. */
  #unreported = 0;
  /** @type {Deque<(result: FrameResult) => void>} */
  #waiters = new Deque();
  #ended = false;

  /** Queued bytes. */
  bytes = 0;
  /** Frames that were dropped so far. */
  missed = 0;
  /** The consumer has taken nothing for too long: frames over the limit are dropped until it continues. */
  stalled = false;
  /** When the consumer has last taken a frame; only while the limit is exceeded. */
  progress = 0;
  /** Whether there is a consumer that the connection can wait for. */
  claimed = true;

  /**
   * @param {number} limit In bytes.
   * @param {import('../settings.js').Overflow} overflow
   * @param {import('./read-gate.js').ReadGate} gate
   */
  constructor(limit, overflow, gate) {
    this.limit = limit;
    this.#overflow = overflow;
    this.#gate = gate;
  }

  /**
   * The number of queued frames.
   * @returns {number}
   */
  get length() {
    return this.#frames.length;
  }

  /**
   * Appends a frame. Returns whether there is a consumer.
   * @param {Frame} frame
   * @returns {boolean}
   */
  push(frame) {
    if (this.#ended) return false;
    const waiter = this.#waiters.shift();
    if (waiter !== undefined) {
      waiter({ value: this.#reported(frame), done: false });
      return true;
    }
    const overLimit = this.bytes + frame.cost > this.limit;
    if (overLimit && this.#frames.length > 0) {
      if (this.#overflow === 'drop-newest' || this.stalled || !this.claimed) {
        this.#unreported += 1;
        this.missed += 1;
        return true;
      }
      if (this.#overflow === 'drop-oldest') this.#dropOldest(frame);
    }
    this.#reported(frame);
    this.#pin(frame);
    this.bytes += frame.cost;
    this.#frames.push(frame);
    if (this.bytes > this.limit && this.#overflow === 'block' && this.claimed && !this.stalled)
      this.#gate.add(this);
    return true;
  }

  /**
   * @param {Frame} frame
   * @returns {Frame}
   */
  #reported(frame) {
    if (this.#unreported > 0) {
      frame.missed += this.#unreported;
      this.#unreported = 0;
    }
    return frame;
  }

  /**
   * Counts publications that the broker has dropped; the next frame reports them.
   * @param {number} count
   */
  addMissed(count) {
    this.#unreported += count;
    this.missed += count;
  }

  /**
   * Counts the buffer that the frame keeps. If buffers with few frames of this queue add up, their frames are
   * copied out.
   * @param {Frame} frame
   */
  #pin(frame) {
    if (frame.chunk === this.#lastChunk) return;
    if (this.#pinned + frame.chunk.buffer.byteLength > this.limit) frame.detach();
    this.#lastChunk = frame.chunk;
    frame.pinned = frame.chunk.buffer.byteLength;
    this.#pinned += frame.pinned;
  }

  /** @param {Frame} newest */
  #dropOldest(newest) {
    let dropped = 0;
    while (this.bytes + newest.cost > this.limit) {
      const oldest = this.#remove();
      if (oldest === undefined) break;
      dropped += 1 + oldest.missed;
      this.missed += 1;
    }
    const front = this.#frames.peek() ?? newest;
    front.missed += dropped;
  }

  /** @returns {Frame | undefined} */
  #remove() {
    const frame = this.#frames.shift();
    if (frame === undefined) return undefined;
    this.bytes -= frame.cost;
    this.#pinned -= frame.pinned;
    if (this.#frames.length === 0) {
      this.#lastChunk = undefined;
      this.#pinned = 0;
    }
    return frame;
  }

  /**
   * Returns the next frame if one is queued.
   * @returns {Frame | undefined}
   */
  take() {
    const isOver = this.bytes > this.limit / 2;
    const frame = this.#remove();
    if (frame === undefined) return undefined;
    this.stalled = false;
    this.claimed = true;
    if (isOver) this.#gate.taken(this);
    return frame;
  }

  /**
   * Returns the next frame; done after the end. An aborted signal loses no frame.
   * @param {AbortSignal} [signal]
   * @returns {Promise<FrameResult>}
   */
  next(signal) {
    if (signal !== undefined) {
      try {
        checkSignal(signal);
      } catch (error) {
        return Promise.reject(error);
      }
    }
    const frame = this.take();
    if (frame !== undefined) return Promise.resolve({ value: frame, done: false });
    if (this.#ended) return Promise.resolve(END);
    this.claimed = true;
    if (signal === undefined) return new Promise((resolve) => this.#waiters.push(resolve));
    return new Promise((resolve, reject) => {
      const waiter = (/** @type {FrameResult} */ result) => {
        // at once: an abort in the same round of the event loop would lose the frame
        remove();
        resolve(result);
      };
      const remove = onAbort(signal, () => {
        this.#forget(waiter);
        reject(signal.reason);
      });
      this.#waiters.push(waiter);
    });
  }

  /** @param {(result: FrameResult) => void} waiter */
  #forget(waiter) {
    for (const other of this.#waiters.clear()) {
      if (other !== waiter) this.#waiters.push(other);
    }
  }

  /** Ends the queue: the consumer gets the queued frames, then the end. */
  end() {
    if (this.#ended) return;
    this.#ended = true;
    for (const waiter of this.#waiters.clear()) waiter(END);
  }

  /** Ends the queue and drops what is in it. */
  discard() {
    this.#frames.clear();
    this.bytes = 0;
    this.#pinned = 0;
    this.#lastChunk = undefined;
    this.#gate.remove(this);
    this.end();
  }
}
