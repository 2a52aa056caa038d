/**
 * The client: its operations and the state of its connection. Owns the meaning of an operation; waiting,
 * writing and reading are in `connection`.
 * @module
 */
/// <reference lib="esnext.disposable" preserve="true" />
import { Frames, PendingSubscription } from './receive/subscription.js';
import { Cursor } from './rpc/cursor.js';
import { ServeHandle } from './rpc/serve.js';
export type ClientSettings = import('./settings.js').ClientSettings;
export type Qos = import('./wire/constants.js').Qos;
export type Payload = string | Uint8Array | ArrayBuffer | ArrayBufferView;
export type SendOptions = {
    /**
     * Whether the broker acknowledges the operation, and whether it is real-time. Default:
     * `processed`: the promise settles with the acknowledgement. With `no` it resolves when the frame is queued
     * here.
     */
    qos?: Qos;
    /**
     * Rejects the promise. A frame that is queued is sent nevertheless.
     */
    signal?: AbortSignal;
};
export type OperationOptions = {
    /**
     * Rejects the promise.
     */
    signal?: AbortSignal;
};
export type SubscribeOptions = import('./wire/filter.js').FilterOptions & OperationOptions;
export type CallOptions = {
    /**
     * How long to wait for the reply, in ms. Default: the client's timeout.
     */
    timeout?: number;
    /**
     * Whether the request is sent as real-time. By convention the reply then is,
     * too.
     */
    realtime?: boolean;
    /**
     * Parameters and result are bytes instead of values. The result shares memory with
     * frames that arrived together.
     */
    raw?: boolean;
    /**
     * Rejects the promise. The method runs nevertheless.
     */
    signal?: AbortSignal;
};
export type Call0Options = SendOptions & {
    raw?: boolean;
};
export type ClientStats = {
    /**
     * Frames queued for sending, including pings.
     */
    framesSent: number;
    /**
     * Bytes of these frames.
     */
    bytesSent: number;
    /**
     * Received messages, broadcasts and publications.
     */
    framesReceived: number;
    /**
     * Bytes received over all connections, without their handshakes.
     */
    bytesReceived: number;
    /**
     * Received frames without a consumer: late replies.
     */
    unclaimed: number;
    /**
     * Successful reconnections.
     */
    reconnects: number;
    /**
     * Bytes currently queued for sending.
     */
    queuedBytes: number;
    /**
     * Filters that the broker has refused when they were restored after a lost
     * connection.
     */
    unrestored: number;
};
/** @typedef {import('./settings.js').ClientSettings} ClientSettings */
/** @typedef {import('./wire/constants.js').Qos} Qos */
/**
 * What is sent: text as UTF-8, or bytes.
 * @typedef {string | Uint8Array | ArrayBuffer | ArrayBufferView} Payload
 */
/**
 * Options of an operation.
 * @typedef {object} SendOptions
 * @property {Qos} [qos] Whether the broker acknowledges the operation, and whether it is real-time. Default:
 *   `processed`: the promise settles with the acknowledgement. With `no` it resolves when the frame is queued
 *   here.
 * @property {AbortSignal} [signal] Rejects the promise. A frame that is queued is sent nevertheless.
 */
/**
 * Options of an operation without further choices.
 * @typedef {object} OperationOptions
 * @property {AbortSignal} [signal] Rejects the promise.
 */
/**
 * Options of a subscription; {@link import('./wire/filter.js').FilterOptions} describes those that the broker
 * knows.
 * @typedef {import('./wire/filter.js').FilterOptions & OperationOptions} SubscribeOptions
 */
/**
 * Options of a call.
 * @typedef {object} CallOptions
 * @property {number} [timeout] How long to wait for the reply, in ms. Default: the client's timeout.
 * @property {boolean} [realtime] Whether the request is sent as real-time. By convention the reply then is,
 *   too.
 * @property {boolean} [raw] Parameters and result are bytes instead of values. The result shares memory with
 *   frames that arrived together.
 * @property {AbortSignal} [signal] Rejects the promise. The method runs nevertheless.
 */
