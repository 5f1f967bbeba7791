/**
 * Messages: what an operator may tell a mounted group by writing to `.ctl/messages`. One message per write.
 * Words are separated by blanks and may be shortened as long as they stay unambiguous.
 *
 *   site NR pause                stop sending to a site; the log keeps what it misses
 *   site NR resume               go on sending
 *   site NR policy POLICY [stall]    sync or async: who waits for the site
 *   site NR set KEY=VALUE…       policy, stall, ack, fallbehind, sync-timeout, bandwidth, rpo, … (site-settings)
 *   site NR verify               compares the site with the local images; `site NR verify stop` ends that
 *   site add NR TYPE:ADDRESS [KEY=VALUE…]    a new site, from the beginning of the log
 *   site remove NR               a site that is no longer fed; its data stay where they are
 *   fail-pending                 answers those who wait for sites with EIO; what they wrote stays in the log
 *   device create NAME size=SIZE [local=PATH] [sparse] [nr=N]
 *   device resize NAME SIZE      larger only
 *   device remove NAME [force]   its content is kept; `force` also while it is in use
 *   tag NAME                     a named point in the history; answers its seq
 *   resume [all]                 try again what an error suspended; sites go on if all are paused, with `all` each one
 *   suspend [all]                pause every site
 *   flush                        as wait, without a limit
 *   statistics on|off|reset      counts and histograms: goes on, stops, begins anew (also: replog statistics …)
 *   replog resize SECTORS        another size for the log, while it is used; answers when it has it, or what it waits for
 *   wait [NR] [TIMEOUT]          answers when site NR confirmed all that was written before; without NR, when
 *                                all sites did and it is on the local images as well
 *
 * and the words of the historic targets (historic.ts): start, stop, postsuspend, DEVICE start|stop|…; and to links
 * (historic-slink.ts): slink add, slink del, slink message.
 *
 * Errors: EINVAL unknown or misused message, ENOENT unknown site, ENODEV unknown device, ETIMEDOUT, EINTR.
 */
import { ERRNO, RepError, errnoName, type ErrnoName } from '../base/errors.js';
import { flush, replogResize, start, stop, toDevice } from './historic.js';
import { slink } from './historic-slink.js';
import { prefixOf } from './message-words.js';
import { parseDuration } from '../base/units.js';
import type { ChangeHow } from './device-changes.js';
import type { NewDevice } from './device-plan.js';
import { device } from './message-device.js';
import type { MessageReply } from './replies.js';
import { formatReply } from './replies.js';

/** What messages act on; implemented by the daemon's main thread. Each resolves to the reply's sentence. */
export interface MessageHost {
  sites(): readonly number[];
  devices(): readonly string[];
  isPaused(site: number): boolean;
  createDevice(request: NewDevice, how: ChangeHow): Promise<string>;
  resizeDevice(name: string, size: number, how: ChangeHow): Promise<string>;
  removeDevice(name: string, force: boolean, how: ChangeHow): Promise<string>;
  setPaused(site: number, paused: boolean): Promise<string>;
  /** `words`: KEY=VALUE. */
  setSite(site: number, words: readonly string[]): Promise<string>;
  addSite(nr: string, where: string, words: readonly string[]): Promise<string>;
  removeSite(site: number): Promise<string>;
  verify(site: number, what: 'start' | 'stop'): Promise<string>;
  failPending(): Promise<string>;
  /** `resent`: the request was sent to an earlier daemon already, which may have done it. */
  tag(name: string, resent: boolean): Promise<string>;
  resume(): Promise<string>;
  statistics(what: 'on' | 'off' | 'reset'): Promise<string>;
  /** `size`: bytes. */
  resizeLog(size: number, how: ChangeHow): Promise<string>;
  /** Slink 0 among `links` means the local images. */
  wait(links: readonly number[], timeoutMs: number, stop: AbortSignal): Promise<string>;
}

export const MAX_MESSAGE = 4096;
const MAX_TAG = 128;
const DEFAULT_WAIT_MS = 60_000;
const VERBS = [
  'fail-pending',
  'device',
  'flush',
  'postsuspend',
  'replog',
  'resume',
  'site',
  'slink',
  'start',
  'statistics',
  'stop',
  'suspend',
  'tag',
  'wait',
] as const;
const STATISTICS_VERBS = ['on', 'off', 'reset'] as const;
const SITE_VERBS = ['pause', 'resume', 'policy', 'set', 'verify'] as const;
const SITES_VERBS = ['add', 'remove'] as const;

