// The page's connection to the bus: its client, and the state of its connection. Knows no view.

import { connect, ElbusError, RpcError } from '../elbus.js';
import { visible } from '../format/text.js';

/** @typedef {import('../elbus.js').Client} Client */
/**
 * What the page shows of its connection. `text` is a whole sentence, or empty.
 * @typedef {{ state: 'connected' | 'disconnected' | 'closed', text: string }} ConnectionState
 */

const BROKER = '.broker';
/** Where the methods of the plugin `web` are. */
export const WEB = '.broker';
/** How long a call may take, in milliseconds. */
const CALL_TIMEOUT = 10_000;
/** Limits of what the page queues: received for each consumer, and for sending. */
const QUEUE_BYTES = 4 * 1024 * 1024;

/** The connection of the page. */
export class Bus {
  #client;
  /** @type {Set<(state: ConnectionState) => void>} */
  #listeners = new Set();
  /** @type {ConnectionState} */
  state = { state: 'connected', text: '' };

  /** @param {Client} client */
  constructor(client) {
    this.#client = client;
    this.#listen();
  }

  /**
   * Connects to the address that has served the page.
   * @param {{ token: string, name: string }} identity Without a token, the broker decides by access rules.
   * @returns {Promise<Bus>}
   */
  static async open({ token, name }) {
    const address = new URL('/bus', location.href);
    address.protocol = address.protocol === 'https:' ? 'wss:' : 'ws:';
    address.hash = '';
    const client = await connect(address, name, {
      reconnect: { firstDelay: 250, maxDelay: 5000 },
      overflow: 'drop-oldest',
      queueBytes: QUEUE_BYTES,
      maxFrameBytes: 64 * 1024 * 1024,
      ...(token === '' ? {} : { token }),
    });
    return new Bus(client);
  }

  /** The name that the page is registered under. */
  get name() {
    return this.#client.name;
  }

  async #listen() {
    for await (const event of this.#client.events()) {
      if (event.type === 'connected') this.#change({ state: 'connected', text: '' });
      else if (event.type === 'disconnected')
        this.#change({
          state: 'disconnected',
          text: `Connection lost: ${visible(event.reason)}.`,
        });
      else if (event.type === 'retrying') {
        const seconds = (event.after / 1000).toFixed(1);
        const text = `Attempt ${event.attempt} in ${seconds} s: ${visible(event.reason, 300)}.`;
        this.#change({ state: 'disconnected', text });
      } else if (event.type === 'closed')
        this.#change({ state: 'closed', text: 'The connection is closed.' });
    }
  }

  /** @param {ConnectionState} state */
  #change(state) {
    this.state = state;
    for (const listener of this.#listeners) listener(state);
  }

  /**
   * Calls a function after each change of the connection, until the signal is aborted.
   * @param {(state: ConnectionState) => void} listener
   * @param {AbortSignal} [signal]
   */
  onState(listener, signal) {
    this.#listeners.add(listener);
    signal?.addEventListener('abort', () => this.#listeners.delete(listener));
  }

  /**
   * Calls a method of the broker.
   * @param {string} method
   * @param {unknown} [params]
   * @param {AbortSignal} [signal]
   * @returns {Promise<any>}
   */
  call(method, params, signal) {
    return this.callClient(method.startsWith('web.') ? WEB : BROKER, method, params, { signal });
  }

  /**
   * Calls a method of any client.
   * @param {string} target
   * @param {string} method
   * @param {unknown} params
   * @param {{ signal?: AbortSignal, timeout?: number, raw?: boolean }} [options]
   * @returns {Promise<any>}
   */
  callClient(target, method, params, { signal, timeout = CALL_TIMEOUT, raw = false } = {}) {
    return this.#client.call(target, method, params, {
      timeout,
      raw,
      ...(signal ? { signal } : {}),
    });
  }

  /**
   * @param {string} topic
   * @param {Uint8Array} payload
   */
  publish(topic, payload) {
    return this.#client.publish(topic, payload);
  }

  /**
   * Subscribes to a filter that never holds a publisher: the broker drops what the page does not take.
   * @param {string} filter
   * @param {{ lossy: true } | { every: number }} options
   */
  async subscribe(filter, options) {
    return this.#client.subscribe(filter, options);
  }

  close() {
    return this.#client.close();
  }
}

/**
 * Returns the sentence that says why an operation has failed.
 * @param {unknown} error
 * @returns {string}
 */
export function sentenceOf(error) {
  if (error instanceof RpcError) {
    if (error.code === -32601) return 'The broker has no such method: the plugin that adds it is not loaded.';
    const text = error.text;
    return text ? visible(text, 500) : visible(error.message, 500);
  }
  return visible(error instanceof Error ? error.message : error, 500);
}

/**
 * Whether an operation has failed because there is no connection, or because its view was left: its view
 * shows the previous values.
 * @param {unknown} error
 */
export function isInterruption(error) {
  if (error instanceof ElbusError) return error.kind === 'disconnected' || error.kind === 'closed';
  return error instanceof DOMException && error.name === 'AbortError';
}
