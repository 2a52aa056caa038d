/**
 * Parses what the broker sends after the handshake (protocol section 4). Owns the beginning of an incomplete
 * frame; does not decide which consumer gets a frame.
 *
 * Frames that are complete within a received chunk share its memory. An incomplete one is gathered in memory
 * that grows with what has arrived, not with the length that it claims.
 * @module
 */

import { Frame } from '../frame.js';
import { Kind } from './constants.js';
import { TextCache } from './text.js';

const HEADER_BYTES = 6;
/** Minimum memory for an incomplete frame that is longer, in bytes. */
const PARTIAL_BYTES = 64 * 1024;
/** What sender and topic can take besides the payload that the sender's limit is about, in bytes. */
const TEXTS_BYTES = 2 * 64 * 1024;

/**
 * An invalid frame. `fault` is the kind of the fault as in the conformance cases.
 */
export class FrameFault extends Error {
  /**
   * @param {'too-long' | 'unknown-kind' | 'missing-nul' | 'not-utf8'} fault
   * @param {string} message
   * @param {'sender' | 'topic'} [field]
   */
  constructor(fault, message, field) {
    super(message);
    this.name = 'FrameFault';
    this.fault = fault;
    this.field = field;
  }
}

/**
 * Receives what was parsed, in order.
 * @typedef {object} DeliveryReceiver
 * @property {(opId: number, code: number) => void} ack
 * @property {(frame: Frame) => void} frame
 */

export class DeliveryParser {
  #limit;
  #receiver;
  /** @type {Uint8Array} */
  #partial = new Uint8Array(0);
  #partialLength = 0;
  #texts = new TextCache();
  #sender = new TextField(this.#texts, 'sender');
  #topic = new TextField(this.#texts, 'topic');

  /**
   * `limit` is that of a body, in bytes.
   * @param {number} limit
   * @param {DeliveryReceiver} receiver
   */
  constructor(limit, receiver) {
    this.#limit = limit;
    this.#receiver = receiver;
  }

  /**
   * Returns the limit of a delivered body for a limit of payloads.
   * @param {number} maxFrameBytes
   * @returns {number}
   */
  static bodyLimit(maxFrameBytes) {
    return maxFrameBytes + TEXTS_BYTES;
  }

  /**
   * The bytes of an incomplete frame that have arrived.
   * @returns {number}
   */
  get pendingBytes() {
    return this.#partialLength;
  }

  /**
   * Parses a chunk, whose memory the parser and its frames own from now on.
   * @param {Uint8Array} chunk
   * @throws {FrameFault} Frames before the invalid one have been handed to the receiver.
   */
  push(chunk) {
    let at = this.#partialLength > 0 ? this.#completePartial(chunk) : 0;
    if (at < chunk.length) {
      at = this.#parse(chunk, at, chunk.length);
      if (at < chunk.length) this.#keep(chunk, at);
    }
  }