/** The words of one message. Throws EINVAL where the text is not one. */
export function splitMessage(text: string): string[] {
  const lines = text.split('\n').filter((line) => line.trim() !== '');
  if (lines.length === 0) throw invalid('an empty message', `write one of: ${USAGE}`);
  if (lines.length > 1) throw invalid(`${lines.length} messages in one write`, 'write them one by one');
  const line = lines[0]!;
  if (/[\p{Cc}\ufffd]/u.test(line.replace(/\t/g, ' ')))
    throw invalid('a message with unprintable bytes', 'write plain text');
  // A blank behind a backslash belongs to the word, as in a table.
  return line.match(/(?:\\.|\S)+/gu) ?? [];
}

const SITE_USAGE =
  'site NR pause|resume|policy POLICY|set KEY=VALUE…|verify [stop], site add NR TYPE:ADDRESS, site remove NR';
const USAGE =
  'site NR pause|resume|policy|set|verify, site add|remove NR, fail-pending, device create|resize|remove NAME, tag NAME, ' +
  'suspend, resume, flush, wait [NR] [TIMEOUT], replog resize SECTORS, statistics on|off|reset';

/** Carries out one message; resolves to the sentence that answers it, rejects with a RepError. */
export async function runMessage(
  words: readonly string[],
  host: MessageHost,
  options: { resent: boolean; stop: AbortSignal },
): Promise<string> {
  const [first = '', ...rest] = words;
  // A device's name wins over a shortened verb, so that no later verb takes a device's messages away.
  if (host.devices().includes(first)) return toDevice(host, first, rest);
  switch (prefixOf(first, VERBS)) {
    case 'site':
      return site(words, rest, host);
    case 'slink':
      return slink(host, rest);
    case 'fail-pending':
      if (rest.length > 0) throw invalid(words.join(' '), 'write: fail-pending');
      return host.failPending();
    case 'device':
      return device(words, rest, host, options);
    case 'tag': {
      const name = rest[0];
      if (name === undefined || rest.length !== 1 || /\s/.test(name))
        throw invalid(words.join(' '), 'write: tag NAME, a name without blanks');
      if (Buffer.byteLength(name) > MAX_TAG)
        throw invalid('tag', `a tag has at most ${MAX_TAG} bytes; choose a shorter name`);
      return host.tag(name, options.resent);
    }
    case 'start':
    case 'resume':
      return start(host, isAll(words, rest));
    case 'stop':
    case 'suspend':
    case 'postsuspend':
      isAll(words, rest);
      return stop(host);
    case 'flush':
      return flush(host, rest, options.stop);
    case 'statistics':
      return statistics(words, rest, host);
    case 'replog':
      return replog(words, rest, host, options);
    case 'wait': {
      const { links, timeoutMs } = waitArguments(rest, host);
      return host.wait(links, timeoutMs, options.stop);
    }
    case undefined:
      if (/^disk\d+$/.test(first))
        throw new RepError('ENODEV', `${first}: no such device; "reptool device list" shows those there are`);
      throw invalid(words.join(' '), `known are ${USAGE}`);
  }
}

function replog(words: readonly string[], rest: readonly string[], host: MessageHost, how: ChangeHow): Promise<string> {
  const verb = prefixOf(rest[0] ?? '', ['resize', 'statistics']);
  if (verb === 'resize') return replogResize(host, rest.slice(1), how);
  if (verb === 'statistics') return statistics(words, rest.slice(1), host);
  throw invalid(words.join(' '), 'write: replog resize SECTORS, or replog statistics on|off|reset');
}

/** True for `all`; throws where anything else stands there. */
function isAll(words: readonly string[], rest: readonly string[]): boolean {
  if (rest.length > 1 || (rest.length === 1 && prefixOf(rest[0]!, ['all']) === undefined))
    throw invalid(words.join(' '), `write: ${words[0]} [all]`);
  return rest.length === 1;
}

function site(words: readonly string[], rest: readonly string[], host: MessageHost): Promise<string> {
  const misused = (): RepError => invalid(words.join(' '), `write: ${SITE_USAGE}`);
  const all = prefixOf(rest[0] ?? '', SITES_VERBS);
  if (all === 'add') {
    if (rest.length < 3) throw misused();
    return host.addSite(rest[1]!, rest[2]!, rest.slice(3));
  }
  if (all === 'remove') {
    if (rest.length !== 2) throw misused();
    return host.removeSite(siteNumber(rest[1], host));
  }
  const nr = siteNumber(rest[0], host);
  const more = rest.slice(2);
  switch (prefixOf(rest[1] ?? '', SITE_VERBS)) {
    case 'pause':
    case 'resume':
      if (more.length > 0) throw misused();
      return host.setPaused(nr, rest[1]!.startsWith('p'));
    case 'policy':
      if (more.length === 0 || more.length > 2) throw misused();
      return host.setSite(nr, [`policy=${more.join('+')}`]);
    case 'set':
      if (more.length === 0) throw misused();
      return host.setSite(nr, more);
    case 'verify': {
      if (more.length > 1 || (more.length === 1 && prefixOf(more[0]!, ['stop']) === undefined)) throw misused();
      return host.verify(nr, more.length === 0 ? 'start' : 'stop');
    }
    case undefined:
      throw misused();
  }
}

