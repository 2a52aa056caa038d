/**
 * Pings an idle connection, and notices a broker that is silent. Owns these timers; does not end the
 * connection itself.
 * @module
 */
export type Liveness = {
    /**
     * Counts reads: each is a sign of life of the broker.
     */
    reads: () => number;
    /**
     * Whether the client itself does not read.
     */
    paused: () => boolean;
    pingIfIdle: () => void;
    /**
     * Sends an operation that changes nothing and is acknowledged.
     */
    probe: () => void;
    /**
     * The broker is silent.
     */
    silent: (seconds: number) => void;
};
/**
 * @typedef {object} Liveness
 * @property {() => number} reads Counts reads: each is a sign of life of the broker.
 * @property {() => boolean} paused Whether the client itself does not read.
 * @property {() => void} pingIfIdle
 * @property {() => void} probe Sends an operation that changes nothing and is acknowledged.
 * @property {(seconds: number) => void} silent The broker is silent.
 */
export declare class KeepAlive {
    #private;
    /**
     * @param {import('../settings.js').Settings} settings
     * @param {Liveness} liveness
     */
    constructor({ clock, timeout, pingInterval }: import('../settings.js').Settings, liveness: Liveness);
    start(): void;
    /**
     * Something was received. Browsers delay the timers of hidden pages by up to a minute, and a broker does
     * not wait that long for a sign of life: what it sends regularly does the work of a timer that is late.
     */
    received(): void;
    stop(): void;
}
