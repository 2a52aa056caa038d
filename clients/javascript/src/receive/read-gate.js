/**
 * Pauses the reading of a connection while a consumer is slow. Owns the list of inboxes that are over their
 * limit; never a queue.
 * @module
 */

/** @typedef {import('./inbox.js').Inbox} Inbox */

/**
 * Factor by which an inbox can exceed its limit while an operation waits for its outcome, which arrives
 * behind it.
 */
const OVERCOMMIT_FACTOR = 4;

export class ReadGate {
  #clock;
  #holdLimit;
  /** @type {import('../transport/transport.js').Transport | undefined} */
  #transport;
  /** Returns whether an operation waits for its outcome. */
  #inFlight;
  /** @type {Set<Inbox>} */
  #over = new Set();
  #paused = false;
  /** @type {unknown} */
  #timer = undefined;

  /**
   * @param {import('../clock.js').Clock} clock
   * @param {number} holdLimit Milliseconds.
   * @param {() => boolean} inFlight
   */
  constructor(clock, holdLimit, inFlight) {
    this.#clock = clock;
    this.#holdLimit = holdLimit;
    this.#inFlight = inFlight;
  }

  /**
   * Whether the connection is not read.
   * @returns {boolean}
   */
  get paused() {
    return this.#paused;
  }

  /** @param {import('../transport/transport.js').Transport} transport */
  attach(transport) {
    this.#transport = transport;
    this.#paused = false;
    this.update();
  }

  detach() {
    this.#transport = undefined;
    this.#paused = false;
    this.#clock.clearTimer(this.#timer);
    this.#timer = undefined;
  }

  /**
   * An inbox exceeds its limit.
   * @param {Inbox} inbox
   */
  add(inbox) {
    if (this.#over.has(inbox)) return;
    inbox.progress = this.#clock.now();
    this.#over.add(inbox);
  }

  /**
   * The consumer of an inbox that exceeds its limit has taken a frame.
   * @param {Inbox} inbox
   */
  taken(inbox) {
    inbox.progress = this.#clock.now();
    // the reader continues when half of the limit is free, not with each frame
    if (inbox.bytes > inbox.limit / 2) return;
    this.remove(inbox);
  }

  /** @param {Inbox} inbox */
  remove(inbox) {
    if (this.#over.delete(inbox) && this.#paused) this.update();
  }

  /** An operation waits for its outcome from now on. */
  operationStarted() {
    if (this.#paused) this.update();
  }

  /** Pauses or resumes. */
  update() {
    const transport = this.#transport;
    if (transport === undefined || (this.#over.size === 0 && !this.#paused)) return;
    const factor = this.#inFlight() ? OVERCOMMIT_FACTOR : 1;
    let pause = false;
    for (const inbox of this.#over) {
      if (transport.canPause) {
        pause ||= inbox.bytes > inbox.limit * factor;
      } else if (inbox.bytes > inbox.limit * OVERCOMMIT_FACTOR) {
        this.#over.delete(inbox);
        inbox.stalled = true;
      }
    }
    // as with the limit itself, what has been paused continues when half of it is free
    if (this.#paused && factor === 1) pause = this.#over.size > 0;
    if (pause !== this.#paused) {
      this.#paused = pause;
      if (pause) transport.pause();
      else transport.resume();
    }
    if (pause) this.#startTimer();
  }

  #startTimer() {
    if (this.#timer !== undefined || this.#holdLimit === Infinity) return;
    const oldest = Math.min(...[...this.#over].map((inbox) => inbox.progress));
    const delay = Math.max(oldest + this.#holdLimit - this.#clock.now(), 1);
    this.#timer = this.#clock.setTimer(() => {
      this.#timer = undefined;
      this.#checkProgress();
    }, delay);
  }

  /**
   * Gives up waiting for consumers that have taken nothing for too long: their frames are dropped until they
   * do.
   */
  #checkProgress() {
    const limit = this.#clock.now() - this.#holdLimit;
    for (const inbox of this.#over) {
      if (inbox.progress > limit) continue;
      this.#over.delete(inbox);
      inbox.stalled = true;
    }
    if (this.#paused) this.update();
  }
}
