/**
 * What consumes received frames: subscriptions with a queue of their own, and the other frames of a client.
 * Owns their lifetime; which frames arrive is decided by the demux.
 * @module
 */
/// <reference lib="esnext.disposable" preserve="true" />
export type Frame = import('../frame.js').Frame;
export type Inbox = import('./inbox.js').Inbox;
export type FrameResult = IteratorResult<Frame, undefined>;
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
export declare class Frames implements AsyncIterableIterator<Frame> {
    #private;
    /**
     * Returns the next frame; done once the client has ended and the queue is empty. An aborted signal loses no
     * frame. Several calls at once get one frame each, in order.
     * @param {{ signal?: AbortSignal }} [options]
     * @returns {Promise<FrameResult>}
     */
    next(options?: {
        signal?: AbortSignal;
    }): Promise<FrameResult>;
    /**
     * Returns the next frame if one is queued.
     * @returns {Frame | undefined}
     */
    tryNext(): Frame | undefined;
    /**
     * How many frames have been dropped so far. The frame after the dropped ones reports them too
     * (`frame.missed`).
     * @returns {number}
     */
    get missed(): number;
    /** @returns {this} */
    [Symbol.asyncIterator](): this;
}
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
export declare class Subscription implements AsyncIterableIterator<Frame> {
    #private;
    /**
     * Returns the next publication; done once the subscription or the client has ended and the queue is empty.
     * An aborted signal loses no publication.
     * @param {{ signal?: AbortSignal }} [options]
     * @returns {Promise<FrameResult>}
     */
    next(options?: {
        signal?: AbortSignal;
    }): Promise<FrameResult>;
    /**
     * Returns the next publication if one is queued.
     * @returns {Frame | undefined}
     */
    tryNext(): Frame | undefined;
    /**
     * How many publications have been dropped so far. The publication after the dropped ones reports them too
     * (`frame.missed`).
     * @returns {number}
     */
    get missed(): number;
    /**
     * Unsubscribes, and waits for the broker's acknowledgement. Queued publications are dropped.
     * @returns {Promise<void>}
     * @throws {import('../errors.js').ElbusError} As `removeFilters`.
     */
    unsubscribe(): Promise<void>;
    /**
     * Ends the subscription; called when a loop is left. The broker's acknowledgement is not waited for, and
     * its errors are ignored.
     * @returns {Promise<FrameResult>}
     */
    return(): Promise<FrameResult>;
    /** @returns {this} */
    [Symbol.asyncIterator](): this;
    /**
     * As {@link unsubscribe}, for `await using`.
     * @returns {Promise<void>}
     */
    [Symbol.asyncDispose](): Promise<void>;
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
export declare class PendingSubscription extends Promise<Subscription> implements AsyncIterable<Frame> {
    /** What `then` returns is an ordinary promise. */
    static get [Symbol.species](): PromiseConstructor;
    /** @returns {AsyncIterator<Frame, undefined>} */
    [Symbol.asyncIterator](): AsyncIterator<Frame, undefined>;
}
