// The form that calls a method: its fields are those that method.list describes.

import { sentenceOf } from '../bus/bus.js';
import { decode, encode } from '../elbus.js';
import { bytes, span } from '../format/numbers.js';
import { visible } from '../format/text.js';
import { printValue } from '../format/value.js';
import { readParameters, valueOf } from '../model/parameters.js';
import { fill, h, newId, setText } from '../parts/dom.js';
import { ActionButton, field, select, textInput } from '../parts/fields.js';
import { parseJson } from './publish.js';

const BROKER = '.broker';
const TIMEOUT = 30_000;
/** Bytes of a result that are decoded. */
const MAX_RESULT = 4 * 1024 * 1024;

/** @typedef {import('../model/parameters.js').Parameter} Parameter */
/** @typedef {HTMLInputElement | HTMLSelectElement | HTMLTextAreaElement} Control */

/**
 * @param {import('../router.js').Context} context
 * @returns {HTMLElement}
 */
export function callForm(context) {
  return new CallForm(context).element;
}

class CallForm {
  #context;
  #target = textInput({ value: BROKER, class: 'bus', required: true });
  #method = textInput({ class: 'bus', required: true });
  #about = h('p', { class: 'hint' });
  #fields = h('div', { class: 'fields' });
  #result = h('pre', {
    class: 'value',
    tabindex: 0,
    'aria-label': 'Result',
    hidden: true,
  });
  #took = h('p', { class: 'hint', role: 'status' });
  #call = new ActionButton('Call', () => {}, 'primary'); // the form is submitted
  /**
   * What the fields are; `undefined` while the parameters are written as JSON.
   * @type {Parameter[] | undefined}
   */
  #parameters;
  /** @type {Map<string, Control>} */
  #controls = new Map();
  #shownFor = '';

  /** @param {import('../router.js').Context} context */
  constructor(context) {
    this.#context = context;
    const names = h('datalist', { id: newId('methods') });
    fill(names, ...context.rights.methods.map(({ name }) => h('option', { value: name })));
    this.#method.setAttribute('list', names.id);
    this.#method.value = context.parameters.get('method') ?? '';
    this.#target.addEventListener('input', () => this.#showFields());
    this.#method.addEventListener('input', () => this.#showFields());
    this.element = h(
      'form',
      {
        class: 'call panel',
        'aria-label': 'Call a method',
        onsubmit: (event) => {
          event.preventDefault();
          if (this.#call.button.getAttribute('aria-disabled') !== 'true') this.#run();
        },
      },
      h('h2', {}, 'Call a method'),
      field('Target', this.#target),
      field('Method', this.#method),
      names,
      this.#about,
      this.#fields,
      h('div', { class: 'buttons' }, this.#call.element),
      this.#took,
      this.#result,
    );
    this.#call.button.type = 'submit';
    this.#showFields();
  }

  #showFields() {
    const isBroker = this.#target.value.trim() === BROKER;
    const known = isBroker
      ? this.#context.rights.methods.find(({ name }) => name === this.#method.value.trim())
      : undefined;
    const shownFor = known?.name ?? '';
    if (shownFor === this.#shownFor && this.#fields.childElementCount > 0) return;
    this.#shownFor = shownFor;
    this.#controls.clear();
    this.#parameters = known && readParameters(String(known.params ?? ''));
    setText(
      this.#about,
      known ? `${visible(known.about, 200)}${known.admin ? ' (administrative)' : ''}` : '',
    );
    this.#call.refuse(undefined);
    if (known?.admin) this.#showRefusal(known.name);
    if (this.#parameters !== undefined) {
      if (this.#parameters.length === 0)
        fill(this.#fields, h('p', { class: 'muted' }, 'It takes no parameters.'));
      else fill(this.#fields, ...this.#parameters.map((parameter) => this.#field(parameter)));
      return;
    }
    const json = h('textarea', {
      rows: 4,
      spellcheck: 'false',
      class: 'bus',
      placeholder: '{"name": "plant.lamp"}',
    });
    this.#controls.set('', json);
    const hint = known
      ? `The method takes ${visible(known.params, 200)}.`
      : 'Written as JSON, sent as msgpack. Empty: none.';
    fill(this.#fields, field('Parameters', json, hint));
  }

  /** @param {string} method */
  async #showRefusal(method) {
    const why = await this.#context.rights.explain(method);
    if (this.#shownFor === method) this.#call.refuse(why);
  }

  /** @param {Parameter} parameter */
  #field(parameter) {
    const { key, type, choices, isOptional, written } = parameter;
    const empty = /** @type {[string, string][]} */ (isOptional ? [['', '']] : []);
    /** @type {Control} */
    let control;
    if (type === 'choice')
      control = select([...empty, ...choices.map((c) => /** @type {[string, string]} */ ([c, c]))]);
    else if (type === 'boolean') control = select([...empty, ['true', 'true'], ['false', 'false']]);
    else
      control = textInput({
        class: 'bus',
        inputmode: type === 'integer' || type === 'number' ? 'decimal' : null,
      });
    this.#controls.set(key, control);
    const notes = [type === 'json' ? `${written}, as JSON` : written, isOptional ? 'optional' : ''];
    return field(visible(key, 60), control, visible(notes.filter((note) => note !== '').join(', '), 100));
  }

  /** @returns {Uint8Array} */
  #encoded() {
    if (this.#parameters === undefined) {
      const text = this.#controls.get('')?.value.trim() ?? '';
      return text === '' ? new Uint8Array() : encode(parseJson(text));
    }
    /** @type {[string, unknown][]} */
    const entries = this.#parameters.map((parameter) => [
      parameter.key,
      valueOf(parameter, this.#controls.get(parameter.key)?.value ?? ''),
    ]);
    const given = entries.filter(([, value]) => value !== undefined);
    return given.length === 0 ? new Uint8Array() : encode(new Map(given));
  }

  async #run() {
    const { bus, signal } = this.#context;
    const [target, method] = [this.#target.value.trim(), this.#method.value.trim()];
    this.#result.hidden = true;
    this.#result.classList.remove('bad');
    setText(this.#took, 'Calling');
    const start = performance.now();
    try {
      const parameters = this.#encoded();
      const result = await bus.callClient(target, method, parameters, {
        signal,
        timeout: TIMEOUT,
        raw: true,
      });
      setText(this.#took, `Answered in ${span(performance.now() - start)}, ${bytes(result.length)}`);
      this.#showResult(resultText(result));
    } catch (error) {
      if (signal.aborted) return;
      setText(this.#took, `Failed after ${span(performance.now() - start)}`);
      this.#result.classList.add('bad');
      this.#showResult(sentenceOf(error));
    }
  }

  /** @param {string} text */
  #showResult(text) {
    setText(this.#result, text);
    this.#result.hidden = false;
  }
}

/** @param {Uint8Array} result */
function resultText(result) {
  if (result.length === 0) return '(no result)';
  if (result.length > MAX_RESULT) return `The result has ${bytes(result.length)}: too many to be shown.`;
  try {
    return printValue(decode(result), { max: 60_000 });
  } catch (error) {
    return sentenceOf(error);
  }
}
