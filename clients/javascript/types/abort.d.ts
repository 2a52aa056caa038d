/**
 * Cancellation by `AbortSignal`: an aborted operation rejects with the reason of the signal.
 * @module
 */
/**
 * Calls a function when a signal is aborted.
 * @param {AbortSignal} signal
 * @param {() => void} callback
 * @returns {() => void} Removes the function.
 */
export declare function onAbort(signal: AbortSignal, callback: () => void): () => void;
/**
 * Checks a signal.
 * @param {unknown} signal
 * @returns {AbortSignal | undefined}
 * @throws The reason, if it is aborted.
 */
export declare function checkSignal(signal: unknown): AbortSignal | undefined;
/**
 * Returns a promise that settles as `promise`, or calls `abandon` and rejects when the signal is aborted.
 * @template T
 * @param {Promise<T>} promise
 * @param {AbortSignal | undefined} signal
 * @param {() => void} [abandon]
 * @returns {Promise<T>}
 */
export declare function abortable<T>(promise: Promise<T>, signal: AbortSignal | undefined, abandon?: () => void): Promise<T>;