/**
 * Options of a call without reply.
 * @typedef {SendOptions & { raw?: boolean }} Call0Options
 */
/**
 * Counters of a client.
 * @typedef {object} ClientStats
 * @property {number} framesSent Frames queued for sending, including pings.
 * @property {number} bytesSent Bytes of these frames.
 * @property {number} framesReceived Received messages, broadcasts and publications.
 * @property {number} bytesReceived Bytes received over all connections, without their handshakes.
 * @property {number} unclaimed Received frames without a consumer: late replies.
 * @property {number} reconnects Successful reconnections.
 * @property {number} queuedBytes Bytes currently queued for sending.
 * @property {number} unrestored Filters that the broker has refused when they were restored after a lost
 *   connection.
 */
/**
 * Connects and registers under a name, which must be unique at the broker.
 *
 * ```js
 * const client = await connect('/tmp/elbus.sock', 'plant.display', { reconnect: true });
 * ```
 * @param {string | URL} address The path of a UNIX socket, `host:port`, `tls://host:port`, or in browsers and
 *   elsewhere `ws://` or `wss://`.
 * @param {string} name
 * @param {ClientSettings} [settings]
 * @returns {Promise<Client>}
 * @throws {ElbusError} `bad-address`, `no-broker`, `not-a-broker`, `tls`, `name-taken`, `name-refused`,
 *   `no-primary`, `access-denied`, `disconnected`, `timeout`, `invalid-argument`.
 */
export declare function connect(address: string | URL, name: string, settings?: ClientSettings): Promise<Client>;
/**
 * A client of a broker: registered under a name, over any transport; from {@link connect}.
 *
 * All methods can be called concurrently. Frames are written in the order of the calls. An operation with
 * acknowledgement settles with the broker's answer; pipeline operations by not awaiting each before the next.
 */
