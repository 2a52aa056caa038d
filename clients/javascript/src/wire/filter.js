/**
 * Options at the beginning of a filter (protocol section 6): `$share/workers/$latest/jobs/#`. Owns their text
 * in both directions; never matches topics.
 * @module
 */

import { ElbusError, invalidArgument, quoted } from '../errors.js';
import { textBytes } from './text.js';

/** Limit of the name of a group, in bytes. */
const MAX_GROUP_BYTES = 255;
const MAX_LEVELS = 32;
/** A day, in milliseconds. */
const MAX_INTERVAL = 86_400_000;
const OPTIONS = new Set(['$share', '$key', '$latest', '$every', '$lossy']);

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
export function parseFilter(text) {
  /** @type {ParsedFilter} */
  const parsed = { filter: text };
  let rest = /** @type {string | undefined} */ (text);
  let [head, tail] = split(text);
  if (head === '$share' || head === '$key') {
    const [group, afterGroup] = split(tail);
    if (group === undefined || !isGroup(group)) return 'group';
    rest = afterGroup;
    if (head === '$share') {
      parsed.share = group;
    } else {
      const [digits, afterLevels] = split(afterGroup);
      const levels = parseNumber(digits, MAX_LEVELS);
      if (levels === undefined) return 'levels';
      parsed.key = { group, levels };
      rest = afterLevels;
    }
    [head, tail] = split(rest);
  }
  if (head === '$latest' || head === '$lossy') {
    parsed.mode = head === '$latest' ? 'latest' : 'lossy';
    rest = tail;
  } else if (head === '$every') {
    const [digits, afterInterval] = split(tail);
    const every = parseNumber(digits, MAX_INTERVAL);
    if (every === undefined) return 'interval';
    parsed.mode = 'every';
    parsed.every = every;
    rest = afterInterval;
  }
  if (rest === text) return parsed;
  if (rest === undefined || rest === '') return 'no-filter';
  const [first] = split(rest);
  if (first !== undefined && OPTIONS.has(first)) return 'order';
  parsed.filter = rest;
  return parsed;
}

/**
 * Returns the part of a filter that topics are matched with: the part after its options. A malformed filter,
 * which the broker refuses, is returned as it is.
 * @param {string} text
 * @returns {string}
 */
export function matchedPart(text) {
  if (!text.startsWith('$')) return text;
  const parsed = parseFilter(text);
  return typeof parsed === 'string' ? text : parsed.filter;
}

/**
 * Returns whether a group shares the publications of a filter.
 * @param {string} text
 * @returns {boolean}
 */
export function isShared(text) {
  if (!text.startsWith('$')) return false;
  const parsed = parseFilter(text);
  return typeof parsed !== 'string' && (parsed.share !== undefined || parsed.key !== undefined);
}

/**
 * Returns the options that were given, which are the names of the features that the broker must have.
 * @param {FilterOptions} options
 * @returns {string[]}
 */
export function optionNames(options) {
  const names = [];
  if (options.share !== undefined) names.push('share');
  if (options.key !== undefined) names.push('key');
  if (options.latest) names.push('latest');
  if (options.every !== undefined) names.push('every');
  if (options.lossy) names.push('lossy');
  return names;
}

/**
 * Checks options. Returns the text that precedes each filter; empty without options.
 * @param {FilterOptions} options
 * @returns {string}
 */
export function optionsPrefix(options) {
  const { share, key, latest, every, lossy } = options;
  for (const [name, value] of Object.entries({ latest, lossy })) {
    if (value !== undefined && typeof value !== 'boolean')
      throw invalidArgument(`the option ${name}`, value, 'a boolean');
  }
  if (share !== undefined && key !== undefined) throw exclusive('share and key');
  if ([latest === true, every !== undefined, lossy === true].filter(Boolean).length > 1) {
    throw exclusive('latest, every and lossy');
  }
  let prefix = '';
  if (share !== undefined) {
    checkGroup('the option share', share);
    prefix = `$share/${share}/`;
  }
  if (key !== undefined) {
    if (typeof key !== 'object' || key === null)
      throw invalidArgument('the option key', key, '{ group, levels }');
    checkGroup('key.group', key.group);
    checkNumber('key.levels', key.levels, MAX_LEVELS);
    prefix = `$key/${key.group}/${key.levels}/`;
  }
  if (latest) prefix += '$latest/';
  if (every !== undefined) {
    checkNumber('the option every', every, MAX_INTERVAL);
    prefix += `$every/${every}/`;
  }
  if (lossy) prefix += '$lossy/';
  return prefix;
}

/**
 * Returns a filter with its options in front.
 * @param {string} prefix From {@link optionsPrefix}.
 * @param {string} filter
 * @returns {string}
 */
export function withOptions(prefix, filter) {
  if (prefix === '') return filter;
  if (filter === '') throw invalidArgument('a filter with options', filter, 'a filter that is not empty');
  if (OPTIONS.has(filter.split('/', 1)[0] ?? '')) {
    const remedy = 'give options either in its text or as options';
    throw new ElbusError('invalid-argument', `the filter ${quoted(filter)} begins with an option: ${remedy}`);
  }
  return prefix + filter;
}

/**
 * @param {string} what
 * @param {unknown} group
 */
function checkGroup(what, group) {
  if (typeof group !== 'string' || !isGroup(group)) {
    throw invalidArgument(what, group, `a name of 1 to ${MAX_GROUP_BYTES} bytes without "/", "+" and "#"`);
  }
}

/**
 * @param {string} what
 * @param {unknown} value
 * @param {number} max
 */
function checkNumber(what, value, max) {
  if (!Number.isInteger(value) || Number(value) < 1 || Number(value) > max) {
    throw invalidArgument(what, value, `an integer from 1 to ${max}`);
  }
}

/**
 * @param {string} which
 * @returns {ElbusError}
 */
function exclusive(which) {
  return new ElbusError('invalid-argument', `the options ${which} exclude each other: give one of them`);
}

/**
 * @param {string} group
 * @returns {boolean}
 */
function isGroup(group) {
  return group !== '' && !/[/+#]/.test(group) && textBytes(group) <= MAX_GROUP_BYTES;
}

/**
 * Returns the first level and what follows it, each `undefined` if there is none.
 * @param {string | undefined} text
 * @returns {[string | undefined, string | undefined]}
 */
function split(text) {
  if (text === undefined) return [undefined, undefined];
  const at = text.indexOf('/');
  return at < 0 ? [text, undefined] : [text.slice(0, at), text.slice(at + 1)];
}

/**
 * Parses a number from 1 to `max` without leading zeros.
 * @param {string | undefined} digits
 * @param {number} max
 * @returns {number | undefined}
 */
function parseNumber(digits, max) {
  if (digits === undefined || !/^[1-9][0-9]{0,8}$/.test(digits)) return undefined;
  const value = Number(digits);
  return value <= max ? value : undefined;
}
