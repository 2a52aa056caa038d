// Shows one view at a time. The view and its parameters are in the fragment of the address:
// `#/clients?name=a`.

import { fill, h, setAttribute } from './parts/dom.js';

/**
 * What a view gets. `signal` is aborted when the view is left.
 * @typedef {object} Context
 * @property {import('./bus/bus.js').Bus} bus
 * @property {import('./bus/rights.js').Rights} rights
 * @property {AbortSignal} signal
 * @property {URLSearchParams} parameters
 * @property {(view: string, parameters?: Record<string, string>) => void} go Shows another view.
 * @property {(parameters: Record<string, string>) => void} remember Changes the parameters in the address.
 */

/**
 * @typedef {object} View
 * @property {string} id
 * @property {string} title
 * @property {(context: Context) => HTMLElement} create
 */

/** Switches between views. */
export class Router {
  #views;
  #main;
  #links = new Map();
  #services;
  /** @type {AbortController | undefined} */
  #current;
  #shown = '';

  /**
   * @param {View[]} views
   * @param {{ main: HTMLElement, navigation: HTMLElement }} places
   * @param {Pick<Context, 'bus' | 'rights'>} services
   */
  constructor(views, { main, navigation }, services) {
    this.#views = views;
    this.#main = main;
    this.#services = services;
    for (const { id, title } of views) this.#links.set(id, h('a', { href: `#/${id}` }, title));
    fill(navigation, ...this.#links.values());
    window.addEventListener('hashchange', () => this.#show(true));
    this.#show(false);
  }

  /** Shows the view of the address again, for example after the rights have changed. */
  reload() {
    this.#shown = '';
    this.#show(false);
  }

  /** @param {boolean} takesFocus */
  #show(takesFocus) {
    const [, id = '', query = ''] = /^#\/([a-z]*)(?:\?(.*))?$/.exec(location.hash) ?? [];
    const view = this.#views.find((candidate) => candidate.id === id) ?? this.#views[0];
    const address = `${view.id}?${query}`;
    if (address === this.#shown) return;
    this.#shown = address;
    this.#current?.abort();
    this.#current = new AbortController();
    const { signal } = this.#current;
    const context = {
      ...this.#services,
      signal,
      parameters: new URLSearchParams(query),
      go: (/** @type {string} */ to, /** @type {Record<string, string>} */ parameters = {}) => {
        location.hash = addressOf(to, parameters);
      },
      remember: (/** @type {Record<string, string>} */ parameters) => {
        if (signal.aborted) return;
        const hash = addressOf(view.id, parameters);
        this.#shown = `${view.id}?${hash.split('?')[1] ?? ''}`;
        history.replaceState(null, '', hash);
      },
    };
    const title = h('h1', { tabindex: -1 }, view.title);
    const content = view.create(context);
    content.prepend(title);
    this.#main.className = `view-${view.id}`;
    fill(this.#main, content);
    document.title = `${view.title} – ELBUS`;
    for (const [key, link] of this.#links)
      setAttribute(link, 'aria-current', key === view.id ? 'page' : undefined);
    this.#links.get(view.id)?.scrollIntoView?.({ block: 'nearest', inline: 'nearest' });
    if (takesFocus) title.focus({ preventScroll: true });
  }
}

/**
 * @param {string} view
 * @param {Record<string, string>} parameters
 */
function addressOf(view, parameters) {
  const query = new URLSearchParams(
    Object.entries(parameters).filter(([, value]) => value !== ''),
  ).toString();
  return `#/${view}${query === '' ? '' : `?${query}`}`;
}