export declare class Client {
    #private;
    /**
     * The name that the client is registered under.
     * @returns {string}
     */
    get name(): string;
    /**
     * The broker's address, without a token that it contains.
     * @returns {string}
     */
    get address(): string;
    /**
     * Whether the client is connected.
     * @returns {boolean}
     */
    get isConnected(): boolean;
    /**
     * The received frames that no subscription or server takes: messages, broadcasts, and the publications of
     * {@link addFilters}.
     * @returns {Frames}
     */
    get frames(): Frames;
    /**
     * Waits until the client is connected.
     * @returns {Promise<void>}
     * @throws {ElbusError} The reason why the client has ended.
     */
    connected(): Promise<void>;
    /**
     * Returns the future changes of the connection.
     * @returns {import('./events.js').ConnectionEvents}
     */
    events(): import('./events.js').ConnectionEvents;
    /**
     * Returns the client's counters.
     * @returns {ClientStats}
     */
    stats(): ClientStats;
    /**
     * Writes the send queue, within the client's timeout, and disconnects. The name is free when the promise
     * resolves. Operations that have not ended are rejected with `closed`.
     * @returns {Promise<void>}
     */
    close(): Promise<void>;
    /**
     * As {@link close}, for `await using`.
     * @returns {Promise<void>}
     */
    [Symbol.asyncDispose](): Promise<void>;
    /**
     * Sends a message to one client.
     *
     * ```js
     * await client.send('plant.display', '71.5');                // queued for the display
     * await client.send('plant.display', '71.5', { qos: 'no' }); // queued here
     * ```
     * @param {string} target
     * @param {Payload} [payload]
     * @param {SendOptions} [options]
     * @returns {Promise<void>}
     * @throws {ElbusError} `disconnected`, `closed`, `timeout`, `queue-full` (real-time only), `unsendable`,
     *   `invalid-argument`; with acknowledgement also `not-registered`, `not-delivered`, `access-denied`,
     *   `refused`.
     */
    send(target: string, payload?: Payload, options?: SendOptions): Promise<void>;
    /**
     * Sends a message to all clients whose name matches a mask: `?` matches one part of a name, `*` all
     * remaining parts.
     * @param {string} mask
     * @param {Payload} [payload]
     * @param {SendOptions} [options]
     * @returns {Promise<void>}
     * @throws {ElbusError} As {@link send}. It is not an error if no client matches.
     */
    broadcast(mask: string, payload?: Payload, options?: SendOptions): Promise<void>;
    /**
     * Publishes to a topic.
     * @param {string} topic
     * @param {Payload} [payload]
     * @param {SendOptions} [options]
     * @returns {Promise<void>}
     * @throws {ElbusError} As {@link send}. It is not an error if the topic has no subscriber.
     */
    publish(topic: string, payload?: Payload, options?: SendOptions): Promise<void>;
    /**
     * Publishes to the subscribers of a topic whose primary name is `receiver`.
     * @param {string} topic
     * @param {string} receiver
     * @param {Payload} [payload]
     * @param {SendOptions} [options]
     * @returns {Promise<void>}
     * @throws {ElbusError} As {@link publish}.
     */
    publishFor(topic: string, receiver: string, payload?: Payload, options?: SendOptions): Promise<void>;
    /**
     * Subscribes to one or more topic filters: `+` matches one level of a topic, `#` all remaining ones. The
     * result can be awaited, or iterated at once.
     *
     * With `reconnect` the client subscribes again after each lost connection. Without a connection this then
     * succeeds at once. Filters can begin with options as text (`$latest/sensors/#`); options in the second
     * argument are checked: the broker must know them.
     *
     * ```js
     * for await (const frame of client.subscribe(['alarm/#', 'fire'])) console.log(frame.topic, frame.text());
     * const jobs = await client.subscribe('jobs/#', { share: 'workers' });
     * ```
     * @param {string | Iterable<string>} filters
     * @param {SubscribeOptions} [options]
     * @returns {PendingSubscription}
     * @throws {ElbusError} As {@link send} with acknowledgement; `not-supported`. If the broker refuses one of
     *   the filters, the client is subscribed to none of them.
     */
    subscribe(filters: string | Iterable<string>, options?: SubscribeOptions): PendingSubscription;
    /**
     * Subscribes {@link frames} to one or more topic filters. Publications that match arrive there, in order
     * with messages and broadcasts.
     * @param {string | Iterable<string>} filters
     * @param {OperationOptions} [options]
     * @returns {Promise<void>}
     * @throws {ElbusError} As {@link send} with acknowledgement. If the broker refuses one of the filters, none
     *   is added.
     */
    addFilters(filters: string | Iterable<string>, options?: OperationOptions): Promise<void>;
    /**
     * Reverts {@link addFilters}. A filter that a subscription uses as well stays subscribed.
     * @param {string | Iterable<string>} filters
     * @param {OperationOptions} [options]
     * @returns {Promise<void>}
     * @throws {ElbusError} As {@link addFilters}.
     */
    removeFilters(filters: string | Iterable<string>, options?: OperationOptions): Promise<void>;
    /**
     * Excludes topics: publications that match one of these filters are not delivered, even if they match a
     * subscription.
     * @param {string | Iterable<string>} filters
     * @param {OperationOptions} [options]
     * @returns {Promise<void>}
     * @throws {ElbusError} As {@link addFilters}.
     */
    exclude(filters: string | Iterable<string>, options?: OperationOptions): Promise<void>;
    /**
     * Reverts {@link exclude}.
     * @param {string | Iterable<string>} filters
     * @param {OperationOptions} [options]
     * @returns {Promise<void>}
     * @throws {ElbusError} As {@link addFilters}.
     */
    unexclude(filters: string | Iterable<string>, options?: OperationOptions): Promise<void>;
    /**
     * Sends a ping, which the broker does not answer. The client also pings by itself; see `pingInterval`.
     * @returns {Promise<void>}
     * @throws {ElbusError} `disconnected`, `closed`.
     */
    ping(): Promise<void>;
    /**
     * Measures how long the broker takes to acknowledge an operation that changes nothing, in ms.
     * @param {OperationOptions} [options]
     * @returns {Promise<number>}
     * @throws {ElbusError} `disconnected`, `closed`, `timeout`.
     */
    roundTrip(options?: OperationOptions): Promise<number>;
    /**
     * Calls a method of another client and waits for its result. Parameters and result are values of msgpack;
     * without parameters pass `undefined`. Many calls can be in flight at once.
     *
     * If the target is not registered the call fails at once. If the target disconnects before it replies, the
     * call times out.
     *
     * ```js
     * const percent = await client.call('plant.lamp', 'brightness', 150);
     * ```
     * @param {string} target
     * @param {string} method
     * @param {unknown} [params]
     * @param {CallOptions} [options]
     * @returns {Promise<any>}
     * @throws {ElbusError} `rpc`: an `RpcError`, if the method returns an error; `timeout`, `conversion`, and
     *   as {@link send}.
     */
    call(target: string, method: string, params?: unknown, options?: CallOptions): Promise<any>;
    /**
     * Calls a method without a reply.
     * @param {string} target
     * @param {string} method
     * @param {unknown} [params]
     * @param {Call0Options} [options]
     * @returns {Promise<void>}
     * @throws {ElbusError} As {@link send}.
     */
    call0(target: string, method: string, params?: unknown, options?: Call0Options): Promise<void>;
    /**
     * Sends an RPC notification.
     * @param {string} target
     * @param {Payload} [payload]
     * @param {SendOptions} [options]
     * @returns {Promise<void>}
     * @throws {ElbusError} As {@link send}.
     */
    notify(target: string, payload?: Payload, options?: SendOptions): Promise<void>;
    /**
     * Calls a method that opens a cursor: a long result that is fetched in parts. `next` is the method that
     * returns its items; the server documents both.
     *
     * ```js
     * const squares = await client.cursor('math', 'squares', 1000, 'squares.next');
     * for await (const square of squares) console.log(square);
     * ```
     * @param {string} target
     * @param {string} method
     * @param {unknown} params
     * @param {string} next
     * @param {CallOptions} [options] Without `raw`; also used for the calls of `next`.
     * @returns {Promise<Cursor>}
     * @throws {ElbusError} As {@link call}.
     */
    cursor(target: string, method: string, params: unknown, next: string, options?: CallOptions): Promise<Cursor>;
    /**
     * Serves calls, and notifications if there is a function for them; they no longer arrive at {@link frames}.
     *
     * The functions of `methods` are its methods: they get the parameters and a {@link
     * import('./rpc/methods.js').Call}, and return the result, or a promise of it. `undefined` is sent as nil.
     * An `RpcError` that a method throws is sent to the caller, any other error as an internal error with its
     * message. Up to 1,024 calls run concurrently. If `methods` is a function, it answers the calls of all
     * methods. An instance of a class serves the functions of its own class, without those that it inherits and
     * those whose name begins with `_`.
     *
     * ```js
     * const server = client.serve({
     *   brightness: (percent) => Math.min(percent, 100),
     *   async whoami(_, call) { return call.sender; },
     * });
     * ```
     * @param {object} methods
     * @param {import('./rpc/serve.js').ServeOptions} [options]
     * @returns {ServeHandle}
     * @throws {ElbusError} `already-serving`, `invalid-argument`.
     */
    serve(methods: object, options?: import('./rpc/serve.js').ServeOptions): ServeHandle;
    /**
     * Connects a secondary client: another connection with the name `NAME%%0`, `NAME%%1` and so on, and the
     * settings of this client. The broker disconnects it when this client disconnects.
     * @param {OperationOptions} [options]
     * @returns {Promise<Client>}
     * @throws {ElbusError} As {@link connect}.
     */
    secondary(options?: OperationOptions): Promise<Client>;
}
