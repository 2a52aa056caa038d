// Form fields with labels, definition lists and buttons that explain why they are disabled.

import { h, newId, setAttribute } from './dom.js';
import { visible } from '../format/text.js';

/**
 * Returns a control with its label.
 * @param {string} label
 * @param {HTMLElement} control
 * @param {string} [hint]
 */
export function field(label, control, hint) {
  if (control.id === '') control.id = newId('field');
  const element = h('div', { class: 'field' }, h('label', { for: control.id }, label), control);
  if (hint !== undefined) {
    const id = newId('hint');
    control.setAttribute('aria-describedby', id);
    element.append(h('span', { class: 'hint', id }, hint));
  }
  return element;
}

/**
 * Returns a select of values and their names.
 * @param {[string, string][]} options
 * @param {(value: string) => void} [changed]
 */
export function select(options, changed) {
  const element = h('select', {}, ...options.map(([value, name]) => h('option', { value }, name)));
  if (changed) element.addEventListener('change', () => changed(element.value));
  return element;
}

/**
 * Returns a text input.
 * @param {import('./dom.js').Attributes} [attributes]
 */
export function textInput(attributes = {}) {
  return h('input', {
    type: 'text',
    autocomplete: 'off',
    autocapitalize: 'off',
    spellcheck: 'false',
    ...attributes,
  });
}

/**
 * Returns a name, topic or other text of the bus, isolated from the text around it.
 * @param {unknown} value
 * @param {number} [max]
 */
export function busText(value, max = 120) {
  return h('bdi', { class: 'bus' }, visible(value, max));
}

/**
 * Returns a list of terms and values. Entries without a value are left out.
 * @param {[string, import('./dom.js').Child | undefined][]} entries
 */
export function definitions(entries) {
  const list = h('dl', { class: 'definitions' });
  for (const [term, value] of entries) {
    if (value === undefined || value === null || value === '') continue;
    list.append(h('dt', {}, term), h('dd', {}, value));
  }
  return list;
}

/** A button for an operation that can be refused: it is then disabled, and the reason is beside it. */
export class ActionButton {
  /**
   * @param {string} label
   * @param {() => void} action
   * @param {string} [className]
   */
  constructor(label, action, className = '') {
    this.reason = h('span', {
      class: 'reason',
      id: newId('reason'),
      hidden: true,
    });
    const run = () => this.#run(action);
    this.button = h('button', { type: 'button', class: className, 'data-key': label, onclick: run }, label);
    this.element = h('span', { class: 'action' }, this.button, this.reason);
  }

  /** @param {() => void} action */
  #run(action) {
    if (this.button.getAttribute('aria-disabled') !== 'true') action();
  }

  /**
   * Disables the button if there is a reason; it keeps its place in the order of focus, so that the reason is
   * read.
   * @param {string | undefined} reason
   * @param {boolean} [isShown] Whether the reason is shown beside the button, or only as its description.
   */
  refuse(reason, isShown = true) {
    setAttribute(this.button, 'aria-disabled', reason === undefined ? undefined : 'true');
    setAttribute(this.button, 'aria-describedby', reason === undefined ? undefined : this.reason.id);
    this.reason.textContent = reason ?? '';
    this.button.title = reason ?? '';
    this.reason.hidden = reason === undefined || !isShown;
  }
}
