// Starts the page: signs in, shows the state of the connection, and hands over to the router.

import { Bus } from './bus/bus.js';
import { forgetCredentials } from './bus/credentials.js';
import { Rights } from './bus/rights.js';
import { busText } from './parts/fields.js';
import { fill, setText } from './parts/dom.js';
import { Router } from './router.js';
import { signIn } from './sign-in.js';
import { callsView } from './views/calls.js';
import { clientsView } from './views/clients.js';
import { eventsView } from './views/events.js';
import { explainView } from './views/explain.js';
import { mapView } from './views/map.js';
import { overviewView } from './views/overview.js';
import { pluginsView } from './views/plugins.js';
import { topicsView } from './views/topics.js';

const VIEWS = [
  overviewView,
  clientsView,
  topicsView,
  mapView,
  callsView,
  pluginsView,
  eventsView,
  explainView,
];

/** @param {string} selector @returns {HTMLElement} */
function element(selector) {
  const found = document.querySelector(selector);
  if (!(found instanceof HTMLElement)) throw new Error(`the page has no ${selector}`);
  return found;
}

/** @param {import('./bus/bus.js').ConnectionState} state */
function showState({ state, text }) {
  const status = element('#state');
  const name = {
    connected: 'Connected',
    disconnected: 'Disconnected',
    closed: 'Closed',
  }[state];
  status.dataset.state = state;
  setText(status, text === '' ? name : `${name}. ${text}`);
  document.body.classList.toggle('offline', state !== 'connected');
}

/**
 * @param {Bus} bus
 * @param {Rights} rights
 */
async function showIdentity(bus, rights) {
  const health = await bus.call('health').catch(() => undefined);
  const name = typeof health?.name === 'string' ? health.name : '';
  fill(element('#broker'), name === '' ? null : busText(name, 60));
  const note = rights.isReadOnly ? ' · read-only' : '';
  const identity = element('#identity');
  fill(identity, busText(bus.name, 60), note);
  identity.title = rights.isReadOnly ? (rights.refusal('client.kick') ?? '') : '';
}

async function start() {
  const bus = await signIn(element('#main'));
  const rights = new Rights(bus);
  const signOut = element('#sign-out');
  signOut.hidden = false;
  signOut.addEventListener('click', () => {
    forgetCredentials();
    bus.close().finally(() => location.replace(location.pathname));
  });
  showState(bus.state);
  await rights.load();
  const router = new Router(
    VIEWS,
    { main: element('#main'), navigation: element('#views') },
    { bus, rights },
  );
  showIdentity(bus, rights);
  let wasLost = false;
  bus.onState(async (state) => {
    showState(state);
    if (state.state !== 'connected') wasLost = true;
    else if (wasLost) {
      // another broker, or another configuration: rights and methods can differ
      wasLost = false;
      await rights.load();
      showIdentity(bus, rights);
      router.reload();
    }
  });
}

start();
