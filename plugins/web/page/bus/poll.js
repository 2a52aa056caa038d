// Repeats a task while the page is visible. One run at a time; a slow run delays the next one.

import { isInterruption } from './bus.js';

/**
 * Runs `task` now and then every `interval` milliseconds until the signal is aborted. A hidden page runs
 * nothing.
 * @param {AbortSignal} signal
 * @param {number | (() => number)} interval
 * @param {() => Promise<void>} task
 * @param {(error: unknown) => void} failed Gets the errors of the task, without interruptions of the
 *   connection.
 */
export async function poll(signal, interval, task, failed) {
  while (!signal.aborted) {
    if (document.visibilityState === 'visible') {
      try {
        await task();
      } catch (error) {
        if (!signal.aborted && !isInterruption(error)) failed(error);
      }
    }
    await pause(signal, typeof interval === 'number' ? interval : interval());
  }
}

/**
 * Waits; ends early if the page becomes visible or the signal is aborted.
 * @param {AbortSignal} signal
 * @param {number} milliseconds
 * @returns {Promise<void>}
 */
function pause(signal, milliseconds) {
  return new Promise((resolve) => {
    const end = () => {
      clearTimeout(timer);
      signal.removeEventListener('abort', end);
      document.removeEventListener('visibilitychange', end);
      resolve();
    };
    const timer = setTimeout(end, milliseconds);
    signal.addEventListener('abort', end);
    document.addEventListener('visibilitychange', end);
  });
}
