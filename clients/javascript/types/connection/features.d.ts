/**
 * What the broker understands, asked once for each connection. Never subscribes.
 * @module
 */
export declare class Features {
    #private;
    /** @param {import('./connection.js').Connection} connection */
    constructor(connection: import('./connection.js').Connection);
    /**
     * Checks that the broker knows all of these options. Returns whether it reports what it drops because of
     * them. Without a connection everything is accepted if the client reconnects.
     * @param {readonly string[]} options
     * @param {AbortSignal | undefined} signal
     * @returns {Promise<boolean>}
     * @throws {ElbusError} `not-supported`, or why the broker does not answer.
     */
    check(options: readonly string[], signal: AbortSignal | undefined): Promise<boolean>;
}
