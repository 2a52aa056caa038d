// Connects with the token of the address or of this tab; asks for one in a form if that fails.

import { Bus, sentenceOf } from './bus/bus.js';
import { rememberCredentials, rememberedCredentials, takeTokenOfAddress } from './bus/credentials.js';
import { field, textInput } from './parts/fields.js';
import { fill, h, setText } from './parts/dom.js';
import { Notice } from './parts/notices.js';

/**
 * Resolves when the page is connected.
 * @param {HTMLElement} main
 * @returns {Promise<Bus>}
 */
export async function signIn(main) {
  const token = takeTokenOfAddress();
  const remembered = rememberedCredentials();
  const credentials = token === undefined ? remembered : { ...remembered, token };
  try {
    return await open(credentials);
  } catch (error) {
    const isFirst = credentials.token === '';
    showState('Sign in');
    return askIn(main, credentials, isFirst ? '' : reasonOf(error));
  }
}

/** @param {string} text */
function showState(text) {
  const state = document.querySelector('#state');
  if (!(state instanceof HTMLElement)) return;
  state.dataset.state = 'closed';
  setText(state, text);
}

/**
 * @param {import('./bus/credentials.js').Credentials} credentials
 * @returns {Promise<Bus>}
 */
async function open(credentials) {
  const bus = await Bus.open(credentials);
  rememberCredentials(credentials);
  return bus;
}

/**
 * A browser does not say why a WebSocket fails: the sentence names what can be wrong.
 * @param {unknown} error
 */
function reasonOf(error) {
  const kind = typeof error === 'object' && error !== null && 'kind' in error ? error.kind : '';
  if (kind === 'no-broker')
    return (
      'The broker refuses the connection: the token is wrong or from an earlier start, ' +
      'or the broker does not run.'
    );
  return sentenceOf(error);
}

/**
 * @param {HTMLElement} main
 * @param {import('./bus/credentials.js').Credentials} given
 * @param {string} problem
 * @returns {Promise<Bus>}
 */
function askIn(main, given, problem) {
  return new Promise((resolve) => {
    const token = h('input', {
      type: 'password',
      autocomplete: 'off',
      required: false,
      value: given.token,
    });
    const name = textInput({ value: given.name, required: true });
    const notice = new Notice();
    notice.element.setAttribute('role', 'alert');
    notice.show(problem);
    const button = h('button', { type: 'submit', class: 'primary' }, 'Connect');
    const submit = async (/** @type {SubmitEvent} */ event) => {
      event.preventDefault();
      notice.clear();
      button.disabled = true;
      try {
        resolve(await open({ token: token.value.trim(), name: name.value.trim() }));
      } catch (error) {
        notice.show(reasonOf(error));
      } finally {
        button.disabled = false;
      }
    };
    const hint = 'The broker prints it with the address at its start; or a token of tokens_file.';
    fill(
      main,
      h(
        'form',
        { class: 'sign-in', onsubmit: submit },
        h('h1', {}, 'Connect to the bus'),
        notice.element,
        field('Token', token, hint),
        field('Name of this page on the bus', name, 'It must be unique.'),
        button,
      ),
    );
    token.focus();
  });
}
