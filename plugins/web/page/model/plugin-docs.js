// The documented configuration of plugins: the sections of the sample files that the broker serves.

const FILES = ['/config/broker.toml', '/config/access.toml'];
const MAX_BYTES = 256 * 1024;

/** Sections by the code of the plugin, such as `tcp`. @type {Promise<Map<string, string>> | undefined} */
let loaded;

/**
 * Returns the section of a plugin's code, `undefined` if the samples have none.
 * @param {string} code
 * @returns {Promise<string | undefined>}
 */
export async function documentedConfiguration(code) {
  loaded ??= load();
  return (await loaded).get(code);
}

async function load() {
  const texts = await Promise.all(FILES.map(fetchText));
  /** @type {Map<string, string>} */
  const sections = new Map();
  for (const text of texts) {
    for (const [code, section] of sectionsOf(text)) {
      const before = sections.get(code);
      sections.set(code, before === undefined ? section : `${before}\n\n${section}`);
    }
  }
  return sections;
}

/** @param {string} path */
async function fetchText(path) {
  try {
    const response = await fetch(path);
    return response.ok ? (await response.text()).slice(0, MAX_BYTES) : '';
  } catch {
    return '';
  }
}

/**
 * Cuts a configuration file into the sections of its plugins. A section begins with the comment before
 * `[[plugin]]`.
 * @param {string} text
 * @returns {[string, string][]}
 */
export function sectionsOf(text) {
  /** @type {[string, string][]} */
  const sections = [];
  let isPlugin = false;
  for (const paragraph of text.split(/\n\s*\n/)) {
    const begins = /^(# ?)?\[\[plugin\]\]/m.test(paragraph);
    const code = /^(?:# ?)?(?:library|builtin) *= *"(?:elbus_)?([a-z_]+)"/m.exec(paragraph)?.[1];
    if (begins && code !== undefined) sections.push([code, paragraph.trimEnd()]);
    else if (!begins && isPlugin) {
      const last = sections[sections.length - 1];
      last[1] += `\n\n${paragraph.trimEnd()}`;
    }
    isPlugin = isPlugin ? !begins || code !== undefined : begins && code !== undefined;
  }
  return sections;
}
