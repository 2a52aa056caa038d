/**
 * UNIX sockets, TCP and TLS, by `node:net` and `node:tls` of Node, Deno and Bun. Never handles bytes of the
 * protocol.
 * @module
 */

import { onAbort } from '../abort.js';
import { ElbusError, messageOf, quoted } from '../errors.js';

/** Delay before a UNIX socket whose backlog is full is tried again, in milliseconds. */
const BACKLOG_RETRY = 5;

/** @typedef {import('./transport.js').Transport} Transport */
/** @typedef {import('./transport.js').TransportEvents} TransportEvents */
/** @typedef {import('../address.js').Address} Address */
/** @typedef {Extract<Address, { kind: 'unix' | 'tcp' | 'tls' }>} SocketAddress */

/**
 * @param {SocketAddress} address
 * @param {import('../settings.js').Settings} settings
 * @param {AbortSignal} signal
 * @returns {Promise<Transport>}
 */
export async function dialSocket(address, settings, signal) {
  const net = await import('node:net').catch((cause) => {
    const remedy = 'use the ws:// or wss:// address of a broker with the plugin websocket';
    const text = `${quoted(address.text)} needs sockets, which this runtime does not have: ${remedy}`;
    throw new ElbusError('bad-address', text, { cause });
  });
  signal.throwIfAborted();
  const target =
    address.kind === 'unix'
      ? { path: address.path }
      : { host: address.host, port: address.port, noDelay: true };
  const socket = await connectSocket(net, target, address, signal);
  if (address.kind === 'unix' || (address.kind === 'tcp' && settings.tls === undefined)) {
    return new SocketTransport(socket);
  }
  return new SocketTransport(await secure(socket, address, settings.tls ?? {}, signal));
}

/**
 * @param {typeof import('node:net')} net
 * @param {import('node:net').NetConnectOpts} target
 * @param {SocketAddress} address
 * @param {AbortSignal} signal
 * @returns {Promise<import('node:net').Socket>}
 */
function connectSocket(net, target, address, signal) {
  return new Promise((resolve, reject) => {
    /** @type {import('node:net').Socket | undefined} */
    let socket;
    /** @type {ReturnType<typeof setTimeout> | undefined} */
    let retry;
    const removeAbort = onAbort(signal, () => {
      clearTimeout(retry);
      socket?.destroy();
      reject(signal.reason);
    });
    const fail = (/** @type {unknown} */ error) => {
      removeAbort();
      const text = `no broker at ${address.text} (${messageOf(error)}): start elbusd or check the address`;
      reject(new ElbusError('no-broker', text, { cause: error }));
    };
    const attempt = () => {
      const connecting = net.connect(target);
      socket = connecting;
      connecting.once('connect', () => {
        removeAbort();
        connecting.removeAllListeners('error');
        resolve(connecting);
      });
      connecting.once('error', (error) => {
        connecting.destroy();
        // the broker runs, and has not yet accepted the connections before this one
        if ('code' in error && error.code === 'EAGAIN' && address.kind === 'unix') {
          retry = setTimeout(attempt, BACKLOG_RETRY);
        } else {
          fail(error);
        }
      });
    };
    try {
      attempt();
    } catch (error) {
      fail(error); // Deno throws if the program may not use the socket
    }
  });
}

/**
 * @param {import('node:net').Socket} socket
 * @param {Extract<Address, { kind: 'tcp' | 'tls' }>} address
 * @param {import('../settings.js').TlsSettings} settings
 * @param {AbortSignal} signal
 * @returns {Promise<import('node:net').Socket>}
 */
async function secure(socket, address, settings, signal) {
  const tls = await import('node:tls');
  const { isIP } = await import('node:net');
  return new Promise((resolve, reject) => {
    const { ca, cert, key, servername } = settings;
    /** @type {import('node:tls').ConnectionOptions} */
    const options = { socket, host: address.host };
    // an IP address is verified by `host`, and cannot be sent as a server name
    if (servername !== undefined) options.servername = servername;
    else if (isIP(address.host) === 0) options.servername = address.host;
    for (const [name, value] of Object.entries({ ca, cert, key })) {
      if (value !== undefined)
        Object.assign(options, { [name]: typeof value === 'string' ? value : Buffer.from(value) });
    }
    const fail = (/** @type {unknown} */ error) => {
      socket.destroy();
      const text = `cannot establish a TLS connection to ${address.text}: ${messageOf(error)}`;
      reject(new ElbusError('tls', text, { cause: error }));
    };
    /** @type {import('node:tls').TLSSocket} */
    let secured;
    try {
      secured = tls.connect(options);
    } catch (error) {
      fail(error); // a certificate or key that cannot be parsed
      return;
    }
    const removeAbort = onAbort(signal, () => {
      secured.destroy();
      socket.destroy();
      reject(signal.reason);
    });
    const onError = (/** @type {unknown} */ error) => {
      removeAbort();
      secured.destroy();
      fail(error);
    };
    const onClose = () => onError(new Error('the peer closed the connection'));
    secured.once('error', onError);
    secured.once('close', onClose);
    secured.once('secureConnect', () => {
      removeAbort();
      secured.removeListener('error', onError);
      secured.removeListener('close', onClose);
      resolve(secured);
    });
  });
}

/** @implements {Transport} */
class SocketTransport {
  #socket;
  #full = false;
  #ended = false;
  /** @type {Error | undefined} */
  #error;
  /** @type {TransportEvents | undefined} */
  #events;

  canPause = true;
  canHalfClose = true;

  /** @param {import('node:net').Socket} socket */
  constructor(socket) {
    this.#socket = socket;
    socket.on('error', (error) => {
      this.#error = error;
    });
    socket.on('end', () => this.#end());
    socket.on('close', () => this.#end());
  }

  /** @param {TransportEvents} events */
  start(events) {
    this.#events = events;
    this.#socket.on('data', (chunk) => {
      if (!this.#ended) events.data(chunk);
    });
    // it can have ended meanwhile
    if (this.#socket.destroyed) queueMicrotask(() => this.#end());
  }

  /** @param {Uint8Array} chunk */
  write(chunk) {
    if (this.#ended) return false;
    this.#socket.write(chunk, this.#written);
    // most chunks are accepted by the kernel at once
    this.#full = this.#socket.writableLength > 0;
    return !this.#full;
  }

  #written = () => {
    if (!this.#full || this.#socket.writableLength > 0 || this.#ended) return;
    this.#full = false;
    this.#events?.drain();
  };

  pause() {
    this.#socket.pause();
  }

  resume() {
    this.#socket.resume();
  }

  end() {
    this.#socket.end();
  }

  destroy() {
    this.#ended = true;
    this.#socket.destroy();
  }

  #end() {
    // what ends before it is started is reported then
    if (this.#ended || this.#events === undefined) return;
    this.#ended = true;
    this.#socket.destroy();
    this.#events.end(this.#error);
  }
}
