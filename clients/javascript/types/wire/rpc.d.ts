/**
 * The payloads of RPC (protocol section 7). Never decodes parameters or results.
 * @module
 */
export declare const RpcKind: Readonly<{
    NOTIFICATION: 0;
    REQUEST: 1;
    REPLY: 17;
    ERROR: 18;
}>;
/** The id of calls without a reply. */
export declare const NO_REPLY = 0;
declare const EMPTY: Uint8Array<ArrayBuffer>;
export type RpcPayload = {
    kind: 'notification';
    payload: Uint8Array;
} | {
    kind: 'request';
    id: number;
    method: Uint8Array;
    params: Uint8Array;
} | {
    kind: 'reply';
    id: number;
    result: Uint8Array;
} | {
    kind: 'error';
    id: number;
    code: number;
    data: Uint8Array;
};
export type RpcFault = 'empty' | 'unknown-kind' | 'truncated' | 'missing-nul';
/**
 * A decoded payload.
 * @typedef {{ kind: 'notification', payload: Uint8Array }
 *   | { kind: 'request', id: number, method: Uint8Array, params: Uint8Array }
 *   | { kind: 'reply', id: number, result: Uint8Array }
 *   | { kind: 'error', id: number, code: number, data: Uint8Array }} RpcPayload
 */
/**
 * Why a payload is not RPC.
 * @typedef {'empty' | 'unknown-kind' | 'truncated' | 'missing-nul'} RpcFault
 */
/**
 * Decodes a payload. The parts share its memory.
 * @param {Uint8Array} payload
 * @returns {RpcPayload | RpcFault}
 */
export declare function decodeRpc(payload: Uint8Array): RpcPayload | RpcFault;
/**
 * Returns what precedes the payload of a notification.
 * @returns {Uint8Array}
 */
export declare function notificationHead(): Uint8Array;
/**
 * Returns what precedes the parameters of a request. The caller has checked that the method contains no NUL.
 * @param {number} id
 * @param {string} method
 * @returns {Uint8Array}
 */
export declare function requestHead(id: number, method: string): Uint8Array;
/**
 * Returns what precedes a result.
 * @param {number} id
 * @returns {Uint8Array}
 */
export declare function replyHead(id: number): Uint8Array;
/**
 * Returns what precedes the data of an error.
 * @param {number} id
 * @param {number} code
 * @returns {Uint8Array}
 */
export declare function errorHead(id: number, code: number): Uint8Array;
export { EMPTY };
