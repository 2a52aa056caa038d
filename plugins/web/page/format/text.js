// Makes texts of the bus fit to be shown: bounded, on one line, without characters that change or hide what
// is around them. Never creates elements.

/** Control characters, invisible characters, marks of direction, and halves of surrogate pairs. */
const UNSAFE = new RegExp(
  [
    '[\\u0000-\\u001f\\u007f-\\u009f\\u00ad\\u034f\\u061c\\u115f\\u1160\\u17b4\\u17b5\\u180b-\\u180f',
    '\\u200b-\\u200f\\u2028-\\u202e\\u2060-\\u206f\\u3164\\ufe00-\\ufe0f\\ufeff\\uffa0\\ufff0-\\ufffb',
    '\\u{e0000}-\\u{e0fff}\\p{Cs}]',
  ].join(''),
  'gu',
);
/** Stacks of combining marks, which would cover other lines. */
const STACKED = /(\p{M}{3})\p{M}+/gu;
const NAMED = /** @type {Record<string, string>} */ ({
  '\n': '\\n',
  '\r': '\\r',
  '\t': '\\t',
});

/**
 * Returns a text on one line. Characters that would not be visible are escaped; beyond `max` characters it is
 * cut.
 * @param {unknown} value
 * @param {number} [max]
 * @returns {string}
 */
export function visible(value, max = 200) {
  const text = typeof value === 'string' ? value : String(value ?? '');
  const shown = escapeUnsafe(text.length > max ? text.slice(0, max) : text);
  return text.length > max ? `${shown}… (${text.length} characters)` : shown;
}

/**
 * As {@link visible}, but line feeds and tabs remain.
 * @param {string} text
 * @param {number} [max]
 * @returns {string}
 */
export function visibleLines(text, max = 20_000) {
  const cut = text.length > max ? text.slice(0, max) : text;
  const shown = cut
    .split('\n')
    .map((line) => line.split('\t').map(escapeUnsafe).join('\t'))
    .join('\n');
  return text.length > max ? `${shown}\n… (${text.length} characters)` : shown;
}

/** @param {string} text */
function escapeUnsafe(text) {
  return text
    .replace(UNSAFE, (character) => {
      const code = character.codePointAt(0) ?? 0;
      return NAMED[character] ?? `\\u{${code.toString(16).padStart(2, '0')}}`;
    })
    .replace(STACKED, '$1');
}
