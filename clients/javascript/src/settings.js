/**
 * Settings of a client: their defaults and checks. Never connects.
 * @module
 */

import { checkKeys } from './arguments.js';
import { systemClock } from './clock.js';
import { invalidArgument } from './errors.js';

/**
 * The delays between attempts to reconnect.
 * @typedef {object} Backoff
 * @property {number} [firstDelay] The delay before the first attempt, in ms; it doubles with each further
 *   one. Default: 100.
 * @property {number} [maxDelay] The longest delay, in ms. Default: 10,000.
 * @property {number} [jitter] The random part of each delay, from 0 to 1, which spreads the attempts of many
 *   clients. Default: 0.5.
 * @property {number} [maxAttempts] The client ends after this many consecutive failed attempts. Default: no
 *   limit.
 */

/**
 * Certificates for `tls://` addresses, as in `tls.connect` of Node: `ca`, `cert`, `key` as PEM, `servername`.
 * @typedef {object} TlsSettings
 * @property {string | Uint8Array} [ca] Certificates of trusted authorities. Default: those of the runtime.
 * @property {string | Uint8Array} [cert] The client's certificate.
 * @property {string | Uint8Array} [key] The client's key.
 * @property {string} [servername] The name that the broker's certificate must have. Default: the host of the
 *   address.
 */

/**
 * What happens to received frames when more than `queueBytes` are queued for their consumer:
 *
 * - `block`: the connection is not read until the consumer has caught up; the broker then holds the senders.
 *   If the consumer takes nothing for `holdLimit`, further frames are dropped and counted until it continues,
 *   so that the client stays connected.
 * - `drop-newest`: new frames are dropped; the next queued frame reports how many (`frame.missed`).
 * - `drop-oldest`: the oldest frames are dropped; the frame behind them reports how many.
 * @typedef {'block' | 'drop-newest' | 'drop-oldest'} Overflow
 */

/**
 * Settings of a client; times are in milliseconds.
 * @typedef {object} ClientSettings
 * @property {number} [timeout] The limit for connecting, for an acknowledgement, for space in the send queue
 *   and, unless the call has another one, for the reply to a call. A broker that is silent for this long is
 *   probed, and the connection is lost after twice as long. Default: 5,000.
 * @property {boolean | Backoff} [reconnect] What happens when the connection is lost: `true` or the delays
 *   connect again and restore subscriptions and exclusions. The first connection is attempted once only.
 *   Default: `false`.
 * @property {number} [pingInterval] The interval of pings while nothing else is sent. The broker disconnects
 *   a client that is silent for 6.25 s by default. Default: 1,000.
 * @property {number} [queueBytes] The limit of bytes queued for sending, beyond which senders wait, and of
 *   received bytes queued for each consumer, beyond which `overflow` applies. Default: 8 MiB.
 * @property {number} [maxFrameBytes] The limit of a sent or received payload, in bytes. Default: 256 MiB.
 * @property {Overflow} [overflow] What happens to received frames when a queue is full. Default: `block`.
 * @property {number} [holdLimit] How long a consumer that takes nothing can pause the reading of the
 *   connection. A broker disconnects a client that reads nothing for 4 s by default. Default: 3,000.
 * @property {boolean} [queueCalls] Calls and notifications that arrive before `serve` wait for it, instead of
 *   arriving at `frames`. Default: `false`.
 * @property {TlsSettings} [tls] Certificates; also makes `host:port` use TLS. Not in browsers.
 * @property {string} [token] The token of a WebSocket, which proves who the client is: a line of
 *   `tokens_file`, or what the broker has logged at its start.
 * @property {new (url: string, protocols?: string | string[]) => any} [WebSocket] The class of WebSockets, if
 *   the runtime has none: Node 20 needs that of the package `ws`.
 * @property {AbortSignal} [signal] Aborts connecting. Has no effect on a connected client.
 */

/**
 * @typedef {object} Settings
 * @property {number} timeout
 * @property {Required<Backoff> | undefined} reconnect
 * @property {number} pingInterval
 * @property {number} queueBytes
 * @property {number} maxFrameBytes
 * @property {Overflow} overflow
 * @property {number} holdLimit
 * @property {boolean} queueCalls
 * @property {TlsSettings | undefined} tls
 * @property {string | undefined} token
 * @property {(new (url: string, protocols?: string | string[]) => any) | undefined} WebSocket
 * @property {import('./clock.js').Clock} clock
 * @property {import('./transport/transport.js').Dial | undefined} dial
 */

/** Replace parts of a client in tests: passed to {@link resolveSettings} by `Connection.open`. */
/** @typedef {{ clock?: import('./clock.js').Clock, dial?: import('./transport/transport.js').Dial }} Seams */

