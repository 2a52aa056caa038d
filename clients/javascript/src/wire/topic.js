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
export function topicMatches(filter, topic) {
  let f = 0;
  let t = 0;
  for (;;) {
    const fEnd = endOfLevel(filter, f);
    const tEnd = endOfLevel(topic, t);
    if (fEnd - f === 1 && filter[f] === '#') return true;
    const isWild = fEnd - f === 1 && filter[f] === '+';
    if (!isWild && (fEnd - f !== tEnd - t || filter.slice(f, fEnd) !== topic.slice(t, tEnd))) return false;
    const filterEnded = fEnd === filter.length;
    const topicEnded = tEnd === topic.length;
    if (filterEnded || topicEnded) return filterEnded && topicEnded;
    f = fEnd + 1;
    t = tEnd + 1;
  }
}

/**
 * @param {string} text
 * @param {number} from
 * @returns {number}
 */
function endOfLevel(text, from) {
  const at = text.indexOf('/', from);
  return at < 0 ? text.length : at;
}
