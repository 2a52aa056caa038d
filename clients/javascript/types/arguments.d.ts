/**
 * Checks the arguments of operations. Never sends.
 * @module
 */
/**
 * Checks a text of a frame.
 * @param {string} what
 * @param {unknown} text
 * @returns {string}
 */
export declare function checkText(what: string, text: unknown): string;
/**
 * Returns the bits of a quality of service.
 * @param {unknown} qos
 * @returns {number}
 */
export declare function qosBits(qos: unknown): number;
/**
 * Checks a payload.
 * @param {unknown} payload
 * @returns {string | Uint8Array}
 */
export declare function checkPayload(payload: unknown): string | Uint8Array;
/**
 * Checks filters, and copies them.
 * @param {unknown} filters
 * @returns {string[]}
 */
export declare function checkFilters(filters: unknown): string[];
/**
 * Encodes the parameters of a call: `undefined` stands for none.
 * @param {unknown} params
 * @param {unknown} raw Whether they are bytes already.
 * @returns {Uint8Array}
 */
export declare function encodeParams(params: unknown, raw: unknown): Uint8Array;
/** The options of each kind of operation. A misspelt one must not be ignored. */
export declare const OPTIONS: Readonly<{
    send: Set<string>;
    operation: Set<string>;
    subscribe: Set<string>;
    call: Set<string>;
    call0: Set<string>;
    cursor: Set<string>;
    serve: Set<string>;
}>;
/**
 * Checks the options of an operation.
 * @template {object} T
 * @param {T | undefined} options
 * @param {ReadonlySet<string>} known Their names.
 * @returns {Partial<T>}
 */
export declare function checkOptions<T extends object>(options: T | undefined, known: ReadonlySet<string>): Partial<T>;
/**
 * Returns the signal of `next(options)`. An iterator can be called with any value: only objects are options.
 * @param {unknown} options
 * @returns {AbortSignal | undefined}
 */
export declare function signalOfNext(options: unknown): AbortSignal | undefined;
/**
 * Refuses keys of an object that are not known.
 * @param {string} what
 * @param {object} object
 * @param {ReadonlySet<string>} known
 */
export declare function checkKeys(what: string, object: object, known: ReadonlySet<string>): void;