  /**
   * Adds to the incomplete frame what it needs, and parses it if that completes it. Returns how much it has
   * taken.
   * @param {Uint8Array} chunk
   * @returns {number}
   */
  #completePartial(chunk) {
    let at = 0;
    for (;;) {
      const needed = this.#needed(this.#partial, 0, this.#partialLength);
      const missing = needed - this.#partialLength;
      if (missing === 0) break;
      const taken = Math.min(missing, chunk.length - at);
      if (taken === 0) return at;
      this.#reserve(taken, needed);
      this.#partial.set(chunk.subarray(at, at + taken), this.#partialLength);
      this.#partialLength += taken;
      at += taken;
    }
    const bytes = this.#partial;
    const length = this.#partialLength;
    this.#partial = new Uint8Array(0);
    this.#partialLength = 0;
    this.#parse(bytes, 0, length);
    return at;
  }

  /**
   * Keeps the beginning of a frame.
   * @param {Uint8Array} chunk
   * @param {number} at
   */
  #keep(chunk, at) {
    const rest = chunk.length - at;
    this.#reserve(rest, this.#needed(chunk, at, chunk.length));
    this.#partial.set(chunk.subarray(at), 0);
    this.#partialLength = rest;
  }

  /**
   * Makes room for more bytes of the incomplete frame, of which `needed` complete it.
   * @param {number} more
   * @param {number} needed
   */
  #reserve(more, needed) {
    const length = this.#partialLength + more;
    if (length <= this.#partial.length) return;
    // doubles what has arrived
    const capacity = Math.max(length, Math.min(needed, Math.max(2 * this.#partialLength, PARTIAL_BYTES)));
    const grown = new Uint8Array(capacity);
    grown.set(this.#partial.subarray(0, this.#partialLength));
    this.#partial = grown;
  }

  /**
   * Returns the whole length of the frame at a position, or of its header if that is incomplete.
   * @param {Uint8Array} bytes
   * @param {number} at
   * @param {number} end
   * @returns {number}
   */
  #needed(bytes, at, end) {
    if (end - at < HEADER_BYTES) return HEADER_BYTES;
    const kind = bytes[at];
    if (kind === Kind.NOP || kind === Kind.ACK) return HEADER_BYTES;
    return HEADER_BYTES + this.#bodyLength(bytes, at);
  }

  /**
   * Returns the declared length of a body.
   * @param {Uint8Array} bytes
   * @param {number} at
   * @returns {number}
   */
  #bodyLength(bytes, at) {
    const kind = bytes[at];
    if (kind !== Kind.MESSAGE && kind !== Kind.PUBLISH && kind !== Kind.BROADCAST) {
      throw new FrameFault('unknown-kind', `unknown kind of frame 0x${kind.toString(16).padStart(2, '0')}`);
    }
    const length = readU32(bytes, at + 1);
    if (length > this.#limit) {
      throw new FrameFault('too-long', `body of ${length} bytes exceeds ${this.#limit} (maxFrameBytes)`);
    }
    return length;
  }

  /**
   * Parses all complete frames. Returns the position behind them.
   * @param {Uint8Array} bytes
   * @param {number} from
   * @param {number} end
   * @returns {number}
   */
  #parse(bytes, from, end) {
    const receiver = this.#receiver;
    let at = from;
    while (end - at >= HEADER_BYTES) {
      const kind = bytes[at];
      if (kind === Kind.ACK) {
        receiver.ack(readU32(bytes, at + 1), bytes[at + 5]);
        at += HEADER_BYTES;
        continue;
      }
      if (kind === Kind.NOP) {
        at += HEADER_BYTES;
        continue;
      }
      const bodyEnd = at + HEADER_BYTES + this.#bodyLength(bytes, at);
      if (bodyEnd > end) break;
      receiver.frame(this.#frame(bytes, at, bodyEnd));
      at = bodyEnd;
    }
    return at;
  }

  /**
   * @param {Uint8Array} bytes
   * @param {number} at
   * @param {number} end
   * @returns {Frame}
   */
  #frame(bytes, at, end) {
    const start = at + HEADER_BYTES;
    const realtime = bytes[at + 5] !== 0;
    const sender = this.#sender.read(bytes, start, end);
    const senderEnd = this.#sender.end;
    if (bytes[at] !== Kind.PUBLISH) {
      const kind = bytes[at] === Kind.MESSAGE ? 'message' : 'broadcast';
      return new Frame(kind, realtime, sender, '', bytes, senderEnd + 1, end);
    }
    const topic = this.#topic.read(bytes, senderEnd + 1, end);
    return new Frame('publish', realtime, sender, topic, bytes, this.#topic.end + 1, end);
  }
}

/** A text of frames that ends with a NUL, and often is that of the frame before. */
class TextField {
  #texts;
  #field;
  #last = '';
  #lastBytes = /** @type {Uint8Array} */ (new Uint8Array(0));

  /** The position of the NUL behind the text that was read last. */
  end = 0;

  /**
   * @param {TextCache} texts
   * @param {'sender' | 'topic'} field
   */
  constructor(texts, field) {
    this.#texts = texts;
    this.#field = field;
  }

  /**
   * Reads the text at a position. The frame ends at `limit`.
   * @param {Uint8Array} bytes
   * @param {number} start
   * @param {number} limit
   * @returns {string}
   */
  read(bytes, start, limit) {
    const last = this.#lastBytes;
    let same = 0;
    while (same < last.length && last[same] === bytes[start + same]) same += 1;
    if (same === last.length && bytes[start + same] === 0 && start + same < limit) {
      this.end = start + same;
      return this.#last;
    }
    // the beginning that is the same contains no NUL
    const end = bytes.indexOf(0, start + same);
    if (end < 0 || end >= limit) {
      throw new FrameFault('missing-nul', `${this.#field} has no terminating NUL`, this.#field);
    }
    const text = this.#texts.decode(bytes, start, end);
    if (text === undefined) throw new FrameFault('not-utf8', `${this.#field} is not UTF-8`, this.#field);
    this.end = end;
    // a long text is not remembered
    this.#lastBytes = this.#texts.key;
    this.#last = this.#lastBytes.length === end - start ? text : '';
    return text;
  }
}

/**
 * @param {Uint8Array} bytes
 * @param {number} at
 * @returns {number}
 */
function readU32(bytes, at) {
  const low = bytes[at] | (bytes[at + 1] << 8) | (bytes[at + 2] << 16);
  return (low | (bytes[at + 3] << 24)) >>> 0;
}
