/**
 * Matching of topics and filters (protocol section 6). Knows no options: those are in `filter`.
 * @module
 */
/**
 * Returns whether a filter without options matches a topic: `+` matches one level, `#` all remaining ones.
 * @param {string} filter
 * @param {string} topic
 * @returns {boolean}
 */
export declare function topicMatches(filter: string, topic: string): boolean;
