// A bus with something to see: sensors that publish, methods that are called, a client that is too slow.

import { connect, encode, RpcError } from '../../../../clients/javascript/src/index.js';

/**
 * Starts clients that send until they are stopped.
 * @param {string} address
 */
export async function startPlant(address) {
  const names = ['plant.oven', 'plant.press', 'plant.display', 'hmi.line1', 'plant.archive'];
  const [oven, press, display, panel, archive] = await Promise.all(
    names.map((name) => connect(address, name)),
  );
  oven.serve({
    temperature: () => 71.5,
    heat(/** @type {any} */ params) {
      if (!(params?.celsius <= 300)) throw RpcError.invalidParams('celsius must be at most 300');
      return { celsius: params.celsius, heating: true };
    },
    /** A slow method. */
    calibrate: () =>
      new Promise((resolve) => {
        setTimeout(resolve, 60);
      }),
  });
  await display.addFilters(['oven/#', 'press/+']);
  // referred to until the end: a subscription that is not is ended
  const everything = await archive.subscribe('#', { latest: true });
  await display.exclude('press/secret');
  let number = 0;
  const send = async () => {
    number += 1;
    const wave = Math.sin(number / 20);
    await Promise.all([
      oven.publish('oven/temperature', (180 + 8 * wave).toFixed(2)),
      oven.publish(
        'oven/state',
        JSON.stringify({ celsius: 180 + 8 * wave, heating: wave < 0, door: 'closed' }),
      ),
      press.publish('press/cycle', encode({ number, force: 1200 + 40 * wave, ok: true })),
      press.publish('press/raw', new Uint8Array([0xff, 0xfe, number & 0xff, 0])),
      press.publish('press/log', `cycle ${number} done`),
      panel.call('plant.oven', 'temperature'),
      panel.send('plant.display', 'hello'),
      number % 20 === 1 && panel.call('plant.oven', 'calibrate'),
      number % 20 === 2 && panel.call('plant.oven', 'heat', { celsius: 999 }).catch(() => {}),
    ]);
  };
  await send();
  let isBusy = false;
  const timer = setInterval(() => {
    if (isBusy) return; // a slow machine gets less load instead of a queue
    isBusy = true;
    send()
      .catch(() => {})
      .finally(() => {
        isBusy = false;
      });
  }, 50);
  return {
    async stop() {
      clearInterval(timer);
      await everything.unsubscribe();
      await Promise.all([oven, press, display, panel, archive].map((client) => client.close()));
    },
  };
}
