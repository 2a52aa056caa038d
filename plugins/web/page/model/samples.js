// The recent values of one number, with their times. Bounded in number and age.

const MAX_SAMPLES = 3000;
/** The least distance of two samples, in milliseconds. */
const DISTANCE = 100;
const RANGE = 15 * 60 * 1000;

/** Values of a plot. */
export class Samples {
  /** @type {number[]} */
  times = [];
  /** @type {number[]} */
  values = [];

  /** Whether a value of this time would be kept. @param {number} time */
  isDue(time) {
    const last = this.times[this.times.length - 1];
    return last === undefined || time - last >= DISTANCE;
  }

  /**
   * @param {number} time Unix time in milliseconds.
   * @param {number} value
   */
  add(time, value) {
    this.times.push(time);
    this.values.push(value);
    let old = Math.max(0, this.times.length - MAX_SAMPLES);
    while (old < this.times.length && this.times[old] < time - RANGE) old += 1;
    if (old === 0) return;
    this.times.splice(0, old);
    this.values.splice(0, old);
  }
}
