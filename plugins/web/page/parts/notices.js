// Short messages: results of actions at the edge of the page, and why a part of a view has nothing to show.

import { fill, h, setText } from './dom.js';

/** Messages that are shown at the same time. */
const MAX_SHOWN = 3;

/**
 * Shows the result of an action for some seconds, and to screen readers.
 * @param {string} text
 * @param {'done' | 'failed'} kind
 */
export function announce(text, kind = 'done') {
  const area = document.querySelector('#messages');
  if (area === null) return;
  const close = h('button', { type: 'button', class: 'quiet', onclick: () => message.remove() }, 'Dismiss');
  const message = h('div', { class: `message ${kind}` }, h('span', {}, text), close);
  area.append(message);
  while (area.childElementCount > MAX_SHOWN) area.firstElementChild?.remove();
  setTimeout(() => message.remove(), kind === 'done' ? 5000 : 15_000);
}

/** A line that says why something is missing; hidden while it has no text. */
export class Notice {
  element = h('p', { class: 'notice', hidden: true });

  /** @param {string} text */
  show(text) {
    setText(this.element, text);
    this.element.hidden = text === '';
  }

  clear() {
    this.show('');
  }
}

/**
 * Returns what an empty list shows: what it would contain, and what to do.
 * @param {string} title
 * @param {string} advice
 */
export function emptyState(title, advice) {
  return h('div', { class: 'empty' }, h('strong', {}, title), h('p', {}, advice));
}

/**
 * Asks before an action. Resolves to whether it is confirmed.
 * @param {{ title: string, text: string, action: string }} question
 * @returns {Promise<boolean>}
 */
export function confirmAction({ title, text, action }) {
  return new Promise((resolve) => {
    const dialog = h('dialog', { class: 'confirm', 'aria-label': title });
    const end = (/** @type {boolean} */ answer) => {
      dialog.remove();
      resolve(answer);
    };
    const cancel = h('button', { type: 'button', onclick: () => end(false) }, 'Cancel');
    const confirm = h('button', { type: 'button', class: 'danger', onclick: () => end(true) }, action);
    dialog.addEventListener('cancel', () => end(false));
    fill(dialog, h('h2', {}, title), h('p', {}, text), h('div', { class: 'buttons' }, cancel, confirm));
    document.body.append(dialog);
    dialog.showModal();
    cancel.focus();
  });
}
