// Feeds the topic tree from a subscription that never holds a publisher. If more arrives than the page should
// process, it asks the broker for the newest value of each topic at intervals instead of all publications.

/** Publications per second that the page processes at most. */
const MAX_RATE = 4000;
/** What is asked for: everything, then one publication of each topic per interval, in milliseconds. */
const STEPS = [0, 1000, 10_000];
/** Publications that are processed without a pause, so that the page stays responsive. */
const AT_ONCE = 500;

/** @typedef {import('../elbus.js').Subscription} Subscription */

/** A subscription that adapts to the load. */
export class TopicFeed {
  #bus;
  #take;
  #changed;
  #filter = '';
  #step = 0;
  #inSecond = 0;
  #secondAt = 0;
  #missedInSecond = 0;
  /** Aborts the reading of the current subscription. @type {AbortController | undefined} */
  #reading;
  /** Publications that the broker or the page has dropped. */
  missed = 0;
  isPaused = false;

  /**
   * @param {import('../bus/bus.js').Bus} bus
   * @param {AbortSignal} signal Ends the subscription.
   * @param {(frame: import('../elbus.js').Frame) => void} take
   * @param {(error: unknown) => void} changed Called after a subscription has begun, or has failed with an
   *   error.
   */
  constructor(bus, signal, take, changed) {
    this.#bus = bus;
    this.#take = take;
    this.#changed = changed;
    signal.addEventListener('abort', () => this.#reading?.abort());
  }

  /** The interval of samples in milliseconds; 0 if all publications are received. */
  get interval() {
    return STEPS[this.#step];
  }

  /**
   * Subscribes to a filter instead of the previous one.
   * @param {string} filter
   */
  start(filter) {
    this.#filter = filter;
    this.#step = 0;
    this.missed = 0;
    return this.#subscribe();
  }

  async #subscribe() {
    this.#reading?.abort();
    const reading = new AbortController();
    this.#reading = reading;
    this.#inSecond = 0;
    this.#missedInSecond = 0;
    this.#secondAt = performance.now();
    let subscription;
    try {
      const options = this.interval === 0 ? { lossy: /** @type {const} */ (true) } : { every: this.interval };
      subscription = await this.#bus.subscribe(this.#filter, options);
    } catch (error) {
      if (!reading.signal.aborted) this.#changed(error);
      return;
    }
    if (!reading.signal.aborted) {
      this.#changed(undefined);
      await this.#read(subscription, reading.signal).catch(() => {});
    }
    // the connection can be lost: then there is nothing to unsubscribe from
    subscription.unsubscribe().catch(() => {});
  }

  /**
   * @param {Subscription} subscription
   * @param {AbortSignal} signal
   */
  async #read(subscription, signal) {
    let before = 0;
    while (!signal.aborted) {
      const { value, done } = await subscription.next({ signal });
      if (done) return;
      /** @type {import('../elbus.js').Frame | undefined} */
      let frame = value;
      for (let number = 0; frame !== undefined && number < AT_ONCE; number += 1) {
        this.missed += frame.missed;
        this.#missedInSecond += frame.missed;
        this.#inSecond += 1;
        if (!this.isPaused) this.#take(frame);
        frame = number + 1 < AT_ONCE ? subscription.tryNext() : undefined;
      }
      const now = performance.now();
      if (now - this.#secondAt >= 1000) {
        const isTooMuch = this.#inSecond + this.#missedInSecond > MAX_RATE * ((now - this.#secondAt) / 1000);
        this.#secondAt = now;
        this.#inSecond = 0;
        this.#missedInSecond = 0;
        if (isTooMuch && this.#step < STEPS.length - 1) {
          this.#step += 1;
          this.#subscribe();
          return;
        }
      }
      // other tasks of the page, such as input, come first
      if (now - before > 30) {
        await new Promise((resolve) => {
          setTimeout(resolve, 0);
        });
        before = performance.now();
      }
    }
  }
}
