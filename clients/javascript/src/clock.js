/**
 * Time: the clock of the system, in milliseconds. Tests replace it by one that they move.
 * @module
 */

/**
 * @typedef {object} Clock
 * @property {() => number} now Milliseconds since any moment; never goes back.
 * @property {(callback: () => void, delay: number) => unknown} setTimer
 * @property {(timer: any) => void} clearTimer
 */

/** The longest delay of a timer of JavaScript, in milliseconds. */
const MAX_DELAY = 0x7fffffff;

/** @type {Clock} */
export const systemClock = {
  now: () => performance.now(),
  setTimer: (callback, delay) => setTimeout(callback, Math.min(delay, MAX_DELAY)),
  clearTimer: (timer) => clearTimeout(timer),
};

const setImmediateOfNode = /** @type {{ setImmediate?: (callback: () => void) => unknown }} */ (globalThis)
  .setImmediate;

/** @type {(() => void)[]} */
let deferred = [];
/** @type {MessageChannel | undefined} */
let channel;

function runDeferred() {
  const callbacks = deferred;
  deferred = [];
  for (const callback of callbacks) callback();
}

/**
 * Calls a function once the runtime has handled the events that are pending: in its next round.
 * @param {() => void} callback
 */
export function nextRound(callback) {
  if (setImmediateOfNode !== undefined) {
    setImmediateOfNode(callback);
    return;
  }
  // a timer waits for 4 ms in browsers if it follows others; a message does not
  if (channel === undefined) {
    channel = new MessageChannel();
    channel.port1.onmessage = runDeferred;
  }
  deferred.push(callback);
  if (deferred.length === 1) channel.port2.postMessage(0);
}
