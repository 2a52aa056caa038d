/**
 * The numbers of protocol section 1: operations, kinds of frames, result codes, and the names of qualities of
 * service. Never encodes or decodes.
 * @module
 */
/** Operations of a client. */
export declare const Op: Readonly<{
    PUBLISH: 1;
    SUBSCRIBE: 2;
    UNSUBSCRIBE: 3;
    EXCLUDE: 4;
    UNEXCLUDE: 5;
    PUBLISH_FOR: 6;
    MESSAGE: 18;
    BROADCAST: 19;
}>;
/** Kinds of frames from the broker. */
export declare const Kind: Readonly<{
    NOP: 0;
    PUBLISH: 1;
    MESSAGE: 18;
    BROADCAST: 19;
    ACK: 254;
}>;
/** Result codes of the broker. */
export declare const Code: Readonly<{
    OK: 1;
    NOT_REGISTERED: 113;
    BAD_DATA: 114;
    IO: 115;
    OTHER: 116;
    NOT_SUPPORTED: 117;
    BUSY: 118;
    NOT_DELIVERED: 119;
    TIMEOUT: 120;
    ACCESS_DENIED: 121;
}>;
/**
 * Returns the meaning of a result code, or `undefined` if the protocol does not define it.
 * @param {number} code
 * @returns {string | undefined}
 */
export declare function codeText(code: number): string | undefined;
export type Qos = 'no' | 'processed' | 'realtime' | 'realtime-processed';
/**
 * A quality of service: whether the broker acknowledges the operation (`processed`), and whether it is
 * delivered ahead of the limits of queues (`realtime`).
 * @typedef {'no' | 'processed' | 'realtime' | 'realtime-processed'} Qos
 */
/** The bits of each quality of service, as in the top two bits of the flags. */
export declare const QOS_BITS: Readonly<{
    no: 0;
    processed: 64;
    realtime: 128;
    'realtime-processed': 192;
}>;
/** The bit that requests an acknowledgement. */
export declare const QOS_PROCESSED = 64;
/** The bit that requests immediate delivery. */
export declare const QOS_REALTIME = 128;
/** The topic that the broker subscribes every client to. */
export declare const WARNINGS_TOPIC = ".broker/warn";
/** The topic on which the broker reports publications that it has dropped for a client. */
export declare const MISSED_TOPIC = ".broker/missed";
/** A filter that no client excludes: removing it changes nothing and is acknowledged. */
export declare const PROBE_FILTER = ".client/probe";
/** Separates the name of a primary client and the suffix of a secondary one. */
export declare const SECONDARY_SEPARATOR = "%%";
/**
 * Returns the primary part of a name.
 * @param {string} name
 * @returns {string}
 */
export declare function primaryOf(name: string): string;
