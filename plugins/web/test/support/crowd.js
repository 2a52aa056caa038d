// Many small clients over UNIX sockets: registered, silent but for pings, and cheap enough for 10,000 of
// them.

import { once } from 'node:events';
import { connect } from 'node:net';

const GREETING = 0xeb;
const OK = 0x01;
const PUBLISH = 0x01;
const PING = Buffer.alloc(9);
const PING_INTERVAL = 15_000;

/** Clients that come and go. */
export class Crowd {
  /** @type {Map<string, import('node:net').Socket>} */
  #sockets = new Map();
  #path;
  #timer;

  /** @param {string} path The socket of the broker. */
  constructor(path) {
    this.#path = path;
    this.#timer = setInterval(() => {
      for (const socket of this.#sockets.values()) socket.write(PING);
    }, PING_INTERVAL);
  }

  get size() {
    return this.#sockets.size;
  }

  /**
   * Registers a client. Resolves when it is registered.
   * @param {string} name
   * @returns {Promise<void>}
   */
  async join(name) {
    const socket = connect(this.#path);
    // a refused connection is tried again: the backlog of the socket is limited
    const failed = await Promise.race([
      once(socket, 'connect').then(() => false),
      once(socket, 'error').then(() => true),
    ]);
    if (failed) {
      await new Promise((resolve) => {
        setTimeout(resolve, 5);
      });
      return this.join(name);
    }
    socket.on('error', () => {});
    const bytes = Buffer.from(name);
    const head = Buffer.from([GREETING, 1, 0, bytes.length & 0xff, bytes.length >> 8]);
    socket.write(Buffer.concat([head, bytes]));
    // greeting, answer to it, answer to the name
    await received(socket, [GREETING, 1, 0, OK, OK]);
    socket.resume();
    this.#sockets.set(name, socket);
  }

  /**
   * Publishes without an acknowledgement.
   * @param {string} name
   * @param {string | Uint8Array} topic
   * @param {string | Uint8Array} payload
   */
  publish(name, topic, payload) {
    const body = Buffer.concat([Buffer.from(topic), Buffer.from([0]), Buffer.from(payload)]);
    const head = Buffer.alloc(9);
    head[4] = PUBLISH;
    head.writeUInt32LE(body.length, 5);
    this.#sockets.get(name)?.write(Buffer.concat([head, body]));
  }

  /**
   * Registers many clients, several at a time.
   * @param {string[]} names
   */
  async joinAll(names) {
    const left = [...names];
    const worker = async () => {
      for (let name = left.pop(); name !== undefined; name = left.pop()) await this.join(name);
    };
    await Promise.all(Array.from({ length: 32 }, worker));
  }

  /** @param {string} name */
  leave(name) {
    this.#sockets.get(name)?.destroy();
    this.#sockets.delete(name);
  }

  close() {
    clearInterval(this.#timer);
    for (const name of [...this.#sockets.keys()]) this.leave(name);
  }
}

/**
 * @param {import('node:net').Socket} socket
 * @param {number[]} expected
 * @returns {Promise<void>}
 */
function received(socket, expected) {
  return new Promise((resolve, reject) => {
    let all = Buffer.alloc(0);
    const end = () => reject(new Error(`the broker has answered ${all.toString('hex')}`));
    const data = (/** @type {Buffer} */ chunk) => {
      all = Buffer.concat([all, chunk]);
      if (all.length < expected.length) return;
      socket.off('data', data);
      socket.off('close', end);
      if (expected.every((byte, index) => all[index] === byte)) resolve();
      else end();
    };
    socket.on('data', data);
    socket.once('close', end);
  });
}
