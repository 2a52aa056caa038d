// Which methods the broker has, and which of them the page may call. The broker decides: the page asks it by
// the method `explain`, and only disables what it has refused.

/** @typedef {import('./bus.js').Bus} Bus */
/** @typedef {{ name: string, params: string, about: string, admin: boolean }} MethodInfo */

/** Administrative methods that views offer, and that change something. */
const OFFERED = ['client.kick', 'plugin.start', 'plugin.stop', 'plugin.reload', 'config.reload'];
/** Administrative methods that views use. */
const USED = [...OFFERED, 'log.recent'];
/** Methods of one broker that the page shows at most. */
const MAX_METHODS = 2000;

/** The methods of the broker, and the refusals of the administrative ones. */
export class Rights {
  /** @type {MethodInfo[]} */
  methods = [];
  /** Why a method is refused, by its name. @type {Map<string, string>} */
  #refusals = new Map();
  #bus;

  /** @param {Bus} bus */
  constructor(bus) {
    this.#bus = bus;
  }

  /**
   * Asks the broker. Methods whose rights are unknown afterwards are offered: the broker refuses them if
   * called.
   */
  async load() {
    const result = await this.#bus.call('method.list').catch(() => undefined);
    const methods = Array.isArray(result?.methods) ? result.methods.slice(0, MAX_METHODS) : [];
    this.methods = methods.filter((/** @type {any} */ method) => typeof method?.name === 'string');
    const known = USED.filter((name) => this.methods.length === 0 || this.has(name));
    const refusals = new Map();
    await Promise.all(
      known.map(async (method) => {
        const why = await this.#ask(method);
        if (why !== undefined) refusals.set(method, why);
      }),
    );
    this.#refusals = refusals;
  }

  /**
   * Returns why the page may not call a method, `undefined` if it may or if that is unknown.
   * @param {string} method
   * @returns {Promise<string | undefined>}
   */
  async #ask(method) {
    const question = { action: 'call', name: this.#bus.name, target: method };
    const answer = await this.#bus.call('explain', question).catch(() => undefined);
    return answer?.allowed === false ? String(answer.why).replace(/^denied: /, '') : undefined;
  }

  /**
   * Returns why the page may not call any method of the broker, asked now.
   * @param {string} method
   */
  async explain(method) {
    const known = this.#refusals.get(method);
    return known ?? this.#ask(method);
  }

  /**
   * Returns why an offered method is refused.
   * @param {string} method
   * @returns {string | undefined}
   */
  refusal(method) {
    return this.#refusals.get(method);
  }

  /** Whether none of the offered methods may be called. */
  get isReadOnly() {
    const known = OFFERED.filter((name) => this.has(name));
    return known.length > 0 && known.every((name) => this.#refusals.has(name));
  }

  /**
   * Whether the broker has a method.
   * @param {string} name
   */
  has(name) {
    return this.methods.some((method) => method.name === name);
  }
}
