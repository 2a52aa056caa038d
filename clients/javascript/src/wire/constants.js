/**
 * The numbers of protocol section 1: operations, kinds of frames, result codes, and the names of qualities of
 * service. Never encodes or decodes.
 * @module
 */

/** Operations of a client. */
export const Op = Object.freeze({
  PUBLISH: 0x01,
  SUBSCRIBE: 0x02,
  UNSUBSCRIBE: 0x03,
  EXCLUDE: 0x04,
  UNEXCLUDE: 0x05,
  PUBLISH_FOR: 0x06,
  MESSAGE: 0x12,
  BROADCAST: 0x13,
});

/** Kinds of frames from the broker. */
export const Kind = Object.freeze({ NOP: 0x00, PUBLISH: 0x01, MESSAGE: 0x12, BROADCAST: 0x13, ACK: 0xfe });

/** Result codes of the broker. */
export const Code = Object.freeze({
  OK: 0x01,
  NOT_REGISTERED: 0x71,
  BAD_DATA: 0x72,
  IO: 0x73,
  OTHER: 0x74,
  NOT_SUPPORTED: 0x75,
  BUSY: 0x76,
  NOT_DELIVERED: 0x77,
  TIMEOUT: 0x78,
  ACCESS_DENIED: 0x79,
});

/** @type {Readonly<Record<number, string>>} */
const CODE_TEXTS = Object.freeze({
  0x01: 'ok',
  0x71: 'not registered',
  0x72: 'invalid data',
  0x73: 'I/O error',
  0x74: 'other error',
  0x75: 'not supported',
  0x76: 'busy',
  0x77: 'not delivered',
  0x78: 'timed out',
  0x79: 'access denied',
});

/**
 * Returns the meaning of a result code, or `undefined` if the protocol does not define it.
 * @param {number} code
 * @returns {string | undefined}
 */
export function codeText(code) {
  return Object.hasOwn(CODE_TEXTS, code) ? CODE_TEXTS[code] : undefined;
}

/**
 * A quality of service: whether the broker acknowledges the operation (`processed`), and whether it is
 * delivered ahead of the limits of queues (`realtime`).
 * @typedef {'no' | 'processed' | 'realtime' | 'realtime-processed'} Qos
 */

/** The bits of each quality of service, as in the top two bits of the flags. */
export const QOS_BITS = Object.freeze({
  no: 0x00,
  processed: 0x40,
  realtime: 0x80,
  'realtime-processed': 0xc0,
});

/** The bit that requests an acknowledgement. */
export const QOS_PROCESSED = 0x40;
/** The bit that requests immediate delivery. */
export const QOS_REALTIME = 0x80;

/** The topic that the broker subscribes every client to. */
export const WARNINGS_TOPIC = '.broker/warn';
/** The topic on which the broker reports publications that it has dropped for a client. */
export const MISSED_TOPIC = '.broker/missed';
/** A filter that no client excludes: removing it changes nothing and is acknowledged. */
export const PROBE_FILTER = '.client/probe';
/** Separates the name of a primary client and the suffix of a secondary one. */
export const SECONDARY_SEPARATOR = '%%';

/**
 * Returns the primary part of a name.
 * @param {string} name
 * @returns {string}
 */
export function primaryOf(name) {
  const at = name.indexOf(SECONDARY_SEPARATOR);
  return at < 0 ? name : name.slice(0, at);
}
