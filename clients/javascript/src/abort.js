/**
 * Cancellation by `AbortSignal`: an aborted operation rejects with the reason of the signal.
 * @module
 */

import { invalidArgument } from './errors.js';

/** The callbacks of each signal, which has one listener for all: Node warns of more than ten.
 * @type {WeakMap<AbortSignal, { callbacks: Set<() => void>, listener: () => void }>} */
const callbacksOf = new WeakMap();

/**
 * Calls a function when a signal is aborted.
 * @param {AbortSignal} signal
 * @param {() => void} callback
 * @returns {() => void} Removes the function.
 */
export function onAbort(signal, callback) {
  let entry = callbacksOf.get(signal);
  if (entry === undefined) {
    /** @type {Set<() => void>} */
    const callbacks = new Set();
    const listener = () => {
      callbacksOf.delete(signal);
      for (const call of callbacks) call();
    };
    entry = { callbacks, listener };
    callbacksOf.set(signal, entry);
    signal.addEventListener('abort', listener, { once: true });
  }
  const { callbacks, listener } = entry;
  callbacks.add(callback);
  return () => {
    callbacks.delete(callback);
    if (callbacks.size > 0 || callbacksOf.get(signal)?.callbacks !== callbacks) return;
    callbacksOf.delete(signal);
    signal.removeEventListener('abort', listener);
  };
}

/**
 * Checks a signal.
 * @param {unknown} signal
 * @returns {AbortSignal | undefined}
 * @throws The reason, if it is aborted.
 */
export function checkSignal(signal) {
  if (signal === undefined) return undefined;
  // not by its class: a signal can come from another realm
  const given = /** @type {AbortSignal} */ (signal);
  if (typeof given?.aborted !== 'boolean' || typeof given.addEventListener !== 'function') {
    throw invalidArgument('signal', signal, 'an AbortSignal');
  }
  if (given.aborted) throw given.reason;
  return given;
}

/**
 * Returns a promise that settles as `promise`, or calls `abandon` and rejects when the signal is aborted.
 * @template T
 * @param {Promise<T>} promise
 * @param {AbortSignal | undefined} signal
 * @param {() => void} [abandon]
 * @returns {Promise<T>}
 */
export function abortable(promise, signal, abandon) {
  if (signal === undefined) return promise;
  return new Promise((resolve, reject) => {
    const abort = () => {
      abandon?.();
      reject(signal.reason);
    };
    if (signal.aborted) {
      promise.catch(() => {});
      abort();
      return;
    }
    const remove = onAbort(signal, abort);
    promise.then(
      (value) => {
        remove();
        resolve(value);
      },
      (error) => {
        remove();
        reject(error);
      },
    );
  });
}
