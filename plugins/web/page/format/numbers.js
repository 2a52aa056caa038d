// Numbers with units. Values come from the bus: anything that is not a finite number counts as 0.

const integers = new Intl.NumberFormat('en', { maximumFractionDigits: 0 });
const UNITS = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB'];

/**
 * Returns a value as a number.
 * @param {unknown} value
 * @returns {number}
 */
export function toNumber(value) {
  const number = typeof value === 'bigint' ? Number(value) : value;
  return typeof number === 'number' && Number.isFinite(number) ? number : 0;
}

/**
 * `12,345`
 * @param {unknown} value
 */
export function count(value) {
  return integers.format(toNumber(value));
}

/**
 * Three significant digits: `0`, `0.25`, `9.50`, `1,234`, `12.3 k`, `1.24 M`.
 * @param {unknown} value
 */
export function quantity(value) {
  const number = toNumber(value);
  const size = Math.abs(number);
  if (size === 0) return '0';
  if (size < 0.005) return number > 0 ? '< 0.01' : '> −0.01';
  if (size < 10) return Number.isInteger(number) ? String(number) : number.toFixed(2);
  if (size < 100) return Number.isInteger(number) ? String(number) : number.toFixed(1);
  if (size < 10_000) return integers.format(number);
  if (size < 999_500) return `${digits(number / 1e3)} k`;
  if (size < 999_500_000) return `${digits(number / 1e6)} M`;
  if (size < 999_500_000_000) return `${digits(number / 1e9)} G`;
  return number.toExponential(2);
}

/** @param {number} number */
function digits(number) {
  const size = Math.abs(number);
  return number.toFixed(size < 10 ? 2 : size < 100 ? 1 : 0);
}

/**
 * Per second: `1,234 /s`; nothing for 0, so that active rows stand out in tables.
 * @param {unknown} value
 */
export function rate(value) {
  return toNumber(value) === 0 ? '–' : quantity(value);
}

/**
 * `512 B`, `1.20 MiB`
 * @param {unknown} value
 */
export function bytes(value) {
  let number = toNumber(value);
  let unit = 0;
  while (Math.abs(number) >= 1023.5 && unit < UNITS.length - 1) {
    number /= 1024;
    unit += 1;
  }
  return `${unit === 0 ? Math.round(number) : digits(number)} ${UNITS[unit]}`;
}

/**
 * A time span: `850 µs`, `12 ms`, `1.20 s`, `3 min 12 s`, `5 h 3 min`, `12 d 4 h`.
 * @param {unknown} milliseconds
 */
export function span(milliseconds) {
  const ms = toNumber(milliseconds);
  if (ms > 0 && ms < 1) return `${Math.round(ms * 1000)} µs`;
  if (ms < 1000) return `${ms < 10 && !Number.isInteger(ms) ? ms.toFixed(1) : Math.round(ms)} ms`;
  if (ms < 10_000) return `${(ms / 1000).toFixed(2)} s`;
  const seconds = Math.round(ms / 1000);
  if (seconds < 60) return `${seconds} s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return `${minutes} min ${seconds % 60} s`;
  const hours = Math.floor(minutes / 60);
  if (hours < 24) return `${hours} h ${minutes % 60} min`;
  return `${Math.floor(hours / 24)} d ${hours % 24} h`;
}

/**
 * Time since, in whole seconds: `now`, `12 s`, `3 min 12 s`.
 * @param {number} milliseconds
 */
export function age(milliseconds) {
  return milliseconds < 1000 ? 'now' : span(Math.floor(milliseconds / 1000) * 1000).replace('.00', '');
}

/**
 * The time of day: `14:03:22`.
 * @param {unknown} unixMilliseconds
 */
export function clock(unixMilliseconds) {
  const date = new Date(toNumber(unixMilliseconds));
  return [date.getHours(), date.getMinutes(), date.getSeconds()].map(two).join(':');
}

/**
 * The time of day without seconds: `14:03`.
 * @param {number} unixMilliseconds
 */
export function clockMinutes(unixMilliseconds) {
  return clock(unixMilliseconds).slice(0, 5);
}

/**
 * The time of day: `14:03:22`; with the date instead of seconds if it is not of the last 20 hours: `11-29
 * 14:03`.
 * @param {number} unixMilliseconds
 */
export function shortTime(unixMilliseconds) {
  const time = dateAndTime(unixMilliseconds);
  return Date.now() - unixMilliseconds < 72_000_000 ? time.slice(11) : time.slice(5, 16);
}

/**
 * The date and time of day in the local time zone.
 * @param {unknown} unixMilliseconds
 */
export function dateAndTime(unixMilliseconds) {
  const date = new Date(toNumber(unixMilliseconds));
  if (Number.isNaN(date.getTime())) return '';
  return `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())} ${clock(date.getTime())}`;
}

/** @param {number} number */
function two(number) {
  return Number.isNaN(number) ? '--' : String(number).padStart(2, '0');
}
