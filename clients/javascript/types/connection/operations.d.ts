/**
 * Performs operations: queues the frame, waits for room and for the acknowledgement. Owns the conversion of
 * their outcome to an error; arguments were checked before.
 * @module
 */
/**
 * Returns the words that precede the target of an operation in errors.
 * @param {number} op
 * @returns {string}
 */
export declare function operationText(op: number): string;
export type Request = {
    op: number;
    /**
     * The bits of the flags.
     */
    qos: number;
    target: string;
    receiver: string;
    head: Uint8Array;
    payload: string | Uint8Array;
};
export declare class Operations {
    #private;
    /** @param {import('./connection.js').Connection} connection */
    constructor(connection: import('./connection.js').Connection);
    /**
     * Queues a frame, and waits for its acknowledgement if it requests one.
     * @param {Request} request
     * @param {AbortSignal} [signal]
     * @returns {Promise<void>}
     */
    send(request: Request, signal?: AbortSignal): Promise<void>;
    /**
     * Waits for the acknowledgement of an operation that `queue` queues.
     * @param {(id: number, alone: boolean) => void} queue
     * @param {string} operation
     * @param {string} target
     * @param {AbortSignal | undefined} signal
     * @returns {Promise<void>}
     */
    acknowledged(queue: (id: number, alone: boolean) => void, operation: string, target: string, signal: AbortSignal | undefined): Promise<void>;
    /**
     * Calls `run` when there is room, in the order of these calls.
     * @template T
     * @param {() => T | Promise<T>} run
     * @param {AbortSignal | undefined} signal
     * @returns {Promise<T>}
     */
    whenRoom<T>(run: () => T | Promise<T>, signal: AbortSignal | undefined): Promise<T>;
    /**
     * Calls a method. The result is its bytes.
     * @param {string} target
     * @param {string} method
     * @param {Uint8Array} params
     * @param {{ timeout: number, realtime: boolean, signal: AbortSignal | undefined }} options
     * @returns {Promise<Uint8Array>}
     */
    call(target: string, method: string, params: Uint8Array, { timeout, realtime, signal }: {
        timeout: number;
        realtime: boolean;
        signal: AbortSignal | undefined;
    }): Promise<Uint8Array>;
    /**
     * Calls a method without a reply.
     * @param {string} target
     * @param {string} method
     * @param {Uint8Array} params
     * @param {number} qos
     * @param {AbortSignal | undefined} signal
     * @returns {Promise<void>}
     */
    call0(target: string, method: string, params: Uint8Array, qos: number, signal: AbortSignal | undefined): Promise<void>;
    /**
     * Performs an operation that changes nothing and is acknowledged.
     * @param {AbortSignal | undefined} signal
     * @returns {Promise<void>}
     */
    probe(signal: AbortSignal | undefined): Promise<void>;
    /**
     * Checks the state, and calls `run` now or when there is room.
     * @template T
     * @param {() => T | Promise<T>} run
     * @param {AbortSignal | undefined} signal
     * @returns {Promise<T>}
     */
    queueWhenRoom<T>(run: () => T | Promise<T>, signal: AbortSignal | undefined): Promise<T>;
    /** Asks the broker for a sign of life, without waiting for it. */
    probeUnawaited(): void;
    /**
     * Queues a topic operation. `acked` is called with its code, unless the connection is lost.
     * @param {number} op
     * @param {readonly string[]} filters
     * @param {(code: number) => void} acked
     */
    restoreFilters(op: number, filters: readonly string[], acked: (code: number) => void): void;
}
/**
 * Returns a message, whose payload has no head.
 * @param {number} op
 * @param {number} qos
 * @param {string} target
 * @param {string | Uint8Array} payload
 * @param {string} [receiver]
 * @returns {Request}
 */
export declare function plainRequest(op: number, qos: number, target: string, payload: string | Uint8Array, receiver?: string): Request;
