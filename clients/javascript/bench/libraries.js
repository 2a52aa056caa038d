/**
 * The measured operations of this client and of the npm package `nats`.
 * @module
 */

import { connect } from '../src/index.js';

/**
 * @typedef {object} Measured
 * @property {(topic: string) => Promise<() => Promise<unknown>>} receive Returns a function for the next
 *   message.
 * @property {(topic: string, payload: Uint8Array, count: number) => Promise<void>} sendAll Without
 *   acknowledgements.
 * @property {(topic: string, payload: Uint8Array) => () => Promise<unknown>} acknowledged Sends one.
 * @property {() => Promise<void>} close
 */

/**
 * @param {string} library
 * @param {string} address
 * @param {string} name
 * @returns {Promise<Measured>}
 */
export function connectTo(library, address, name) {
  return library === 'nats' ? nats(address) : elbus(address, name);
}

/**
 * @param {string} address
 * @param {string} name
 * @returns {Promise<Measured>}
 */
async function elbus(address, name) {
  const client = await connect(address, `bench.${name}.${process.pid}`);
  return {
    async receive(topic) {
      const subscription = await client.subscribe(topic);
      return () => subscription.next();
    },
    async sendAll(topic, payload, count) {
      for (let sent = 0; sent < count; sent += 1) await client.publish(topic, payload, { qos: 'no' });
      await client.roundTrip();
    },
    acknowledged: (topic, payload) => () => client.publish(topic, payload),
    close: () => client.close(),
  };
}

/**
 * @param {string} address
 * @returns {Promise<Measured>}
 */
async function nats(address) {
  const { connect: connectNats } = await import('nats');
  const connection = await connectNats({ servers: address });
  return {
    async receive(topic) {
      const subscription = connection.subscribe(topic.replace('/', '.'));
      await connection.flush();
      const messages = subscription[Symbol.asyncIterator]();
      return () => messages.next();
    },
    async sendAll(topic, payload, count) {
      const subject = topic.replace('/', '.');
      // its publish neither waits nor has back-pressure: a flush now and then keeps its buffer small
      for (let sent = 1; sent <= count; sent += 1) {
        connection.publish(subject, payload);
        if (sent % 1000 === 0) await connection.flush();
      }
      await connection.flush();
    },
    acknowledged: (topic, payload) => {
      const subject = topic.replace('/', '.');
      return () => {
        connection.publish(subject, payload);
        return connection.flush();
      };
    },
    close: () => connection.close(),
  };
}
