/**
 * The address of a broker as text. Never connects.
 * @module
 */
export type Address = {
    kind: 'unix';
    path: string;
    text: string;
} | {
    kind: 'tcp' | 'tls';
    host: string;
    port: number;
    text: string;
} | {
    kind: 'websocket';
    url: string;
    text: string;
};
/**
 * `text` is for people: a secret of the address is not part of it.
 * @typedef {{ kind: 'unix', path: string, text: string }
 *   | { kind: 'tcp' | 'tls', host: string, port: number, text: string }
 *   | { kind: 'websocket', url: string, text: string }} Address
 */
/**
 * Parses an address, by the first match: `ws://` or `wss://` is a WebSocket; `tls://host:port` TCP under TLS;
 * a path that starts with `/`, ends in `.sock`, `.socket` or `.ipc`, or follows `unix:` is a UNIX socket;
 * anything else is `host:port` of TCP, with or without `tcp:`. White space around the address is ignored.
 * @param {unknown} address
 * @returns {Address}
 */
export declare function parseAddress(address: unknown): Address;