const MAX_FRAME_BYTES = 256 * 1024 * 1024;
const KEYS = new Set([
  'timeout',
  'reconnect',
  'pingInterval',
  'queueBytes',
  'maxFrameBytes',
  'overflow',
  'holdLimit',
  'queueCalls',
  'tls',
  'token',
  'WebSocket',
  'signal',
]);
const TLS_KEYS = new Set(['ca', 'cert', 'key', 'servername']);
const BACKOFF_KEYS = new Set(['firstDelay', 'maxDelay', 'jitter', 'maxAttempts']);

/**
 * Checks settings and adds the defaults.
 * @param {ClientSettings} given
 * @param {Seams} [seams]
 * @returns {Settings}
 */
export function resolveSettings(given, seams = {}) {
  if (typeof given !== 'object' || given === null) throw invalidArgument('the settings', given, 'an object');
  checkKeys('the settings', given, KEYS);
  const overflow = given.overflow ?? 'block';
  if (!['block', 'drop-newest', 'drop-oldest'].includes(overflow)) {
    throw invalidArgument('overflow', overflow, '"block", "drop-newest" or "drop-oldest"');
  }
  if (given.tls !== undefined && (typeof given.tls !== 'object' || given.tls === null)) {
    throw invalidArgument('tls', given.tls, 'an object with ca, cert, key or servername');
  }
  checkKeys('tls', given.tls ?? {}, TLS_KEYS);
  if (given.WebSocket !== undefined && typeof given.WebSocket !== 'function') {
    throw invalidArgument('WebSocket', given.WebSocket, 'a class of WebSockets');
  }
  return {
    timeout: positive('timeout', given.timeout, 5000),
    reconnect: resolveReconnect(given.reconnect ?? false),
    pingInterval: positive('pingInterval', given.pingInterval, 1000),
    queueBytes: number('queueBytes', given.queueBytes, 8 * 1024 * 1024),
    maxFrameBytes: Math.min(number('maxFrameBytes', given.maxFrameBytes, MAX_FRAME_BYTES), 0xffffffff),
    overflow,
    holdLimit: number('holdLimit', given.holdLimit, 3000),
    queueCalls: boolean('queueCalls', given.queueCalls, false),
    tls: given.tls,
    token: checkToken(given.token),
    WebSocket: given.WebSocket,
    clock: seams.clock ?? systemClock,
    dial: seams.dial,
  };
}

/**
 * @param {unknown} token
 * @returns {string | undefined}
 */
function checkToken(token) {
  if (token === undefined) return undefined;
  // it is sent as a subprotocol
  if (typeof token === 'string' && /^[\w!#$%&'*+.^`|~-]+$/.test(token)) return token;
  throw invalidArgument(
    'token',
    typeof token === 'string' ? 'a text' : token,
    'letters, digits and punctuation',
  );
}

/**
 * @param {unknown} given
 * @returns {Required<Backoff> | undefined}
 */
function resolveReconnect(given) {
  if (given === false) return undefined;
  if (given !== true && (typeof given !== 'object' || given === null)) {
    throw invalidArgument('reconnect', given, 'a boolean, or { firstDelay, maxDelay, jitter, maxAttempts }');
  }
  if (given !== true) checkKeys('reconnect', given, BACKOFF_KEYS);
  const { firstDelay, maxDelay, jitter, maxAttempts } =
    given === true ? /** @type {Backoff} */ ({}) : /** @type {Backoff} */ (given);
  return {
    firstDelay: number('reconnect.firstDelay', firstDelay, 100),
    maxDelay: number('reconnect.maxDelay', maxDelay, 10_000),
    jitter: Math.min(number('reconnect.jitter', jitter, 0.5), 1),
    maxAttempts: number('reconnect.maxAttempts', maxAttempts, Infinity),
  };
}

/**
 * Returns the delay before an attempt, which counts from 1, or `undefined` if it exceeds the limit.
 * @param {Required<Backoff>} backoff
 * @param {number} attempt
 * @returns {number | undefined}
 */
export function backoffDelay(backoff, attempt) {
  if (attempt > backoff.maxAttempts) return undefined;
  const delay = Math.min(backoff.firstDelay * 2 ** Math.min(attempt - 1, 31), backoff.maxDelay);
  return delay * (1 - backoff.jitter * Math.random());
}

/**
 * @param {string} name
 * @param {unknown} value
 * @param {number} fallback
 * @returns {number}
 */
export function number(name, value, fallback) {
  if (value === undefined) return fallback;
  if (typeof value !== 'number' || Number.isNaN(value) || value < 0) {
    throw invalidArgument(name, value, 'a number that is not negative');
  }
  return value;
}

/**
 * @param {string} name
 * @param {unknown} value
 * @param {number} fallback
 * @returns {number}
 */
export function positive(name, value, fallback) {
  return Math.max(number(name, value, fallback), 1);
}

/**
 * @param {string} name
 * @param {unknown} value
 * @param {boolean} fallback
 * @returns {boolean}
 */
export function boolean(name, value, fallback) {
  if (value === undefined) return fallback;
  if (typeof value !== 'boolean') throw invalidArgument(name, value, 'a boolean');
  return value;
}
