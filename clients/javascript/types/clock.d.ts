/**
 * Time: the clock of the system, in milliseconds. Tests replace it by one that they move.
 * @module
 */
export type Clock = {
    /**
     * Milliseconds since any moment; never goes back.
     */
    now: () => number;
    setTimer: (callback: () => void, delay: number) => unknown;
    clearTimer: (timer: any) => void;
};
/** @type {Clock} */
export declare const systemClock: Clock;
/**
 * Calls a function once the runtime has handled the events that are pending: in its next round.
 * @param {() => void} callback
 */
export declare function nextRound(callback: () => void): void;
