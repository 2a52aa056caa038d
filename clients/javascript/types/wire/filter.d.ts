/**
 * Options at the beginning of a filter (protocol section 6): `$share/workers/$latest/jobs/#`. Owns their text
 * in both directions; never matches topics.
 * @module
 */
export type FilterOptions = {
    /**
     * The name of a group, of whose members each publication goes to one.
     */
    share?: string;
    /**
     * The name of a group; publications whose topics have the
     * same first `levels` levels (1 to 32) go to the same member.
     */
    key?: {
        group: string;
        levels: number;
    };
    /**
     * The newest publication of each topic: a newer one replaces a pending one.
     */
    latest?: boolean;
    /**
     * At most one publication of each topic in this time, the newest; 1 to 86,400,000
     * ms.
     */
    every?: number;
    /**
     * What the queue in the broker has room for; the rest is dropped.
     */
    lossy?: boolean;
};
export type ParsedFilter = {
    /**
     * The part after the options.
     */
    filter: string;
    share?: string;
    key?: {
        group: string;
        levels: number;
    };
    mode?: 'latest' | 'every' | 'lossy';
    every?: number;
};
export type FilterFault = 'group' | 'levels' | 'interval' | 'no-filter' | 'order';
/**
 * Options of a subscription (protocol section 6). `share` and `key` exclude each other, and so do `latest`,
 * `every` and `lossy`.
 * @typedef {object} FilterOptions
 * @property {string} [share] The name of a group, of whose members each publication goes to one.
 * @property {{ group: string, levels: number }} [key] The name of a group; publications whose topics have the
 *   same first `levels` levels (1 to 32) go to the same member.
 * @property {boolean} [latest] The newest publication of each topic: a newer one replaces a pending one.
 * @property {number} [every] At most one publication of each topic in this time, the newest; 1 to 86,400,000
 *   ms.
 * @property {boolean} [lossy] What the queue in the broker has room for; the rest is dropped.
 */
/**
 * @typedef {object} ParsedFilter
 * @property {string} filter The part after the options.
 * @property {string} [share]
 * @property {{ group: string, levels: number }} [key]
 * @property {'latest' | 'every' | 'lossy'} [mode]
 * @property {number} [every]
 */
/**
 * Why a filter with options is malformed: `group`, `levels`, `interval`, `no-filter` or `order`.
 * @typedef {'group' | 'levels' | 'interval' | 'no-filter' | 'order'} FilterFault
 */
/**
 * Parses a filter. Returns the fault if it is malformed.
 * @param {string} text
 * @returns {ParsedFilter | FilterFault}
 */
export declare function parseFilter(text: string): ParsedFilter | FilterFault;
/**
 * Returns the part of a filter that topics are matched with: the part after its options. A malformed filter,
 * which the broker refuses, is returned as it is.
 * @param {string} text
 * @returns {string}
 */
export declare function matchedPart(text: string): string;
/**
 * Returns whether a group shares the publications of a filter.
 * @param {string} text
 * @returns {boolean}
 */
export declare function isShared(text: string): boolean;
/**
 * Returns the options that were given, which are the names of the features that the broker must have.
 * @param {FilterOptions} options
 * @returns {string[]}
 */
export declare function optionNames(options: FilterOptions): string[];
/**
 * Checks options. Returns the text that precedes each filter; empty without options.
 * @param {FilterOptions} options
 * @returns {string}
 */
export declare function optionsPrefix(options: FilterOptions): string;
/**
 * Returns a filter with its options in front.
 * @param {string} prefix From {@link optionsPrefix}.
 * @param {string} filter
 * @returns {string}
 */
export declare function withOptions(prefix: string, filter: string): string;
