/**
 * Performs operations: queues the frame, waits for room and for the acknowledgement. Owns the conversion of
 * their outcome to an error; arguments were checked before.
 * @module
 */

import { abortable } from '../abort.js';
import { ElbusError, fromCode, quoted, timedOut } from '../errors.js';
import { Code, Op, PROBE_FILTER, QOS_PROCESSED, QOS_REALTIME } from '../wire/constants.js';
import { payloadBytes } from '../wire/request.js';
import { EMPTY, NO_REPLY, requestHead } from '../wire/rpc.js';
import { encodeText } from '../wire/text.js';

/** Longer texts are encoded before their frame, in UTF-16 units. */
const LONG_TEXT = 4096;
/** Size of the memory that short payloads which wait share, in bytes. */
const ARENA_BYTES = 64 * 1024;

/** @type {Readonly<Record<number, string>>} */
const OPERATION_TEXTS = Object.freeze({
  [Op.MESSAGE]: 'send to',
  [Op.BROADCAST]: 'broadcast to',
  [Op.PUBLISH]: 'publish to',
  [Op.PUBLISH_FOR]: 'publish to',
  [Op.SUBSCRIBE]: 'subscribe to',
  [Op.UNSUBSCRIBE]: 'unsubscribe from',
  [Op.EXCLUDE]: 'exclude',
  [Op.UNEXCLUDE]: 'unexclude',
});

/**
 * Returns the words that precede the target of an operation in errors.
 * @param {number} op
 * @returns {string}
 */
export function operationText(op) {
  return OPERATION_TEXTS[op];
}

/**
 * A frame to be sent. `head` precedes the payload: the header of the RPC layer.
 * @typedef {object} Request
 * @property {number} op
 * @property {number} qos The bits of the flags.
 * @property {string} target
 * @property {string} receiver
 * @property {Uint8Array} head
 * @property {string | Uint8Array} payload
 */

/** An operation whose caller waits for its acknowledgement. */
class AwaitedAck {
  deadline = 0;

  /**
   * @param {(value: undefined) => void} resolve
   * @param {(error: Error) => void} reject
   * @param {string} operation
   * @param {string} target
   * @param {number} timeout
   */
  constructor(resolve, reject, operation, target, timeout) {
    this.resolve = resolve;
    this.lost = reject;
    this.operation = operation;
    this.target = target;
    this.timeout = timeout;
  }

  /** @param {number} code */
  acked(code) {
    if (code === Code.OK) this.resolve(undefined);
    else this.lost(fromCode(code, this.operation, this.target));
  }

  expired() {
    this.lost(timedOut(`${this.operation} ${quoted(this.target)}`, this.timeout));
  }
}

export class Operations {
  #connection;

  /** @param {import('./connection.js').Connection} connection */
  constructor(connection) {
    this.#connection = connection;
  }

  /**
   * Queues a frame, and waits for its acknowledgement if it requests one.
   * @param {Request} request
   * @param {AbortSignal} [signal]
   * @returns {Promise<void>}
   */
  send(request, signal) {
    const { sendQueue } = this.#connection;
    try {
      this.#checkSendable(request);
      if (sendQueue.mustWait((request.qos & QOS_REALTIME) !== 0)) {
        copyPayload(request);
        return this.whenRoom(() => this.#sendNow(request, signal), signal);
      }
    } catch (error) {
      return Promise.reject(error);
    }
    return this.#sendNow(request, signal);
  }

  /**
   * @param {Request} request
   * @param {AbortSignal | undefined} signal
   * @returns {Promise<void>}
   */
  #sendNow(request, signal) {
    const { sendQueue } = this.#connection;
    if ((request.qos & QOS_PROCESSED) === 0) {
      sendQueue.send(0, request, false);
      return sendQueue.turn();
    }
    const queue = (/** @type {number} */ id, /** @type {boolean} */ alone) =>
      sendQueue.send(id, request, alone);
    return this.acknowledged(queue, OPERATION_TEXTS[request.op], request.target, signal);
  }

