/**
 * What a message is answered with, one line each in `.ctl/messages`, fields separated by tabs:
 *
 *   7 <tab> 2026-11-20T06:47:46.120Z <tab> ok <tab> tag before-upgrade <tab> seq 4711
 *   8 <tab> 2026-11-20T06:47:59.001Z <tab> ENOENT <tab> site 9 pause <tab> site 9: no such site; there is 1
 */
import { ERRNO, errnoName } from '../base/errors.js';

export interface MessageReply {
  /** Running number since the daemon started. */
  nr: number;
  /** ISO 8601. */
  at: string;
  /** 0 = done, otherwise the positive errno. */
  errno: number;
  /** The message's words, joined by one blank. */
  message: string;
  /** The sentence: a result (`seq 4711`) or the reason and next step. May be empty. */
  text: string;
}

export function formatReply(reply: MessageReply): string {
  const result = reply.errno === 0 ? 'ok' : errnoName(reply.errno).replace(' ', '-');
  const fields = [String(reply.nr), reply.at, result, reply.message, reply.text];
  return `${fields.map((field) => field.replace(/[\t\n\r]+/g, ' ')).join('\t')}\n`;
}

/** The reply in a line, or undefined where it is none. */
export function parseReply(line: string): MessageReply | undefined {
  const [nr, at, result, message, text] = line.split('\t');
  if (text === undefined || result === undefined || !/^\d+$/.test(nr ?? '')) return undefined;
  const numbered = /^errno-(\d+)$/.exec(result);
  const errno =
    result === 'ok' ? 0 : numbered ? Number(numbered[1]) : (ERRNO[result as keyof typeof ERRNO] ?? ERRNO.EIO);
  return { nr: Number(nr), at: at!, errno, message: message!, text };
}
