/**
 * The connection of a client, which outlives the sockets that it uses: connected, lost, connected again,
 * ended. Owns the order of these states. Operations are in `operations`, and what frames mean to their
 * consumers in `receive`.
 * @module
 */
import { Demux } from '../receive/demux.js';
import { Inbox } from '../receive/inbox.js';
import { PendingCalls } from '../receive/pending-calls.js';
import { ReadGate } from '../receive/read-gate.js';
import { AckTable } from './acks.js';
import { Operations } from './operations.js';
import { SendQueue } from './send-queue.js';
import { TopicOperations } from './topic-operations.js';
export type Transport = import('../transport/transport.js').Transport;
export type Registered = import('./register.js').Registered;
/** @typedef {import('../transport/transport.js').Transport} Transport */
/** @typedef {import('./register.js').Registered} Registered */
export declare class Connection {
    #private;
    target: import("../address.js").Address;
    name: string;
    settings: import("../settings.js").Settings;
    acks: AckTable;
    sendQueue: SendQueue;
    calls: PendingCalls;
    gate: ReadGate;
    frames: Inbox;
    demux: Demux;
    operations: Operations;
    topics: TopicOperations;
    reconnects: number;
    bytesReceived: number;
    /** Counts the connections, to tell the state of an earlier one from that of this one. */
    epoch: number;
    /**
     * @param {import('../address.js').Address} address
     * @param {string} name
     * @param {import('../settings.js').Settings} settings
     */
    constructor(address: import('../address.js').Address, name: string, settings: import('../settings.js').Settings);
    /** @returns {string} */
    get address(): string;
    /** @returns {boolean} */
    get isConnected(): boolean;
    /**
     * Whether the client connects again when its connection is lost.
     * @returns {boolean}
     */
    get reconnecting(): boolean;
    /**
     * Connects for the first time.
     * @param {AbortSignal | undefined} signal
     * @returns {Promise<void>}
     */
    open(signal: AbortSignal | undefined): Promise<void>;
    /**
     * Returns a new inbox with the client's limit and overflow policy.
     * @param {import('../settings.js').Overflow} [overflow]
     * @returns {Inbox}
     */
    newInbox(overflow?: import('../settings.js').Overflow): Inbox;
    /** @returns {import('../events.js').ConnectionEvents} */
    listen(): import('../events.js').ConnectionEvents;
    /**
     * Waits for a connection.
     * @returns {Promise<void>}
     */
    connected(): Promise<void>;
    /**
     * Writes the send queue, within the timeout, and disconnects. The name is free when the promise resolves.
     * @returns {Promise<void>}
     */
    close(): Promise<void>;
    /**
     * Throws if operations cannot be started.
     */
    checkOpen(): void;
    /**
     * Throws if operations that are remembered for the next connection cannot be started.
     */
    checkOpenOrReconnecting(): void;
}
