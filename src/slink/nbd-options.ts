/** The words of an nbd site: its address, and what may stand in its options. */
import { RepError } from '../base/errors.js';
import { parseDuration } from '../base/units.js';

export interface NbdAddress {
  host: string;
  port: number;
}

export interface NbdTls {
  /** `require`: certificates, the server's is checked. `psk`: a key that both know. */
  how: 'require' | 'psk';
  /** Paths of PEM files; '' = the system's authorities, no certificate of our own. */
  ca: string;
  cert: string;
  key: string;
  /** Name that the server's certificate must carry; '' = the host of the address. */
  hostname: string;
  /** File with lines `USER:HEXKEY`, and whose line is meant; '' = the first one. */
  pskFile: string;
  pskUser: string;
}

export interface NbdOptions {
  timeoutMs: number;
  reconnectWaitMs: number;
  tls: NbdTls | undefined;
}

export const NBD_PORT = 10809;

/** `HOST`, `HOST:PORT`, `[v6]:PORT`; throws EINVAL. */
export function parseNbdAddress(text: string): NbdAddress {
  const m = /^(?:\[([0-9A-Fa-f:.%\w]+)\]|([^\s:[\]/]+))(?::(\d{1,5}))?$/.exec(text);
  const port = Number(m?.[3] ?? NBD_PORT);
  if (m === null || port < 1 || port > 65535)
    throw new RepError('EINVAL', `"${text}" is not HOST:PORT, such as backup.example:10809 or [::1]:10809`);
  return { host: m[1] ?? m[2]!, port };
}

const WORDS = [
  'timeout',
  'reconnect-wait',
  'tls',
  'tls-ca',
  'tls-cert',
  'tls-key',
  'tls-hostname',
  'tls-psk',
  'tls-psk-user',
] as const;

/** Throws EINVAL naming the word that is wrong. */
export function parseNbdOptions(options: Readonly<Record<string, string>>): NbdOptions {
  for (const word of Object.keys(options))
    if (!WORDS.some((w) => w === word)) throw wrong(word, `is not known; an nbd site takes ${WORDS.join(', ')}`);
  const time = (word: string, otherwise: number, least: number): number => {
    const text = options[word];
    const ms = text === undefined ? otherwise : parseDuration(text);
    if (ms === undefined || ms < least || ms > 3_600_000) throw wrong(word, `"${text}" is not a time such as 30s`);
    return ms;
  };
  const text = (word: string): string => options[word] ?? '';
  const how = options['tls'] ?? 'off';
  if (how !== 'off' && how !== 'require' && how !== 'psk')
    throw wrong('tls', `"${how}" is not one of off, require, psk`);
  const of: Record<string, 'require' | 'psk'> = {
    ...{ 'tls-ca': 'require', 'tls-cert': 'require', 'tls-key': 'require', 'tls-hostname': 'require' },
    ...{ 'tls-psk': 'psk', 'tls-psk-user': 'psk' },
  };
  for (const [word, needs] of Object.entries(of))
    if (options[word] !== undefined && how !== needs) throw wrong(word, `goes with tls=${needs}`);
  for (const word of ['tls-ca', 'tls-cert', 'tls-key', 'tls-psk'])
    if (options[word] !== undefined && !text(word).startsWith('/'))
      throw wrong(word, `"${text(word)}" is not an absolute path`);
  if ((options['tls-cert'] === undefined) !== (options['tls-key'] === undefined))
    throw wrong('tls-cert', 'goes with tls-key: name both or none');
  if (how === 'psk' && text('tls-psk') === '') throw wrong('tls-psk', 'is missing: the file with the key');
  return {
    timeoutMs: time('timeout', 30_000, 100),
    reconnectWaitMs: time('reconnect-wait', 5000, 0),
    tls:
      how === 'off'
        ? undefined
        : {
            how,
            ...{ ca: text('tls-ca'), cert: text('tls-cert'), key: text('tls-key'), hostname: text('tls-hostname') },
            ...{ pskFile: text('tls-psk'), pskUser: text('tls-psk-user') },
          },
  };
}

function wrong(word: string, why: string): RepError {
  return new RepError('EINVAL', `option ${word}: ${why}`);
}
