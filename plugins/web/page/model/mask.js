// Filters of names: masks of the bus (`?` one part, `*` all remaining parts), or a part of the name.

/**
 * Returns whether a name matches; every name matches the empty text.
 * @param {string} text
 * @returns {(name: string) => boolean}
 */
export function nameFilter(text) {
  const wanted = text.trim();
  if (wanted === '') return () => true;
  const segments = wanted.split('.');
  if (!segments.some((segment) => segment === '*' || segment === '?')) {
    const lower = wanted.toLowerCase();
    return (name) => name.toLowerCase().includes(lower);
  }
  return (name) => matches(segments, name.split('.'));
}

/**
 * @param {string[]} mask
 * @param {string[]} name
 */
function matches(mask, name) {
  for (const [index, segment] of mask.entries()) {
    if (segment === '*') return name.length > index;
    if (index >= name.length || (segment !== '?' && segment !== name[index])) return false;
  }
  return mask.length === name.length;
}
