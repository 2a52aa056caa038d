/**
 * What the broker understands, asked once for each connection. Never subscribes.
 * @module
 */

import { abortable } from '../abort.js';
import { ElbusError, quoted, RpcError } from '../errors.js';
import { decode } from '../msgpack/decode.js';
import { EMPTY } from '../wire/rpc.js';

/** @type {ReadonlySet<string>} */
const NONE = new Set();

export class Features {
  #connection;
  /** The connection that was asked. */
  #epoch = 0;
  /** @type {Promise<ReadonlySet<string>> | undefined} */
  #answer;
  /** What the latest broker has answered. */
  #latest = /** @type {ReadonlySet<string> | undefined} */ (undefined);

  /** @param {import('./connection.js').Connection} connection */
  constructor(connection) {
    this.#connection = connection;
  }

  /**
   * Checks that the broker knows all of these options. Returns whether it reports what it drops because of
   * them. Without a connection everything is accepted if the client reconnects.
   * @param {readonly string[]} options
   * @param {AbortSignal | undefined} signal
   * @returns {Promise<boolean>}
   * @throws {ElbusError} `not-supported`, or why the broker does not answer.
   */
  async check(options, signal) {
    let features;
    try {
      features = await abortable(this.#get(), signal);
    } catch (error) {
      const isDisconnected = error instanceof ElbusError && error.kind === 'disconnected';
      if (isDisconnected && this.#connection.reconnecting) return false;
      throw error;
    }
    const unknown = options.find((option) => !features.has(option));
    const drops = options.some((option) => ['latest', 'every', 'lossy'].includes(option));
    if (unknown === undefined) return drops && features.has('missed');
    const text = `the broker at ${this.#connection.address} does not know the option ${quoted(unknown)}`;
    throw new ElbusError('not-supported', `${text}: subscribe without it, or update the broker`);
  }

  /** @returns {Promise<ReadonlySet<string>>} */
  #get() {
    const connection = this.#connection;
    // the next broker is probably the previous one
    if (!connection.isConnected && connection.reconnecting && this.#latest)
      return Promise.resolve(this.#latest);
    if (this.#answer === undefined || this.#epoch !== connection.epoch) {
      const answer = this.#ask();
      this.#epoch = connection.epoch;
      this.#answer = answer;
      answer.then(
        (features) => {
          this.#latest = features;
        },
        () => {
          // no answer: the next one asks again
          if (this.#answer === answer) this.#answer = undefined;
        },
      );
    }
    return this.#answer;
  }

  /** @returns {Promise<ReadonlySet<string>>} */
  async #ask() {
    const options = { timeout: this.#connection.settings.timeout, realtime: false, signal: undefined };
    try {
      const features = decode(await this.#connection.operations.call('.broker', 'features', EMPTY, options));
      if (typeof features !== 'object' || features === null || features instanceof Map) return NONE;
      return new Set(Object.keys(features).filter((name) => features[name] === true));
    } catch (error) {
      // a broker without the method, or without RPC
      if (error instanceof RpcError) return NONE;
      if (error instanceof ElbusError && ['not-registered', 'conversion'].includes(error.kind)) return NONE;
      throw error;
    }
  }
}