const STATISTICS_USAGE = 'write: statistics on|off|reset';

function statistics(words: readonly string[], rest: readonly string[], host: MessageHost): Promise<string> {
  const what = prefixOf(rest[0] ?? '', STATISTICS_VERBS);
  if (what === undefined || rest.length !== 1) throw invalid(words.join(' '), STATISTICS_USAGE);
  return host.statistics(what);
}

function waitArguments(rest: readonly string[], host: MessageHost): { links: readonly number[]; timeoutMs: number } {
  const words = [...rest];
  let links: readonly number[] = [0, ...host.sites()];
  // A bare number is a site; a time says its unit, unless it follows the site.
  if (words[0] !== undefined && /^\d+$/.test(words[0])) links = [siteNumber(words.shift(), host)];
  const timeoutMs = words[0] === undefined ? DEFAULT_WAIT_MS : parseDuration(words.shift()!);
  if (timeoutMs === undefined || words.length > 0)
    throw invalid(['wait', ...rest].join(' '), 'write: wait [NR] [TIMEOUT], such as "wait 1 30s"');
  return { links, timeoutMs };
}

function siteNumber(word: string | undefined, host: MessageHost): number {
  if (word === undefined || !/^\d+$/.test(word))
    throw invalid(`site ${word ?? ''}`.trim(), 'a site is named by its number');
  const nr = Number(word);
  if (nr === 0)
    throw invalid('site 0', 'slink 0 is the local site, which is not paused, waited for or set; name a site from 1');
  if (!host.sites().includes(nr)) {
    const known = host.sites().join(', ');
    throw new RepError('ENOENT', `site ${nr}: no such site; ${known === '' ? 'there are none' : `there is ${known}`}`);
  }
  return nr;
}

function invalid(what: string, next: string): RepError {
  return new RepError('EINVAL', `${what === '' ? 'message' : what}: not understood; ${next}`);
}

/** Messages so far: carried out, failed, not understood. */
export interface MessageCounts {
  ok: number;
  failed: number;
  invalid: number;
}

/** The replies that `.ctl/messages` shows, newest last, bounded; and the messages that are being carried out. */
export class MessageBoard {
  private readonly host: () => MessageHost;
  private readonly nowMs: () => number;
  private readonly limit: number;
  readonly counts: MessageCounts = { ok: 0, failed: 0, invalid: 0 };
  private readonly kept: MessageReply[] = [];
  private next = 1;
  changedMs: number;

  constructor(host: () => MessageHost, nowMs: () => number = Date.now, limit = 256) {
    this.host = host;
    this.nowMs = nowMs;
    this.limit = limit;
    this.changedMs = nowMs();
  }

  get replies(): readonly MessageReply[] {
    return this.kept;
  }

  text(replies: readonly MessageReply[] = this.kept): string {
    return replies.map(formatReply).join('');
  }

  /** Carries out what was written; never rejects. `stop` ends a message that waits (EINTR). */
  async submit(text: string, options: { resent: boolean; stop: AbortSignal }): Promise<MessageReply> {
    let message = text.trim().replace(/\s+/g, ' ').slice(0, 200);
    try {
      const words = splitMessage(text);
      message = words.join(' ');
      return this.keep(0, message, await runMessage(words, this.host(), options));
    } catch (error) {
      if (!(error instanceof RepError)) throw error;
      return this.keep(ERRNO[error.errno], message, error.message);
    }
  }

  private keep(errno: number, message: string, text: string): MessageReply {
    const reply: MessageReply = { nr: this.next++, at: new Date(this.nowMs()).toISOString(), errno, message, text };
    this.counts[errno === 0 ? 'ok' : errno === ERRNO.EINVAL ? 'invalid' : 'failed']++;
    this.kept.push(reply);
    if (this.kept.length > this.limit) this.kept.shift();
    this.changedMs = this.nowMs();
    return reply;
  }
}

/** Error that a reply stands for, or undefined where it reports success. */
export function replyError(reply: MessageReply): RepError | undefined {
  if (reply.errno === 0) return undefined;
  const name = errnoName(reply.errno);
  return new RepError((name in ERRNO ? name : 'EIO') as ErrnoName, reply.text);
}
