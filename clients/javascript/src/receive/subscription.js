/// <reference lib="esnext.disposable" preserve="true" />
/**
 * What consumes received frames: subscriptions with a queue of their own, and the other frames of a client.
 * Owns their lifetime; which frames arrive is decided by the demux.
 * @module
 */

import { signalOfNext } from '../arguments.js';

/** @typedef {import('../frame.js').Frame} Frame */
/** @typedef {import('./inbox.js').Inbox} Inbox */
/** @typedef {IteratorResult<Frame, undefined>} FrameResult */

/**
 * The received frames of a client: messages, broadcasts, and the publications of `addFilters`.
 *
 * Also an async iterator. Leaving a loop leaves the frames queued. If nothing takes frames, at most
 * `queueBytes` are queued; further ones are dropped and counted.
 *
 * ```js
 * for await (const frame of client.frames) console.log(frame.sender, frame.text());
 * ```
 * @implements {AsyncIterableIterator<Frame>}
 */
export class Frames {
  #inbox;

  /**
   * Frames are received by the client.
   * @internal
   * @param {Inbox} inbox
   */
  constructor(inbox) {
    this.#inbox = inbox;
  }

  /**
   * Returns the next frame; done once the client has ended and the queue is empty. An aborted signal loses no
   * frame. Several calls at once get one frame each, in order.
   * @param {{ signal?: AbortSignal }} [options]
   * @returns {Promise<FrameResult>}
   */
  next(options) {
    return nextOf(this.#inbox, options);
  }

  /**
   * Returns the next frame if one is queued.
   * @returns {Frame | undefined}
   */
  tryNext() {
    return this.#inbox.take();
  }

  /**
   * How many frames have been dropped so far. The frame after the dropped ones reports them too
   * (`frame.missed`).
   * @returns {number}
   */
  get missed() {
    return this.#inbox.missed;
  }

  /** @returns {this} */
  [Symbol.asyncIterator]() {
    return this;
  }
}

/**
 * @param {Inbox} inbox
 * @param {unknown} options
 * @returns {Promise<FrameResult>}
 */
function nextOf(inbox, options) {
  if (options === undefined) return inbox.next();
  try {
    return inbox.next(signalOfNext(options));
  } catch (error) {
    return Promise.reject(error);
  }
}

/** Ends subscriptions that were dropped without being ended.
 * @type {FinalizationRegistry<() => void>} */
const abandoned = new FinalizationRegistry((end) => end());

/**
 * Publications that match some filters, in a queue of their own; from `client.subscribe`.
 *
 * Also an async iterator. Leaving a loop (`break`, `return`, an error) ends the subscription; use {@link
 * next} to take some frames and continue later. A publication that matches several subscriptions is delivered
 * to each of them. The queue has the client's limit and `overflow`. Several iterators or calls of `next`
 * share the queue: each frame goes to one of them.
 *
 * ```js
 * const temperatures = await client.subscribe('temperature/+');
 * const { value: first } = await temperatures.next();
 * await temperatures.unsubscribe();
 * ```
 * @implements {AsyncIterableIterator<Frame>}
 */
export class Subscription {
  #inbox;
  #end;
  #token = {};

  /**
   * Subscriptions are created by `client.subscribe`.
   * @internal
   * @param {Inbox} inbox
   * @param {() => Promise<void>} end Unsubscribes; must not refer to the subscription.
   */
  constructor(inbox, end) {
    this.#inbox = inbox;
    this.#end = end;
    abandoned.register(this, () => end().catch(() => {}), this.#token);
  }

  /**
   * Returns the next publication; done once the subscription or the client has ended and the queue is empty.
   * An aborted signal loses no publication.
   * @param {{ signal?: AbortSignal }} [options]
   * @returns {Promise<FrameResult>}
   */
  next(options) {
    return nextOf(this.#inbox, options);
  }

  /**
   * Returns the next publication if one is queued.
   * @returns {Frame | undefined}
   */
  tryNext() {
    return this.#inbox.take();
  }

  /**
   * How many publications have been dropped so far. The publication after the dropped ones reports them too
   * (`frame.missed`).
   * @returns {number}
   */
  get missed() {
    return this.#inbox.missed;
  }

  /**
   * Unsubscribes, and waits for the broker's acknowledgement. Queued publications are dropped.
   * @returns {Promise<void>}
   * @throws {import('../errors.js').ElbusError} As `removeFilters`.
   */
  unsubscribe() {
    abandoned.unregister(this.#token);
    this.#inbox.discard();
    return this.#end();
  }

  /**
   * Ends the subscription; called when a loop is left. The broker's acknowledgement is not waited for, and
   * its errors are ignored.
   * @returns {Promise<FrameResult>}
   */
  return() {
    this.unsubscribe().catch(() => {});
    return Promise.resolve({ value: undefined, done: true });
  }

  /** @returns {this} */
  [Symbol.asyncIterator]() {
    return this;
  }

  /**
   * As {@link unsubscribe}, for `await using`.
   * @returns {Promise<void>}
   */
  async [Symbol.asyncDispose]() {
    await this.unsubscribe().catch(() => {});
  }
}

/**
 * A subscription that is being established: awaited, it becomes the {@link Subscription}; it can be iterated
 * at once. If it fails, both report the error.
 *
 * ```js
 * for await (const frame of client.subscribe('temperature/+')) console.log(frame.text());
 * ```
 * @extends {Promise<Subscription>}
 * @implements {AsyncIterable<Frame>}
 */
export class PendingSubscription extends Promise {
  /** What `then` returns is an ordinary promise. */
  static get [Symbol.species]() {
    return Promise;
  }

  /**
   * Subscriptions are started by `client.subscribe`.
   * @internal
   * @param {() => Promise<Subscription>} subscribe
   * @returns {PendingSubscription}
   */
  static start(subscribe) {
    const pending = new PendingSubscription((resolve, reject) => {
      subscribe().then(resolve, reject);
    });
    // the error is reported when it is awaited or iterated, which can be later
    pending.catch(() => {});
    return pending;
  }

  /** @returns {AsyncIterator<Frame, undefined>} */
  [Symbol.asyncIterator]() {
    return {
      next: async () => (await this).next(),
      return: async () => (await this).return(),
    };
  }
}
