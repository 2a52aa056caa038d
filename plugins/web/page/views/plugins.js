// The plugins of the broker: state, status, documented configuration and log; start, stop and reload.

import { isInterruption, sentenceOf } from '../bus/bus.js';
import { poll } from '../bus/poll.js';
import { count, shortTime, span, toNumber } from '../format/numbers.js';
import { visible, visibleLines } from '../format/text.js';
import { documentedConfiguration } from '../model/plugin-docs.js';
import { PluginLog } from '../model/plugin-log.js';
import { fill, h } from '../parts/dom.js';
import { ActionButton, busText, definitions } from '../parts/fields.js';
import { announce, confirmAction, emptyState, Notice } from '../parts/notices.js';
import { Split } from '../parts/split.js';

const INTERVAL = 2000;
const MAX_PLUGINS = 500;

/** What the actions do, for the question before them. @type {Record<string, string>} */
const CONSEQUENCES = {
  stop: 'Its clients are disconnected, and what it provides is missing until it is started again.',
  reload: 'Its library is loaded again and replaces the running instance. Its clients are disconnected.',
};

/** @type {import('../router.js').View} */
export const pluginsView = {
  id: 'plugins',
  title: 'Plugins',
  create: (context) => new PluginsView(context).element,
};

class PluginsView {
  #context;
  /** @type {any[]} */
  #plugins = [];
  /** @type {PluginLog | undefined} */
  #log;
  /** @type {string | undefined} */
  #shown;
  #notice = new Notice();
  #list = h('div', { class: 'plugin-list', tabindex: -1 });
  #split;
  #facts = h('div');
  #documentation = h('div');
  #lines = h('div');

