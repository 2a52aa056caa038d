// The client of the bus as the page uses it. Owns the path that the client is served at; nothing else imports
// it.

export { connect, decode, encode, ElbusError, Extension, RpcError } from '/elbus/index.js';

/** @typedef {import('/elbus/index.js').Client} Client */
/** @typedef {import('/elbus/index.js').Subscription} Subscription */
/** @typedef {import('/elbus/index.js').Frame} Frame */
