/** The messages `device create|resize|remove`: their words, and what they ask of the group. */
import { RepError } from '../base/errors.js';
import { parseSize } from '../base/units.js';
import type { ChangeHow } from './device-changes.js';
import type { NewDevice } from './device-plan.js';
import { prefixOf } from './message-words.js';

export interface DeviceHost {
  createDevice(request: NewDevice, how: ChangeHow): Promise<string>;
  resizeDevice(name: string, size: number, how: ChangeHow): Promise<string>;
  removeDevice(name: string, force: boolean, how: ChangeHow): Promise<string>;
}

const DEVICE_VERBS = ['create', 'remove', 'resize'] as const;
const DEVICE_USAGE =
  'write: device create NAME size=SIZE [local=PATH] [sparse] [nr=N], device resize NAME SIZE, or device remove NAME [force]';

export function device(
  words: readonly string[],
  [verb = '', name = '', ...rest]: readonly string[],
  host: DeviceHost,
  how: ChangeHow,
): Promise<string> {
  const wrong = new RepError('EINVAL', `${words.join(' ')}: not understood; ${DEVICE_USAGE}`);
  if (name === '') throw wrong;
  switch (prefixOf(verb, DEVICE_VERBS)) {
    case 'create':
      return host.createDevice(newDevice(name, rest, wrong), how);
    case 'resize':
      if (rest.length !== 1) throw wrong;
      return host.resizeDevice(name, sizeOf(name, rest[0]!), how);
    case 'remove':
      if (rest.length > 1 || (rest.length === 1 && rest[0] !== 'force')) throw wrong;
      return host.removeDevice(name, rest.length === 1, how);
    case undefined:
      throw wrong;
  }
}

function newDevice(name: string, words: readonly string[], wrong: RepError): NewDevice {
  const request: NewDevice = { name, size: -1, sparse: false };
  for (const word of words) {
    const [, key, value] = /^(size|local|nr)=(.+)$/u.exec(word) ?? [];
    if (word === 'sparse') request.sparse = true;
    else if (key === 'size') request.size = sizeOf(name, value!);
    else if (key === 'local') request.local = value!.replace(/\\(.)/gu, '$1');
    else if (key === 'nr' && /^\d{1,9}$/.test(value!)) request.nr = Number(value);
    else throw wrong;
  }
  if (request.size < 0) throw wrong;
  return request;
}

function sizeOf(name: string, word: string): number {
  const bytes = parseSize(word);
  if (bytes === undefined)
    throw new RepError('EINVAL', `${name}: "${word}" is not a size; write for example 512M, 10G or 1T`);
  return bytes;
}
