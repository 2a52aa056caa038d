/**
 * Connects and registers: from an address to a registered connection. Sends nothing after the handshake.
 * @module
 */

import { closed, disconnected, ElbusError, messageOf, quoted, timedOut } from '../errors.js';
import { dial } from '../transport/transport.js';
import { Code, codeText } from '../wire/constants.js';
import { encodeRegistration, GREETING_BYTES, greetingFault, MAX_NAME_BYTES } from '../wire/handshake.js';
import { isWellFormed, textBytes } from '../wire/text.js';

/** @typedef {import('../transport/transport.js').Transport} Transport */

/**
 * A registered connection, and its events, which the new owner replaces at once. `rest` are the bytes that
 * the broker has sent after its answer.
 * @typedef {object} Registered
 * @property {Transport} transport
 * @property {import('../transport/transport.js').TransportEvents} events
 * @property {Uint8Array} rest
 */

/**
 * Refuses a name that cannot be sent. Other names are for the broker to refuse.
 * @param {string} name
 */
export function checkName(name) {
  if (name.includes('\0') || !isWellFormed(name) || textBytes(name) > MAX_NAME_BYTES) {
    throw nameRefused(name, Code.BAD_DATA);
  }
}

/**
 * Starts connecting. Exactly one of `done` and `failed` is called, unless the attempt is cancelled. The
 * timeout covers connecting and registering.
 * @param {import('../address.js').Address} address
 * @param {string} name
 * @param {import('../settings.js').Settings} settings
 * @param {(registered: Registered) => void} done
 * @param {(error: ElbusError) => void} failed
 * @returns {() => void} Cancels the attempt.
 */
export function register(address, name, settings, done, failed) {
  const attempt = new Attempt(address, name, settings, done, failed);
  void attempt.run();
  return () => attempt.cancel();
}

class Attempt {
  #address;
  #name;
  #settings;
  #done;
  #failed;
  #abort = new AbortController();
  #timer;
  /** @type {Transport | undefined} */
  #transport;
  #received = new Uint8Array(0);
  /** @type {'greeting' | 'answer to the greeting' | 'answer to the name' | 'over'} */
  #stage = 'greeting';

  /**
   * @param {import('../address.js').Address} address
   * @param {string} name
   * @param {import('../settings.js').Settings} settings
   * @param {(registered: Registered) => void} done
   * @param {(error: ElbusError) => void} failed
   */
  constructor(address, name, settings, done, failed) {
    this.#address = address;
    this.#name = name;
    this.#settings = settings;
    this.#done = done;
    this.#failed = failed;
    const { timeout, clock } = settings;
    this.#timer = clock.setTimer(
      () => this.#fail(timedOut(`connecting to ${address.text}`, timeout)),
      timeout,
    );
  }

  async run() {
    const connect = this.#settings.dial ?? dial;
    try {
      const transport = await connect(this.#address, this.#settings, this.#abort.signal);
      if (this.#stage === 'over') return transport.destroy();
      this.#transport = transport;
      /** @type {import('../transport/transport.js').TransportEvents} */
      const events = {
        data: (chunk) => this.#data(chunk, events),
        drain: () => {},
        end: (error) => this.#ended(error),
      };
      transport.start(events);
    } catch (error) {
      this.#fail(error instanceof ElbusError ? error : disconnected(messageOf(error), error));
    }
    return undefined;
  }

  cancel() {
    this.#over();
    this.#transport?.destroy();
  }

  #over() {
    this.#stage = 'over';
    this.#settings.clock.clearTimer(this.#timer);
    this.#abort.abort(closed());
  }

  /** @param {ElbusError} error */
  #fail(error) {
    if (this.#stage === 'over') return;
    this.cancel();
    this.#failed(error);
  }

  /**
   * @param {Uint8Array} chunk
   * @param {import('../transport/transport.js').TransportEvents} events
   */
  #data(chunk, events) {
    if (this.#stage === 'over' || this.#transport === undefined) return;
    const bytes = new Uint8Array(this.#received.length + chunk.length);
    bytes.set(this.#received);
    bytes.set(chunk, this.#received.length);
    this.#received = bytes;
    if (this.#stage === 'greeting') {
      if (bytes.length < GREETING_BYTES) return;
      const fault = greetingFault(bytes);
      if (fault !== undefined) return this.#fail(this.#notABroker(`sent a ${fault}`));
      this.#received = bytes.subarray(GREETING_BYTES);
      this.#transport.write(encodeRegistration(this.#name));
      this.#stage = 'answer to the greeting';
    }
    while (this.#received.length > 0) {
      const code = this.#received[0];
      this.#received = this.#received.subarray(1);
      if (code !== Code.OK) return this.#fail(this.#refused(code));
      if (this.#stage === 'answer to the greeting') {
        this.#stage = 'answer to the name';
        continue;
      }
      const [transport, rest] = [this.#transport, this.#received];
      this.#over();
      return this.#done({ transport, events, rest });
    }
    return undefined;
  }

  /** @param {Error | undefined} error */
  #ended(error) {
    if (error === undefined)
      return this.#fail(this.#notABroker('closed the connection during the handshake'));
    const { code } = /** @type {{ code?: string }} */ (error);
    // the broker can refuse the client's certificate after the client has completed the TLS handshake
    if (typeof code === 'string' && /SSL|TLS|EPROTO/.test(code)) {
      const text = `cannot establish a TLS connection to ${this.#address.text}: ${error.message}`;
      return this.#fail(new ElbusError('tls', text, { cause: error }));
    }
    const reason = `${this.#address.text} during the handshake: ${messageOf(error)}`;
    return this.#fail(disconnected(reason, error));
  }

  /**
   * @param {number} code
   * @returns {ElbusError}
   */
  #refused(code) {
    const name = this.#name;
    const stage = this.#stage === 'answer to the name' ? 'name' : 'greeting';
    switch (code) {
      case Code.BUSY: {
        const text = `another client is registered as ${quoted(name)}`;
        return new ElbusError('name-taken', `${text}: choose another name or stop that client`, { code });
      }
      case Code.BAD_DATA:
        return nameRefused(name, code);
      case Code.NOT_REGISTERED: {
        const text = `${quoted(name)} is a secondary name and its primary client is not registered`;
        return new ElbusError('no-primary', `${text}: connect that first`, { code });
      }
      case Code.ACCESS_DENIED: {
        const text = `access denied: register as ${quoted(name)}: the broker's access rules do not allow it`;
        return new ElbusError('access-denied', text, { code });
      }
      default: {
        const known = codeText(code);
        if (known !== undefined) return this.#notABroker(`refused the ${stage} (${known})`);
        return this.#notABroker(`answered the ${stage} with 0x${code.toString(16).padStart(2, '0')}`);
      }
    }
  }

  /**
   * @param {string} reason Follows "it".
   * @returns {ElbusError}
   */
  #notABroker(reason) {
    const text = `${this.#address.text} is not an ELBUS broker: it ${reason}: check the address`;
    return new ElbusError('not-a-broker', text);
  }
}

/**
 * @param {string} name
 * @param {number} code
 * @returns {ElbusError}
 */
function nameRefused(name, code) {
  const rules =
    "a name must not be empty, start with a dot, contain a NUL byte or exceed the broker's max_name_bytes";
  return new ElbusError('name-refused', `the broker refused the name ${quoted(name)}: ${rules}`, { code });
}
