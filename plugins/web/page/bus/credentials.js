// The token and the name of the page. The token comes from the fragment of the address or from the form; both
// are kept for the tab only.

const TOKEN = 'elbus.token';
const NAME = 'elbus.name';

/** @typedef {{ token: string, name: string }} Credentials */

/**
 * Takes a token out of the fragment of the address (`#token=..`), so that it is not in the history.
 * @returns {string | undefined}
 */
export function takeTokenOfAddress() {
  const parameters = new URLSearchParams(location.hash.slice(1));
  const token = parameters.get('token');
  if (token === null) return undefined;
  history.replaceState(null, '', `${location.pathname}${location.search}`);
  return token;
}

/**
 * Returns what this tab has used last.
 * @returns {Credentials}
 */
export function rememberedCredentials() {
  return {
    token: sessionStorage.getItem(TOKEN) ?? '',
    name: sessionStorage.getItem(NAME) ?? newName(),
  };
}

/** @param {Credentials} credentials */
export function rememberCredentials({ token, name }) {
  sessionStorage.setItem(TOKEN, token);
  sessionStorage.setItem(NAME, name);
}

/** Forgets the token. */
export function forgetCredentials() {
  sessionStorage.removeItem(TOKEN);
}

/** Returns a name that no other page has. */
function newName() {
  const random = crypto.getRandomValues(new Uint32Array(1))[0].toString(16).padStart(8, '0');
  return `web.page.${random}`;
}
