/**
 * WebSockets (protocol section 11): the byte stream in binary messages whose boundaries have no meaning. Uses
 * `WebSocketStream` where the runtime has it, because a plain `WebSocket` cannot be paused.
 * @module
 */

import { onAbort } from '../abort.js';
import { ElbusError, messageOf, quoted } from '../errors.js';

/** Limit of a message, in bytes: longer chunks are split. */
const MAX_MESSAGE_BYTES = 64 * 1024;
/** The socket is full while more is buffered in it, in bytes. */
const MAX_BUFFERED_BYTES = 256 * 1024;
/** Interval of looking whether a full socket has room, in milliseconds: there is no event. */
const BUFFERED_INTERVAL = 4;

/** @typedef {import('./transport.js').Transport} Transport */
/** @typedef {import('./transport.js').TransportEvents} TransportEvents */
/** @typedef {Extract<import('../address.js').Address, { kind: 'websocket' }>} WebSocketAddress */

/**
 * @param {WebSocketAddress} address
 * @param {import('../settings.js').Settings} settings
 * @param {AbortSignal} signal
 * @returns {Promise<Transport>}
 */
export async function dialWebSocket(address, settings, signal) {
  const { WebSocketStream } = /** @type {any} */ (globalThis);
  if (settings.WebSocket === undefined && typeof WebSocketStream === 'function') {
    return dialStream(WebSocketStream, address, settings, signal);
  }
  const WebSocket = settings.WebSocket ?? globalThis.WebSocket;
  if (typeof WebSocket !== 'function') {
    const remedy =
      'pass the class of the package ws as the setting WebSocket, or connect by a UNIX socket or TCP';
    throw new ElbusError(
      'bad-address',
      `${quoted(address.text)} needs WebSockets, which this runtime does not have: ${remedy}`,
    );
  }
  return dialPlain(WebSocket, address, settings, signal);
}

/**
 * Returns the subprotocols that are offered. Browsers let a page set no other field of the request, so the
 * token is one of them; the broker chooses the other. Without a token none is offered: browsers refuse a
 * server that chooses none.
 * @param {import('../settings.js').Settings} settings
 * @returns {string[]}
 */
function subprotocols({ token }) {
  return token === undefined ? [] : ['elbus', `elbus.token.${token}`];
}

/**
 * A browser does not say why a WebSocket fails, so that a page cannot examine other machines.
 * @param {string} address
 * @param {unknown} cause
 * @returns {ElbusError}
 */
function noBroker(address, cause) {
  const details = cause instanceof Error && cause.message !== '' ? ` (${cause.message})` : '';
  const remedy =
    "start elbusd with the plugin websocket; check the address, its token and the plugin's allowed_origins";
  return new ElbusError('no-broker', `no WebSocket connection to ${address}${details}: ${remedy}`, { cause });
}

/**
 * @param {Uint8Array} chunk
 * @returns {Generator<Uint8Array>}
 */
function* messages(chunk) {
  for (let at = 0; at < chunk.length; at += MAX_MESSAGE_BYTES)
    yield chunk.subarray(at, at + MAX_MESSAGE_BYTES);
}

/**
 * @param {new (url: string, protocols?: string | string[]) => any} WebSocket
 * @param {WebSocketAddress} address
 * @param {import('../settings.js').Settings} settings
 * @param {AbortSignal} signal
 * @returns {Promise<Transport>}
 */
function dialPlain(WebSocket, { url, text }, settings, signal) {
  return new Promise((resolve, reject) => {
    signal.throwIfAborted();
    const protocols = subprotocols(settings);
    /** @type {any} */
    let socket;
    try {
      socket = protocols.length === 0 ? new WebSocket(url) : new WebSocket(url, protocols);
    } catch (cause) {
      reject(noBroker(text, cause)); // for example ws:// in a page of https://
      return;
    }
    socket.binaryType = 'arraybuffer';
    const transport = new PlainTransport(socket);
    const removeAbort = onAbort(signal, () => {
      transport.destroy();
      reject(signal.reason);
    });
    /** @type {unknown} */
    let cause;
    transport.opened = () => {
      removeAbort();
      resolve(transport);
    };
    transport.failed = (error) => {
      if (error !== undefined) cause = error;
      else {
        removeAbort();
        reject(noBroker(text, cause));
      }
    };
  });
}

