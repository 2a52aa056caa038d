// The parameters of a method as method.list describes them, `{name: str, limit: int}`, and the values of a
// form.

/** @typedef {'text' | 'integer' | 'number' | 'boolean' | 'choice' | 'json'} ParameterType */
/**
 * @typedef {{ key: string, type: ParameterType, choices: string[], isOptional: boolean, written: string }}
 *   Parameter
 */

const MAX_PARAMETERS = 32;
/** @type {Record<string, ParameterType>} */
const TYPES = {
  str: 'text',
  text: 'text',
  regex: 'text',
  mask: 'text',
  filter: 'text',
  int: 'integer',
  integer: 'integer',
  uint: 'integer',
  float: 'number',
  number: 'number',
  bool: 'boolean',
  boolean: 'boolean',
};

/**
 * Returns the parameters that a description names, `[]` if the method takes none, `undefined` if the
 * description has another form: then they are written as JSON.
 * @param {string} description
 * @returns {Parameter[] | undefined}
 */
export function readParameters(description) {
  const text = description.trim();
  if (text === 'none' || text === '') return [];
  const maps = [...text.matchAll(/\{([^{}]*)\}/g)].map(([, inside]) => inside);
  const rest = text.replaceAll(/\{[^{}]*\}/g, '').trim();
  if (maps.length === 0 || !/^(,? ?(all )?optional|or|none, or|, or|or none)?$/.test(rest)) return undefined;
  const areOptional = maps.length > 1 || rest.includes('optional') || rest.includes('none');
  /** @type {Map<string, Parameter>} */
  const found = new Map();
  for (const inside of maps) {
    for (const part of splitOutside(inside)) {
      const [, key, written] = /^\s*([\w.-]+)(?:\??\s*:\s*(.+))?\s*$/.exec(part) ?? [];
      if (key === undefined || found.size >= MAX_PARAMETERS) return undefined;
      const isOptional = areOptional || part.includes('?');
      found.set(key, { key, isOptional, ...typeOf((written ?? '').trim()) });
    }
  }
  return [...found.values()];
}

/**
 * @param {string} written
 * @returns {{ type: ParameterType, choices: string[], written: string }}
 */
function typeOf(written) {
  const simple = written.replace(/ or nil$/, '');
  if (/^[\w.-]+(\|[\w.-]+)+$/.test(simple)) return { type: 'choice', choices: simple.split('|'), written };
  return {
    type: TYPES[simple] ?? (simple === '' ? 'text' : 'json'),
    choices: [],
    written,
  };
}

/** @param {string} text */
function splitOutside(text) {
  return text.split(/,(?![^[]*\])/).filter((part) => part.trim() !== '');
}

/**
 * Returns the value of a parameter as it was written; `undefined` to leave it out.
 * @param {Parameter} parameter
 * @param {string} written
 * @returns {unknown}
 * @throws {Error} It is not of the type of the parameter.
 */
export function valueOf({ key, type, isOptional }, written) {
  if (written === '' && (isOptional || type !== 'text')) {
    if (isOptional) return undefined;
    throw new Error(`${key} is missing`);
  }
  switch (type) {
    case 'integer':
    case 'number':
      return numberOf(key, type, written);
    case 'boolean':
      return written === 'true';
    case 'json':
      try {
        return JSON.parse(written);
      } catch {
        throw new Error(`${key} is not JSON; texts need quotes`);
      }
    default:
      return written;
  }
}

/**
 * @param {string} key
 * @param {ParameterType} type
 * @param {string} written
 */
function numberOf(key, type, written) {
  if (type === 'integer' && /^-?\d+$/.test(written)) {
    const number = Number(written);
    return Number.isSafeInteger(number) ? number : BigInt(written);
  }
  const number = Number(written);
  if (type === 'number' && written.trim() !== '' && Number.isFinite(number)) return number;
  throw new Error(`${key} is not ${type === 'integer' ? 'an integer' : 'a number'}`);
}