  /** @param {import('../router.js').Context} context */
  constructor(context) {
    this.#context = context;
    const { bus, signal, parameters, rights } = context;
    this.#split = new Split(this.#list, {
      label: 'Details of a plugin',
      closed: () => this.#open(undefined),
    });
    const reload = new ActionButton('Reload configuration', () => this.#reloadConfiguration());
    reload.refuse(rights.refusal('config.reload'));
    const tools = h('div', { class: 'toolbar' }, reload.element);
    this.element = h(
      'div',
      { class: 'view fill' },
      rights.has('config.reload') ? tools : null,
      this.#notice.element,
      this.#split.element,
    );
    this.#shown = parameters.get('name') ?? undefined;
    poll(
      signal,
      INTERVAL,
      async () => {
        const answer = await bus.call('plugin.list', undefined, signal);
        this.#plugins = Array.isArray(answer?.plugins) ? answer.plugins.slice(0, MAX_PLUGINS) : [];
        this.#notice.clear();
        this.#show();
      },
      (error) => this.#notice.show(`No list of plugins: ${sentenceOf(error)}`),
    );
    poll(
      signal,
      INTERVAL,
      async () => {
        await this.#fetchLines();
      },
      (error) => fill(this.#lines, h('p', { class: 'muted' }, `No log: ${sentenceOf(error)}`)),
    );
  }

  #show() {
    const rows = this.#plugins.map((plugin) => this.#row(plugin));
    const focused =
      document.activeElement instanceof HTMLElement ? document.activeElement.dataset.key : undefined;
    const head = ['Instance', 'State', 'Plugin', 'Status', 'Restarts'];
    const cells = head.map((text, at) => h('th', { scope: 'col', class: at === 4 ? 'number' : null }, text));
    if (rows.length === 0)
      fill(this.#list, emptyState('No plugin is loaded', 'Declare plugins in broker.toml.'));
    else fill(this.#list, h('table', {}, h('thead', {}, h('tr', {}, ...cells)), h('tbody', {}, ...rows)));
    const again = [...this.#list.querySelectorAll('button')].find(({ dataset }) => dataset.key === focused);
    if (focused !== undefined) again?.focus();
    if (this.#shown === undefined) return;
    if (!this.#split.isOpen) this.#open(this.#shown);
    this.#showFacts();
  }

  /** @param {any} plugin */
  #row(plugin) {
    const name = String(plugin?.name ?? '');
    const open = () => this.#open(name, true);
    const key = `plugin ${name}`;
    const button = h(
      'button',
      { type: 'button', class: 'link', 'data-key': key, onclick: open },
      busText(name, 40),
    );
    const status = [...listOf(plugin?.addresses), plugin?.detail].filter((text) => text).join(', ');
    const why = plugin?.why ? h('div', { class: 'bad' }, visible(plugin.why, 200)) : null;
    return h(
      'tr',
      { 'aria-selected': String(name === this.#shown) },
      h('th', { scope: 'row' }, button),
      h('td', {}, stateBadge(plugin?.state)),
      h('td', { class: 'plugin-code' }, visible(plugin?.plugin, 40)),
      h('td', {}, h('bdi', { class: 'bus' }, visible(status, 160)), why),
      h('td', { class: 'number' }, count(plugin?.restarts)),
    );
  }

  /**
   * @param {string | undefined} name
   * @param {boolean} [takesFocus]
   */
  #open(name, takesFocus = false) {
    this.#shown = name;
    this.#context.remember({ name: name ?? '' });
    this.#log = undefined;
    if (name === undefined) return;
    const { rights } = this.#context;
    fill(this.#facts);
    fill(this.#documentation);
    const parts = h('div', {}, this.#facts, h('h3', {}, 'Log'), this.#lines, this.#documentation);
    this.#split.open(busText(name, 60), parts, takesFocus);
    this.#showFacts();
    const mayReadLog = rights.has('log.recent') && rights.refusal('log.recent') === undefined;
    this.#log = new PluginLog(name, mayReadLog);
    fill(this.#lines);
    this.#fetchLines().catch(() => {}); // it is fetched again
    this.#showDocumentation();
  }

  #showFacts() {
    const plugin = this.#plugins.find(({ name }) => name === this.#shown);
    if (plugin === undefined) {
      fill(this.#facts, h('p', { class: 'notice' }, 'The broker has no plugin of this name any more.'));
      return;
    }
    const retry =
      plugin.next_attempt === null ? '' : `, next attempt in ${span(toNumber(plugin.next_attempt) * 1000)}`;
    const loaded = plugin.loaded_seconds === null ? undefined : span(toNumber(plugin.loaded_seconds) * 1000);
    const facts = definitions([
      ['State', stateBadge(plugin.state)],
      ['Reason', plugin.why ? visible(plugin.why, 500) : undefined],
      [
        'Addresses',
        listOf(plugin.addresses).length > 0 ? busText(listOf(plugin.addresses).join(', '), 400) : undefined,
      ],
      ['Status', plugin.detail ? busText(plugin.detail, 400) : undefined],
      ['Plugin', busText(plugin.plugin)],
      ['Origin', busText(plugin.origin)],
      ['File', plugin.path ? busText(plugin.path, 300) : undefined],
      ['Build', plugin.build ? busText(plugin.build) : undefined],
      ['Loaded', loaded && `${loaded} ago`],
      ['Restarts', `${count(plugin.restarts)}${retry}`],
      ['Slow callbacks', count(plugin.slow_callbacks)],
    ]);
    const focused =
      document.activeElement instanceof HTMLElement ? document.activeElement.dataset.key : undefined;
    fill(this.#facts, facts, this.#actions(plugin));
    if (focused === undefined) return;
    [...this.#facts.querySelectorAll('button')].find(({ dataset }) => dataset.key === focused)?.focus();
  }

  /** @param {any} plugin */
  #actions(plugin) {
    const isRunning = plugin.state === 'started' || plugin.state === 'running';
    const names = isRunning ? ['reload', 'stop'] : ['start'];
    const buttons = names.map((action) => {
      const label = action[0].toUpperCase() + action.slice(1);
      const button = new ActionButton(
        label,
        () => this.#change(action, plugin.name),
        action === 'stop' ? 'danger' : '',
      );
      button.refuse(this.#context.rights.refusal(`plugin.${action}`), action !== 'stop');
      return button.element;
    });
    return h('div', { class: 'buttons' }, ...buttons);
  }

  /**
   * @param {string} action
   * @param {string} name
   */
  async #change(action, name) {
    const shown = visible(name, 60);
    const label = action[0].toUpperCase() + action.slice(1);
    const text = CONSEQUENCES[action];
    if (
      text !== undefined &&
      !(await confirmAction({
        title: `${label} ${shown}?`,
        text,
        action: label,
      }))
    )
      return;
    const past = { start: 'started', stop: 'stopped', reload: 'reloaded' }[action] ?? action;
    try {
      await this.#context.bus.call(`plugin.${action}`, { name });
      announce(`${shown} is ${past}.`);
    } catch (error) {
      // stopping the plugin web ends this connection
      if (isInterruption(error)) announce(`${action} of ${shown}: the connection was lost meanwhile.`);
      else announce(`${shown} is not ${past}: ${sentenceOf(error)}`, 'failed');
    }
  }

  async #reloadConfiguration() {
    try {
      const result = await this.#context.bus.call('config.reload');
      const parts = ['added', 'removed', 'restarted', 'refreshed', 'recovered']
        .filter((key) => listOf(result?.[key]).length > 0)
        .map((key) => `${key}: ${listOf(result[key]).join(', ')}`);
      announce(
        visible(
          parts.length === 0 ? 'Reloaded: nothing has changed.' : `Reloaded; ${parts.join('; ')}.`,
          400,
        ),
      );
    } catch (error) {
      announce(`Not reloaded: ${sentenceOf(error)}`, 'failed');
    }
  }

  async #showDocumentation() {
    const plugin = this.#plugins.find(({ name }) => name === this.#shown);
    const [, code = ''] = /^(?:elbus[-_])?([a-z_]+)/.exec(String(plugin?.plugin ?? '')) ?? [];
    const text = await documentedConfiguration(code);
    if (this.#shown !== plugin?.name) return;
    const content =
      text === undefined
        ? h('p', { class: 'muted' }, 'The sample configuration has no section for this plugin.')
        : h('pre', { class: 'value', tabindex: 0 }, visibleLines(text, 40_000));
    fill(this.#documentation, h('h3', {}, 'Documented configuration'), content);
  }

  async #fetchLines() {
    const log = this.#log;
    if (log === undefined) return;
    await log.fetch(this.#context.bus, this.#context.signal);
    if (log === this.#log) this.#showLines(log.lines);
  }

  /** @param {import('../model/plugin-log.js').LogLine[]} lines In order. */
  #showLines(lines) {
    if (lines.length === 0) {
      fill(this.#lines, h('p', { class: 'muted' }, 'This plugin has logged nothing recently.'));
      return;
    }
    const items = lines.toReversed().map(({ at, level, text }) => {
      const mark = h('span', { class: 'event-kind', 'data-level': level }, visible(level, 14));
      return h('li', {}, h('time', {}, shortTime(at)), mark, h('bdi', {}, visible(text, 500)));
    });
    const { scrollTop } = this.#lines.firstElementChild ?? { scrollTop: 0 };
    fill(this.#lines, h('ul', { class: 'log', tabindex: 0, 'aria-label': 'Log' }, ...items));
    if (this.#lines.firstElementChild) this.#lines.firstElementChild.scrollTop = scrollTop;
  }
}

/** @param {unknown} list */
function listOf(list) {
  return Array.isArray(list) ? list.slice(0, 100).map((item) => String(item)) : [];
}

/** @param {unknown} state */
function stateBadge(state) {
  const name = visible(state, 20);
  return h('span', { class: 'badge', 'data-state': name }, name);
}