/** @implements {Transport} */
class PlainTransport {
  #socket;
  #ended = false;
  /** @type {Error | undefined} */
  #error;
  /** @type {TransportEvents | undefined} */
  #events;
  /** Messages that arrive before the start.
   * @type {Uint8Array[]} */
  #early = [];
  /** @type {ReturnType<typeof setInterval> | undefined} */
  #polling;

  canPause = false;
  canHalfClose = false;
  /** @type {(() => void) | undefined} */
  opened;
  /** Called with an error, then without one when the socket has closed.
   * @type {((error?: unknown) => void) | undefined} */
  failed;

  /** @param {any} socket */
  constructor(socket) {
    this.#socket = socket;
    socket.onopen = () => {
      this.failed = undefined;
      this.opened?.();
    };
    socket.onmessage = (/** @type {any} */ message) => this.#message(message.data);
    socket.onerror = (/** @type {any} */ event) => {
      const error = event?.error ?? new Error(event?.message || 'the WebSocket failed');
      this.#error = error instanceof Error ? error : new Error(messageOf(error));
      this.failed?.(this.#error);
    };
    socket.onclose = (/** @type {any} */ event) => {
      const { code, reason } = event ?? {};
      if (this.#error === undefined && code !== undefined && code !== 1000 && code !== 1005) {
        this.#error = new Error(`the WebSocket was closed with ${code}${reason ? ` (${reason})` : ''}`);
      }
      this.failed?.();
      this.#end();
    };
  }

  /** @param {ArrayBuffer | string} data */
  #message(data) {
    if (this.#ended) return;
    if (typeof data === 'string') {
      this.#error = new Error('the peer sent text instead of binary messages');
      this.#socket.close();
      this.#end();
      return;
    }
    const chunk = new Uint8Array(data);
    if (this.#events === undefined) this.#early.push(chunk);
    else this.#events.data(chunk);
  }

  /** @param {TransportEvents} events */
  start(events) {
    this.#events = events;
    for (const chunk of this.#early.splice(0)) events.data(chunk);
    if (this.#socket.readyState > 1) queueMicrotask(() => this.#end());
  }

  /** @param {Uint8Array} chunk */
  write(chunk) {
    if (this.#ended) return false;
    for (const message of messages(chunk)) this.#socket.send(message);
    if (this.#socket.bufferedAmount <= MAX_BUFFERED_BYTES) return true;
    this.#polling ??= setInterval(() => {
      if (this.#socket.bufferedAmount > MAX_BUFFERED_BYTES / 2 && !this.#ended) return;
      clearInterval(this.#polling);
      this.#polling = undefined;
      if (!this.#ended) this.#events?.drain();
    }, BUFFERED_INTERVAL);
    return false;
  }

  pause() {}

  resume() {}

  end() {
    this.#socket.close();
  }

  destroy() {
    this.#ended = true;
    clearInterval(this.#polling);
    // of the package ws: does not wait for the peer
    if (typeof this.#socket.terminate === 'function') this.#socket.terminate();
    else this.#socket.close();
  }

  #end() {
    if (this.#ended || this.#events === undefined) return;
    this.#ended = true;
    clearInterval(this.#polling);
    this.#events.end(this.#error);
  }
}

/**
 * @param {any} WebSocketStream
 * @param {WebSocketAddress} address
 * @param {import('../settings.js').Settings} settings
 * @param {AbortSignal} signal
 * @returns {Promise<Transport>}
 */
async function dialStream(WebSocketStream, { url, text }, settings, signal) {
  /** @type {any} */
  let socket;
  try {
    // a signal would also end a connection that is open
    socket = new WebSocketStream(url, { protocols: subprotocols(settings) });
  } catch (cause) {
    throw noBroker(text, cause);
  }
  socket.closed.catch(() => {});
  const removeAbort = onAbort(signal, () => socket.close());
  try {
    const { readable, writable } = await socket.opened;
    if (signal.aborted) {
      socket.close();
      throw signal.reason;
    }
    return new StreamTransport(socket, readable, writable);
  } catch (cause) {
    signal.throwIfAborted();
    throw noBroker(text, cause);
  } finally {
    removeAbort();
  }
}

/** @implements {Transport} */
class StreamTransport {
  #socket;
  /** @type {ReadableStreamDefaultReader<any>} */
  #reader;
  /** @type {WritableStreamDefaultWriter<Uint8Array>} */
  #writer;
  #ended = false;
  #paused = false;
  #pulling = false;
  /** Bytes that the stream has not accepted. */
  #unwritten = 0;
  #full = false;
  /** @type {TransportEvents | undefined} */
  #events;

  canPause = true;
  canHalfClose = false;

  /**
   * @param {any} socket
   * @param {ReadableStream<any>} readable
   * @param {WritableStream<Uint8Array>} writable
   */
  constructor(socket, readable, writable) {
    this.#socket = socket;
    this.#reader = readable.getReader();
    this.#writer = writable.getWriter();
    this.#reader.closed.catch(() => {});
    this.#writer.closed.catch(() => {});
    this.#writer.ready.catch(() => {});
  }

  /** @param {TransportEvents} events */
  start(events) {
    this.#events = events;
    void this.#pull();
  }

  async #pull() {
    if (this.#pulling) return;
    this.#pulling = true;
    try {
      while (!this.#paused && !this.#ended) {
        const { value, done } = await this.#reader.read();
        if (done) return this.#end(await this.#closeReason());
        if (typeof value === 'string') {
          this.#socket.close();
          return this.#end(new Error('the peer sent text instead of binary messages'));
        }
        if (!this.#ended) this.#events?.data(value instanceof Uint8Array ? value : new Uint8Array(value));
      }
    } catch (error) {
      this.#end(error instanceof Error ? error : new Error(messageOf(error)));
    } finally {
      this.#pulling = false;
    }
    return undefined;
  }

  /** @returns {Promise<Error | undefined>} */
  async #closeReason() {
    try {
      const { closeCode, reason } = await this.#socket.closed;
      if (closeCode === 1000 || closeCode === 1005) return undefined;
      return new Error(`the WebSocket was closed with ${closeCode}${reason ? ` (${reason})` : ''}`);
    } catch (error) {
      return error instanceof Error ? error : new Error(messageOf(error));
    }
  }

  /** @param {Uint8Array} chunk */
  write(chunk) {
    if (this.#ended) return false;
    for (const message of messages(chunk)) {
      this.#unwritten += message.length;
      this.#writer.write(message).then(
        () => this.#written(message.length),
        () => {}, // the reader reports the end of the connection
      );
    }
    this.#full = this.#unwritten > MAX_BUFFERED_BYTES;
    return !this.#full;
  }

  /** @param {number} bytes */
  #written(bytes) {
    this.#unwritten -= bytes;
    if (!this.#full || this.#unwritten > MAX_BUFFERED_BYTES / 2 || this.#ended) return;
    this.#full = false;
    this.#events?.drain();
  }

  pause() {
    this.#paused = true;
  }

  resume() {
    this.#paused = false;
    void this.#pull();
  }

  end() {
    this.#writer.close().catch(() => {});
  }

  destroy() {
    this.#ended = true;
    this.#socket.close();
    this.#reader.cancel().catch(() => {});
    this.#writer.abort().catch(() => {});
  }

  /** @param {Error | undefined} error */
  #end(error) {
    if (this.#ended) return;
    this.#ended = true;
    this.#events?.end(error);
  }
}
