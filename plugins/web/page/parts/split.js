// A list with details beside it; on narrow screens the details cover the list. Escape closes them.

import { fill, h } from './dom.js';

/** A list and its details. */
export class Split {
  #list;
  #aside;
  #body = h('div', { class: 'details-body' });
  #title = h('h2', { tabindex: -1 });
  #closed;
  /** @type {Element | null} */
  #before = null;

  /**
   * @param {HTMLElement} list
   * @param {{ label: string, closed?: () => void }} options `closed` is called when the reader closes the
   *   details.
   */
  constructor(list, { label, closed = () => {} }) {
    this.#list = list;
    this.#closed = closed;
    const close = h('button', { type: 'button', class: 'quiet', onclick: () => this.#close() }, 'Close');
    const head = h('header', { class: 'details-head' }, this.#title, close);
    this.#aside = h('aside', { class: 'details', 'aria-label': label, hidden: true }, head, this.#body);
    this.#aside.addEventListener('keydown', (event) => {
      if (event.key === 'Escape') this.#close();
    });
    this.element = h('div', { class: 'split' }, list, this.#aside);
  }

  get isOpen() {
    return !this.#aside.hidden;
  }

  /**
   * Shows details.
   * @param {Node} title
   * @param {Node} content
   * @param {boolean} [takesFocus]
   */
  open(title, content, takesFocus = false) {
    if (!this.isOpen) this.#before = document.activeElement;
    fill(this.#title, title);
    fill(this.#body, content);
    this.#aside.hidden = false;
    this.element.classList.add('open');
    this.#body.scrollTop = 0;
    if (takesFocus) this.#title.focus();
  }

  /**
   * Replaces the details; the reader keeps the position and the focus.
   * @param {Node} content
   */
  update(content) {
    const { scrollTop } = this.#body;
    const focused = this.#body.contains(document.activeElement) ? document.activeElement : null;
    const key = focused instanceof HTMLElement ? focused.dataset.key : undefined;
    fill(this.#body, content);
    this.#body.scrollTop = scrollTop;
    if (key === undefined) return;
    const same = [...this.#body.querySelectorAll('[data-key]')].find(
      (element) => element instanceof HTMLElement && element.dataset.key === key,
    );
    if (same instanceof HTMLElement) same.focus({ preventScroll: true });
  }

  /** Hides the details without calling `closed`. */
  hide() {
    this.#aside.hidden = true;
    this.element.classList.remove('open');
    fill(this.#body);
  }

  #close() {
    this.hide();
    this.#closed();
    if (this.#before instanceof HTMLElement && this.#before.isConnected) this.#before.focus();
    else this.#list.focus();
  }
}
