/**
 * Pings an idle connection, and notices a broker that is silent. Owns these timers; does not end the
 * connection itself.
 * @module
 */

/**
 * @typedef {object} Liveness
 * @property {() => number} reads Counts reads: each is a sign of life of the broker.
 * @property {() => boolean} paused Whether the client itself does not read.
 * @property {() => void} pingIfIdle
 * @property {() => void} probe Sends an operation that changes nothing and is acknowledged.
 * @property {(seconds: number) => void} silent The broker is silent.
 */

export class KeepAlive {
  #clock;
  #timeout;
  #interval;
  #liveness;
  /** @type {unknown} */
  #timer = undefined;
  #reads = 0;
  #since = 0;
  /** When the client has last looked whether it has to ping. */
  #checked = 0;
  #probed = false;

  /**
   * @param {import('../settings.js').Settings} settings
   * @param {Liveness} liveness
   */
  constructor({ clock, timeout, pingInterval }, liveness) {
    this.#clock = clock;
    this.#timeout = timeout;
    this.#interval = Math.min(pingInterval, timeout);
    this.#liveness = liveness;
  }

  start() {
    this.stop();
    this.#reads = this.#liveness.reads();
    this.#since = this.#clock.now();
    this.#checked = this.#since;
    this.#probed = false;
    this.#timer = this.#clock.setTimer(() => this.#check(), this.#interval);
  }

  /**
   * Something was received. Browsers delay the timers of hidden pages by up to a minute, and a broker does
   * not wait that long for a sign of life: what it sends regularly does the work of a timer that is late.
   */
  received() {
    if (this.#clock.now() - this.#checked < 2 * this.#interval) return;
    this.#checked = this.#clock.now();
    this.#liveness.pingIfIdle();
  }

  stop() {
    this.#clock.clearTimer(this.#timer);
    this.#timer = undefined;
  }

  #check() {
    this.#timer = this.#clock.setTimer(() => this.#check(), this.#interval);
    this.#liveness.pingIfIdle();
    const [reads, now] = [this.#liveness.reads(), this.#clock.now()];
    this.#checked = now;
    if (reads !== this.#reads || this.#liveness.paused()) {
      this.#reads = reads;
      this.#since = now;
      this.#probed = false;
      return;
    }
    // timers can be early by less than a millisecond
    const silent = now - this.#since + 1;
    if (silent >= 2 * this.#timeout && this.#probed) {
      this.stop();
      this.#liveness.silent((now - this.#since) / 1000);
    } else if (silent >= this.#timeout && !this.#probed) {
      this.#probed = true;
      this.#liveness.probe();
    }
  }
}