  /**
   * Waits for the acknowledgement of an operation that `queue` queues.
   * @param {(id: number, alone: boolean) => void} queue
   * @param {string} operation
   * @param {string} target
   * @param {AbortSignal | undefined} signal
   * @returns {Promise<void>}
   */
  acknowledged(queue, operation, target, signal) {
    const { acks, settings } = this.#connection;
    const id = acks.nextId;
    const outcome = new Promise((/** @type {(value: undefined) => void} */ resolve, reject) => {
      this.#insert(new AwaitedAck(resolve, reject, operation, target, settings.timeout), true, queue);
    });
    return abortable(outcome, signal, () => acks.abandon(id));
  }

  /**
   * Adds an operation to those that wait, and queues it.
   * @param {import('./acks.js').PendingAck} entry
   * @param {boolean} expires
   * @param {(id: number, alone: boolean) => void} queue
   */
  #insert(entry, expires, queue) {
    const { acks, gate } = this.#connection;
    const [id, alone] = [acks.nextId, acks.size === 0];
    acks.insert(entry, expires);
    queue(id, alone);
    gate.operationStarted();
  }

  /**
   * Calls `run` when there is room, in the order of these calls.
   * @template T
   * @param {() => T | Promise<T>} run
   * @param {AbortSignal | undefined} signal
   * @returns {Promise<T>}
   */
  whenRoom(run, signal) {
    let cancelled = false;
    const outcome = new Promise((/** @type {(value: T | Promise<T>) => void} */ resolve, reject) => {
      const start = () => {
        if (cancelled) return;
        try {
          resolve(run());
        } catch (error) {
          reject(error);
        }
      };
      this.#connection.sendQueue.wait(start, reject);
    });
    return abortable(outcome, signal, () => {
      cancelled = true;
    });
  }

  /**
   * Calls a method. The result is its bytes.
   * @param {string} target
   * @param {string} method
   * @param {Uint8Array} params
   * @param {{ timeout: number, realtime: boolean, signal: AbortSignal | undefined }} options
   * @returns {Promise<Uint8Array>}
   */
  call(target, method, params, { timeout, realtime, signal }) {
    const { acks, calls, sendQueue } = this.#connection;
    const id = calls.issueId();
    const qos = QOS_PROCESSED | (realtime ? QOS_REALTIME : 0);
    /** @type {Request} */
    const request = {
      op: Op.MESSAGE,
      qos,
      target,
      receiver: '',
      head: requestHead(id, method),
      payload: params,
    };
    let waits = false;
    try {
      this.#checkSendable(request);
      waits = sendQueue.mustWait(realtime);
    } catch (error) {
      return Promise.reject(error);
    }
    /** @type {number | undefined} */
    let ackId;
    let settled = false;
    const expired = () => timedOut(`call of ${quoted(method)} of ${quoted(target)}`, timeout);
    const outcome = calls.add(id, target, timeout, expired, () => {
      settled = true;
      if (ackId !== undefined) acks.abandon(ackId);
    });
    const start = () => {
      if (settled) return;
      ackId = acks.nextId;
      const entry = {
        deadline: 0,
        acked: (/** @type {number} */ code) => {
          if (code !== Code.OK) calls.refuse(id, code);
        },
        lost: () => {}, // the calls fail themselves
        expired: () => {},
      };
      this.#insert(entry, false, (opId, alone) => sendQueue.send(opId, request, alone));
    };
    if (waits) {
      copyPayload(request);
      sendQueue.wait(start, (error) => calls.fail(id, error));
    } else {
      start();
    }
    return abortable(outcome, signal, () => calls.fail(id, signal?.reason));
  }

  /**
   * Calls a method without a reply.
   * @param {string} target
   * @param {string} method
   * @param {Uint8Array} params
   * @param {number} qos
   * @param {AbortSignal | undefined} signal
   * @returns {Promise<void>}
   */
  call0(target, method, params, qos, signal) {
    const head = requestHead(NO_REPLY, method);
    return this.send({ op: Op.MESSAGE, qos, target, receiver: '', head, payload: params }, signal);
  }

  /**
   * Performs an operation that changes nothing and is acknowledged.
   * @param {AbortSignal | undefined} signal
   * @returns {Promise<void>}
   */
  probe(signal) {
    const { sendQueue } = this.#connection;
    const run = () => {
      const queue = (/** @type {number} */ id, /** @type {boolean} */ alone) =>
        sendQueue.sendFilters(id, Op.UNEXCLUDE, [PROBE_FILTER], alone);
      return this.acknowledged(queue, OPERATION_TEXTS[Op.UNEXCLUDE], PROBE_FILTER, signal);
    };
    return this.queueWhenRoom(run, signal);
  }

  /**
   * Checks the state, and calls `run` now or when there is room.
   * @template T
   * @param {() => T | Promise<T>} run
   * @param {AbortSignal | undefined} signal
   * @returns {Promise<T>}
   */
  async queueWhenRoom(run, signal) {
    this.#connection.checkOpen();
    if (this.#connection.sendQueue.mustWait(false)) return this.whenRoom(run, signal);
    return run();
  }

  /** Asks the broker for a sign of life, without waiting for it. */
  probeUnawaited() {
    const { sendQueue } = this.#connection;
    const entry = { deadline: 0, acked: () => {}, lost: () => {}, expired: () => {} };
    this.#insert(entry, true, (id) => sendQueue.sendFilters(id, Op.UNEXCLUDE, [PROBE_FILTER], true));
  }

  /**
   * Queues a topic operation. `acked` is called with its code, unless the connection is lost.
   * @param {number} op
   * @param {readonly string[]} filters
   * @param {(code: number) => void} acked
   */
  restoreFilters(op, filters, acked) {
    const { sendQueue } = this.#connection;
    const entry = { deadline: 0, acked, lost: () => {}, expired: () => {} };
    this.#insert(entry, false, (id) => sendQueue.sendFilters(id, op, filters, false));
  }

  /**
   * Checks the state and the length, and encodes a long payload.
   * @param {Request} request
   */
  #checkSendable(request) {
    this.#connection.checkOpen();
    const { head, payload } = request;
    if (typeof payload === 'string' && payload.length > LONG_TEXT) request.payload = encodeText(payload);
    const { maxFrameBytes } = this.#connection.settings;
    const length = head.length + payloadBytes(request.payload);
    if (length > maxFrameBytes) {
      const text = `payload of ${length} bytes exceeds the limit of ${maxFrameBytes} bytes (maxFrameBytes)`;
      throw new ElbusError('unsendable', text);
    }
  }
}

/** Memory for the payloads of short frames that wait: a buffer for each would cost more than its bytes. */
let arena = new Uint8Array(0);
let arenaAt = 0;

/**
 * Copies the payload of a frame that waits: its sender can change it meanwhile.
 * @param {Request} request
 */
function copyPayload(request) {
  const { payload } = request;
  if (typeof payload === 'string') return;
  const { length } = payload;
  if (length > ARENA_BYTES / 16) {
    request.payload = Uint8Array.from(payload);
    return;
  }
  if (length > arena.length - arenaAt) {
    arena = new Uint8Array(ARENA_BYTES);
    arenaAt = 0;
  }
  arena.set(payload, arenaAt);
  request.payload = arena.subarray(arenaAt, arenaAt + length);
  arenaAt += length;
}

/**
 * Returns a message, whose payload has no head.
 * @param {number} op
 * @param {number} qos
 * @param {string} target
 * @param {string | Uint8Array} payload
 * @param {string} [receiver]
 * @returns {Request}
 */
export function plainRequest(op, qos, target, payload, receiver = '') {
  return { op, qos, target, receiver, head: EMPTY, payload };
}
