/**
 * Settings of a client: their defaults and checks. Never connects.
 * @module
 */
export type Backoff = {
    /**
     * The delay before the first attempt, in ms; it doubles with each further
     * one. Default: 100.
     */
    firstDelay?: number;
    /**
     * The longest delay, in ms. Default: 10,000.
     */
    maxDelay?: number;
    /**
     * The random part of each delay, from 0 to 1, which spreads the attempts of many
     * clients. Default: 0.5.
     */
    jitter?: number;
    /**
     * The client ends after this many consecutive failed attempts. Default: no
     * limit.
     */
    maxAttempts?: number;
};
export type TlsSettings = {
    /**
     * Certificates of trusted authorities. Default: those of the runtime.
     */
    ca?: string | Uint8Array;
    /**
     * The client's certificate.
     */
    cert?: string | Uint8Array;
    /**
     * The client's key.
     */
    key?: string | Uint8Array;
    /**
     * The name that the broker's certificate must have. Default: the host of the
     * address.
     */
    servername?: string;
};
export type Overflow = 'block' | 'drop-newest' | 'drop-oldest';
export type ClientSettings = {
    /**
     * The limit for connecting, for an acknowledgement, for space in the send queue
     * and, unless the call has another one, for the reply to a call. A broker that is silent for this long is
     * probed, and the connection is lost after twice as long. Default: 5,000.
     */
    timeout?: number;
    /**
     * What happens when the connection is lost: `true` or the delays
     * connect again and restore subscriptions and exclusions. The first connection is attempted once only.
     * Default: `false`.
     */
    reconnect?: boolean | Backoff;
    /**
     * The interval of pings while nothing else is sent. The broker disconnects
     * a client that is silent for 6.25 s by default. Default: 1,000.
     */
    pingInterval?: number;
    /**
     * The limit of bytes queued for sending, beyond which senders wait, and of
     * received bytes queued for each consumer, beyond which `overflow` applies. Default: 8 MiB.
     */
    queueBytes?: number;
    /**
     * The limit of a sent or received payload, in bytes. Default: 256 MiB.
     */
    maxFrameBytes?: number;
    /**
     * What happens to received frames when a queue is full. Default: `block`.
     */
    overflow?: Overflow;
    /**
     * How long a consumer that takes nothing can pause the reading of the
     * connection. A broker disconnects a client that reads nothing for 4 s by default. Default: 3,000.
     */
    holdLimit?: number;
    /**
     * Calls and notifications that arrive before `serve` wait for it, instead of
     * arriving at `frames`. Default: `false`.
     */
    queueCalls?: boolean;
    /**
     * Certificates; also makes `host:port` use TLS. Not in browsers.
     */
    tls?: TlsSettings;
    /**
     * The token of a WebSocket, which proves who the client is: a line of
     * `tokens_file`, or what the broker has logged at its start.
     */
    token?: string;
    /**
     * The class of WebSockets, if
     * the runtime has none: Node 20 needs that of the package `ws`.
     */
    WebSocket?: new (url: string, protocols?: string | string[]) => any;
    /**
     * Aborts connecting. Has no effect on a connected client.
     */
    signal?: AbortSignal;
};
export type Settings = {
    timeout: number;
    reconnect: Required<Backoff> | undefined;
    pingInterval: number;
    queueBytes: number;
    maxFrameBytes: number;
    overflow: Overflow;
    holdLimit: number;
    queueCalls: boolean;
    tls: TlsSettings | undefined;
    token: string | undefined;
    WebSocket: (new (url: string, protocols?: string | string[]) => any) | undefined;
    clock: import('./clock.js').Clock;
    dial: import('./transport/transport.js').Dial | undefined;
};
export type Seams = {
    clock?: import('./clock.js').Clock;
    dial?: import('./transport/transport.js').Dial;
};
/**
 * Checks settings and adds the defaults.
 * @param {ClientSettings} given
 * @param {Seams} [seams]
 * @returns {Settings}
 */
export declare function resolveSettings(given: ClientSettings, seams?: Seams): Settings;
/**
 * Returns the delay before an attempt, which counts from 1, or `undefined` if it exceeds the limit.
 * @param {Required<Backoff>} backoff
 * @param {number} attempt
 * @returns {number | undefined}
 */
export declare function backoffDelay(backoff: Required<Backoff>, attempt: number): number | undefined;
/**
 * @param {string} name
 * @param {unknown} value
 * @param {number} fallback
 * @returns {number}
 */
export declare function number(name: string, value: unknown, fallback: number): number;
/**
 * @param {string} name
 * @param {unknown} value
 * @param {number} fallback
 * @returns {number}
 */
export declare function positive(name: string, value: unknown, fallback: number): number;
/**
 * @param {string} name
 * @param {unknown} value
 * @param {boolean} fallback
 * @returns {boolean}
 */
export declare function boolean(name: string, value: unknown, fallback: boolean): boolean;
