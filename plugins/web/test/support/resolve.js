// Lets Node import modules of the page: `/elbus/..` are the files of the client. `node --import
// ./support/resolve.js`

import { register } from 'node:module';

const hooks = `
const root = new URL('../../../../', ${JSON.stringify(import.meta.url)});
export function resolve(specifier, context, next) {
  if (!specifier.startsWith('/elbus/')) return next(specifier, context);
  return next(new URL(specifier.replace('/elbus/', 'clients/javascript/src/'), root).href, context);
}`;

register(`data:text/javascript,${encodeURIComponent(hooks)}`);
