/**
 * The client of the ELBUS message broker for Node, browsers, Deno and Bun. Owns the public names; everything
 * else is internal.
 * @module
 */
export { Client, connect } from './client.js';
export { defaultAddress } from './default-address.js';
export { ElbusError, RpcError } from './errors.js';
export { ConnectionEvents } from './events.js';
export { Frame } from './frame.js';
export { decode } from './msgpack/decode.js';
export { encode } from './msgpack/encode.js';
export { Extension } from './msgpack/extension.js';
export { Frames, PendingSubscription, Subscription } from './receive/subscription.js';
export { Cursor } from './rpc/cursor.js';
export { raw } from './rpc/methods.js';
export { ServeHandle } from './rpc/serve.js';
export { cursorMethod } from './rpc/server-cursors.js';
export type CallOptions = import('./client.js').CallOptions;
export type Call0Options = import('./client.js').Call0Options;
export type ClientStats = import('./client.js').ClientStats;
export type OperationOptions = import('./client.js').OperationOptions;
export type Payload = import('./client.js').Payload;
export type SendOptions = import('./client.js').SendOptions;
export type SubscribeOptions = import('./client.js').SubscribeOptions;
export type ErrorKind = import('./errors.js').ErrorKind;
export type ConnectionEvent = import('./events.js').ConnectionEvent;
export type Call = import('./rpc/methods.js').Call;
export type Method = import('./rpc/methods.js').Method;
export type Notification = import('./rpc/serve.js').Notification;
export type ServeOptions = import('./rpc/serve.js').ServeOptions;
export type Backoff = import('./settings.js').Backoff;
export type ClientSettings = import('./settings.js').ClientSettings;
export type Overflow = import('./settings.js').Overflow;
export type TlsSettings = import('./settings.js').TlsSettings;
export type Qos = import('./wire/constants.js').Qos;
export type FilterOptions = import('./wire/filter.js').FilterOptions;
/** @typedef {import('./client.js').CallOptions} CallOptions */
/** @typedef {import('./client.js').Call0Options} Call0Options */
/** @typedef {import('./client.js').ClientStats} ClientStats */
/** @typedef {import('./client.js').OperationOptions} OperationOptions */
/** @typedef {import('./client.js').Payload} Payload */
/** @typedef {import('./client.js').SendOptions} SendOptions */
/** @typedef {import('./client.js').SubscribeOptions} SubscribeOptions */
/** @typedef {import('./errors.js').ErrorKind} ErrorKind */
/** @typedef {import('./events.js').ConnectionEvent} ConnectionEvent */
/** @typedef {import('./rpc/methods.js').Call} Call */
/** @typedef {import('./rpc/methods.js').Method} Method */
/** @typedef {import('./rpc/serve.js').Notification} Notification */
/** @typedef {import('./rpc/serve.js').ServeOptions} ServeOptions */
/** @typedef {import('./settings.js').Backoff} Backoff */
/** @typedef {import('./settings.js').ClientSettings} ClientSettings */
/** @typedef {import('./settings.js').Overflow} Overflow */
/** @typedef {import('./settings.js').TlsSettings} TlsSettings */
/** @typedef {import('./wire/constants.js').Qos} Qos */
/** @typedef {import('./wire/filter.js').FilterOptions} FilterOptions */
